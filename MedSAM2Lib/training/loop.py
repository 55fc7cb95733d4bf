"""The training loop: resumable bit for bit, because every step is a function of the weights, the seed and its number."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol, cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim import swa_utils
from torch.utils.data import DataLoader, Dataset

from MedSAM2Lib.atomic import make_folder
from MedSAM2Lib.errors import TrainingError
from MedSAM2Lib.network.sam2 import SAM2
from MedSAM2Lib.training.clip import ClipBatch
from MedSAM2Lib.training.losses import FROM_SCRATCH, LossWeights
from MedSAM2Lib.training.parts import check_parts, part_of
from MedSAM2Lib.training.processes import Processes
from MedSAM2Lib.training.run_log import RunLog
from MedSAM2Lib.training.state import RunState
from MedSAM2Lib.training.steps import ClipOptions, PromptMix, clip_loss

__all__ = ["BatchSource", "TrainingPlan", "train"]


class BatchSource(Protocol):
    """Where clips come from; `training.clips.ClipSource.sample_batch` is one."""

    def __call__(self, rng: np.random.Generator, batch_size: int, image_size: int, length: int, *, step: int) -> ClipBatch:
        """A function of the arguments alone."""


_PROMPTS = 2  # keeps the random numbers of prompts apart from those of clips and of lengths
_ALONE = Processes()


@dataclass(frozen=True)
class TrainingPlan:
    """What a run does; two runs with the same plan, data and machine give the same weights."""

    steps: int
    slices_per_step: int = 16  # a step holds slices_per_step / length clips, over all processes
    single_slice_steps: int = 0  # first steps that train on single slices only
    lengths: tuple[int, ...] = (4, 6, 8)  # clip lengths afterwards, one drawn per step
    # First steps that train on smaller images, which are seen twice as fast; only for networks of convolutions.
    small_image_steps: int = 0
    small_image_size: int = 96
    frozen: tuple[str, ...] = ()  # of `parts.PARTS`: what is never trained
    learning_rate: float = 5e-4
    warmup_steps: int = 300
    final_share: float = 0.02  # of the learning rate at the end of the cosine
    weight_decay: float = 0.05  # not on biases, normalisations and embeddings
    gradient_clip: float = 1.0
    averaging: float = 0.999  # decay of the moving average of the weights, which is what ships
    prompts: PromptMix = field(default_factory=PromptMix)
    losses: LossWeights = FROM_SCRATCH
    clips: ClipOptions = field(default_factory=ClipOptions)
    mixed_precision: bool = True  # bfloat16 where torch holds it safe
    seed: int = 0
    save_every: int = 100
    validate_every: int = 500
    workers: int = 1
    tensorboard: bool = False  # also write logs for it

    def __post_init__(self) -> None:
        check_parts(self.frozen)

    def scaled(self, steps: int) -> TrainingPlan:
        """The same plan over another number of steps, its stages in proportion."""
        share = steps / self.steps
        return replace(
            self,
            steps=steps,
            single_slice_steps=round(self.single_slice_steps * share),
            small_image_steps=round(self.small_image_steps * share),
        )

    def image_size(self, step: int, full: int) -> int:
        """Side of the images of a step, pixels; `full` is the network's own."""
        return self.small_image_size if step < self.small_image_steps else full

    def clip_length(self, step: int) -> int:
        if step < self.single_slice_steps:
            return 1
        return int(np.random.default_rng((self.seed, step, 1)).choice(self.lengths))

    def learning_rate_at(self, step: int) -> float:
        """Warm-up and a cosine."""
        if step < self.warmup_steps:
            return self.learning_rate * (step + 1) / self.warmup_steps
        progress = (step - self.warmup_steps) / max(1, self.steps - self.warmup_steps)
        share = self.final_share + (1 - self.final_share) * (1 + math.cos(math.pi * progress)) / 2
        return self.learning_rate * share


