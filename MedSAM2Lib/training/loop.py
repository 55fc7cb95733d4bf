"""The training loop: resumable bit for bit, because every step is a function of the weights, the seed and its number."""

from __future__ import annotations

import math
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeVar, cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim import swa_utils
from torch.utils.data import DataLoader, Dataset

from MedSAM2Lib.atomic import make_folder
from MedSAM2Lib.errors import TrainingError
from MedSAM2Lib.training.processes import Processes
from MedSAM2Lib.training.run_log import RunLog
from MedSAM2Lib.training.state import RunState

__all__ = ["Batch", "RunPlan", "StepBatches", "run_training"]

Network = TypeVar("Network", bound=nn.Module)

_PROMPTS = 2  # keeps the random numbers of prompts apart from those of examples and of lengths


class Batch(Protocol):
    """What a step is trained on."""

    def to(self, device: torch.device) -> Batch: ...


@dataclass(frozen=True)
class RunPlan(ABC):
    """What every run has; two runs with the same plan, data and machine give the same weights."""

    steps: int
    learning_rate: float = 5e-4
    warmup_steps: int = 300
    final_share: float = 0.02  # of the learning rate at the end of the cosine
    weight_decay: float = 0.05  # not on biases, normalisations and embeddings
    gradient_clip: float = 1.0
    averaging: float = 0.999  # decay of the moving average of the weights, which is what ships
    mixed_precision: bool = True  # bfloat16 where torch holds it safe
    seed: int = 0
    save_every: int = 100
    validate_every: int = 500
    workers: int = 1
    tensorboard: bool = False  # also write logs for it

    @property
    @abstractmethod
    def slices_per_step(self) -> int:
        """What a step is worth, for the log."""

    def learning_rate_at(self, step: int) -> float:
        """Warm-up and a cosine."""
        if step < self.warmup_steps:
            return self.learning_rate * (step + 1) / self.warmup_steps
        progress = (step - self.warmup_steps) / max(1, self.steps - self.warmup_steps)
        share = self.final_share + (1 - self.final_share) * (1 + math.cos(math.pi * progress)) / 2
        return self.learning_rate * share


class StepBatches(Dataset[Batch], ABC):
    """A process's share of batch number n, made the same way whenever it is asked for."""

    def __init__(self, plan: RunPlan, processes: Processes) -> None:
        self._steps, self._seed, self._processes = plan.steps, plan.seed, processes

    def __len__(self) -> int:
        return self._steps

    def __getitem__(self, step: int) -> Batch:
        rank, count = self._processes.rank, self._processes.count
        rng = np.random.default_rng((self._seed, step, *([rank] if rank else [])))
        return self.draw(rng, step, count, step * count + rank)

    @abstractmethod
    def draw(self, rng: np.random.Generator, step: int, processes: int, number: int) -> Batch:
        """A function of its arguments: the batch of one of some `processes` in a step; `number` is its place among all."""


def run_training(
    network: Network,
    loss_of: nn.Module,
    batches: StepBatches,
    plan: RunPlan,
    folder: Path,
    *,
    device: torch.device,
    validate: Callable[[Network], dict[str, float]] | None = None,
    report: Callable[[str], None] = lambda line: None,
    processes: Processes,
) -> Network:
    """Trains `network` and returns its averaged copy. `folder` receives `state.pt` (to go on from) and `log.csv`.

    loss_of  a module that holds the network, of a batch and a generator: torch averages gradients over processes of what a
             module computes

    An interrupted run goes on where `state.pt` left it. A loss that is not finite ends the run with a TrainingError; the
    state before it is kept. Of several processes the first one writes, validates and reports.
    """
    make_folder(folder)
    averaged = swa_utils.AveragedModel(network, multi_avg_fn=_moving_average(plan.averaging))
    averaged_network = cast(Network, averaged.module)
    optimizer = torch.optim.AdamW(_parameter_groups(network, plan.weight_decay), lr=plan.learning_rate)
    state = RunState(network, averaged, optimizer, device)
    first = state.resume(folder / "state.pt")
    processes.wait_for_all()  # before the first one writes another state
    log = RunLog(folder, first, tensorboard=plan.tensorboard, report=report) if processes.is_first else None
    loader = DataLoader(
        batches,
        batch_size=None,
        sampler=range(first, plan.steps),
        num_workers=plan.workers,
        prefetch_factor=4 if plan.workers else None,
    )
    network.train()
    parallel_loss_of = processes.parallel(loss_of)
    started, losses = time.monotonic(), []
    for step, batch in enumerate(loader, start=first):
        losses.append(_step(parallel_loss_of, state, plan, step, batch.to(device), processes))
        done = step + 1
        if log is not None and (done % plan.save_every == 0 or done == plan.steps):
            per_second = (done - first) * plan.slices_per_step / (time.monotonic() - started)
            rate = plan.learning_rate_at(step)
            row = {"step": done, "loss": float(np.mean(losses)), "learning_rate": rate, "slices_per_s": per_second}
            if validate is not None and (done % plan.validate_every == 0 or done == plan.steps):
                row |= validate(averaged_network.eval())
            log.add(row)
            report("  ".join(f"{name} {value:.4g}" for name, value in row.items()))
            losses.clear()
            state.save(folder / "state.pt", done)
    if log is not None:
        log.close()
    return averaged_network.eval()


def _moving_average(decay: float) -> Callable[[Any, Any, Any], None]:
    """An exponential moving average that forgets the random start: its decay grows to `decay` with the steps."""

    @torch.no_grad()
    def update(averaged: list[Tensor], current: list[Tensor], updates: Tensor | int) -> None:
        torch._foreach_lerp_(averaged, current, max(1 - decay, 9 / (10 + int(updates))))

    return update


def _step(
    loss_of: nn.Module,
    state: RunState,
    plan: RunPlan,
    step: int,
    batch: Batch,
    processes: Processes,
) -> float:
    for group in state.optimizer.param_groups:
        group["lr"] = plan.learning_rate_at(step)
    # torch's generator takes 32 bits of a seed, so they must differ in those.
    seed = np.random.SeedSequence((plan.seed, step, _PROMPTS, processes.rank)).generate_state(1)
    generator = torch.Generator().manual_seed(int(seed[0]))
    loss = loss_of(batch, generator)
    mean = float(processes.mean(loss.detach().clone()))  # over all processes, so that they end together
    if not math.isfinite(mean):
        raise TrainingError(f"The loss of step {step} is {mean}; the state before it is kept. Resume with a lower learning rate.")
    state.optimizer.zero_grad(set_to_none=True)
    loss.backward()
    torch.nn.utils.clip_grad_norm_(state.network.parameters(), plan.gradient_clip)
    state.optimizer.step()
    state.averaged.update_parameters(state.network)  # type: ignore[operator]
    return mean


def _parameter_groups(network: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    matrices: list[torch.nn.Parameter] = []
    others: list[torch.nn.Parameter] = []
    for name, parameter in network.named_parameters():
        is_matrix = parameter.ndim >= 2 and not any(part in name for part in ("embed", "token", "tpos_enc", "no_"))
        (matrices if is_matrix else others).append(parameter)
    return [{"params": matrices, "weight_decay": weight_decay}, {"params": others, "weight_decay": 0.0}]