class _Batches(Dataset[ClipBatch]):
    """A process's share of batch number n, made the same way whenever it is asked for."""

    def __init__(self, source: BatchSource, plan: TrainingPlan, image_size: int, processes: Processes) -> None:
        self.source, self.plan, self.image_size, self.processes = source, plan, image_size, processes

    def __len__(self) -> int:
        return self.plan.steps

    def __getitem__(self, step: int) -> ClipBatch:
        rank, count = self.processes.rank, self.processes.count
        length = self.plan.clip_length(step)
        rng = np.random.default_rng((self.plan.seed, step, *([rank] if rank else [])))
        clips = max(1, self.plan.slices_per_step // length // count)
        image_size = self.plan.image_size(step, self.image_size)
        return self.source(rng, clips, image_size, length, step=step * count + rank)


class _ClipLoss(nn.Module):
    """The loss as a module of its own, because torch averages gradients over processes of what a module computes."""

    def __init__(self, network: SAM2, plan: TrainingPlan) -> None:
        super().__init__()
        self.network, self.plan = network, plan

    def forward(self, batch: ClipBatch, generator: torch.Generator) -> Tensor:
        plan = self.plan
        with torch.autocast(batch.images.device.type, torch.bfloat16, enabled=plan.mixed_precision):
            return clip_loss(self.network, batch, plan.prompts, plan.losses, generator, plan.clips)


def train(
    network: SAM2,
    source: BatchSource,
    plan: TrainingPlan,
    folder: Path,
    *,
    validate: Callable[[SAM2], dict[str, float]] | None = None,
    report: Callable[[str], None] = lambda line: None,
    processes: Processes = _ALONE,
) -> SAM2:
    """Trains `network` and returns its averaged copy. `folder` receives `state.pt` (to go on from) and `log.csv`.

    An interrupted run goes on where `state.pt` left it. A loss that is not finite ends the run with a TrainingError; the
    state before it is kept. Of several processes the first one writes, validates and reports.
    """
    make_folder(folder)
    full_config = network.config
    averaged = swa_utils.AveragedModel(network, multi_avg_fn=_moving_average(plan.averaging))
    averaged_network = cast(SAM2, averaged.module)
    optimizer = torch.optim.AdamW(_parameter_groups(network, plan.weight_decay), lr=plan.learning_rate)
    state = RunState(network, averaged, optimizer)
    first = state.resume(folder / "state.pt")
    processes.wait_for_all()  # before the first one writes another state
    log = RunLog(folder, first, tensorboard=plan.tensorboard, report=report) if processes.is_first else None
    batches = DataLoader(
        _Batches(source, plan, network.config.image_size, processes),
        batch_size=None,
        sampler=range(first, plan.steps),
        num_workers=plan.workers,
        prefetch_factor=4 if plan.workers else None,
    )
    network.train()
    for name, parameter in network.named_parameters():
        parameter.requires_grad_(part_of(name) not in plan.frozen)
    clip_loss_of = processes.parallel(_ClipLoss(network, plan))
    started, losses = time.monotonic(), []
    for step, batch in enumerate(batches, start=first):
        network.config = replace(full_config, image_size=batch.images.shape[-1])
        losses.append(_step(clip_loss_of, state, plan, step, batch.to(network.device), processes))
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
    network.config = full_config
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
    clip_loss_of: nn.Module,
    state: RunState,
    plan: TrainingPlan,
    step: int,
    batch: ClipBatch,
    processes: Processes,
) -> float:
    for group in state.optimizer.param_groups:
        group["lr"] = plan.learning_rate_at(step)
    # torch's generator takes 32 bits of a seed, so they must differ in those.
    seed = np.random.SeedSequence((plan.seed, step, _PROMPTS, processes.rank)).generate_state(1)
    generator = torch.Generator().manual_seed(int(seed[0]))
    loss = clip_loss_of(batch, generator)
    mean = float(processes.mean(loss.detach().clone()))  # over all processes, so that they end together
    if not math.isfinite(mean):
        raise TrainingError(f"The loss of step {step} is {mean}; the state before it is kept. Resume with a lower learning rate.")
    state.optimizer.zero_grad(set_to_none=True)
    loss.backward()
    torch.nn.utils.clip_grad_norm_(state.network.parameters(), plan.gradient_clip)
    state.optimizer.step()
    state.averaged.update_parameters(state.network)  # type: ignore[operator]
    return mean


def _parameter_groups(network: SAM2, weight_decay: float) -> list[dict[str, Any]]:
    matrices: list[torch.nn.Parameter] = []
    others: list[torch.nn.Parameter] = []
    for name, parameter in network.named_parameters():
        is_matrix = parameter.ndim >= 2 and not any(part in name for part in ("embed", "token", "tpos_enc", "no_"))
        (matrices if is_matrix else others).append(parameter)
    return [{"params": matrices, "weight_decay": weight_decay}, {"params": others, "weight_decay": 0.0}]
