"""The training loop: resumable bit for bit, because every step is a function of the weights, the seed and its number."""

from __future__ import annotations

import csv
import math
import pickle
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol, cast

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.optim import swa_utils
from torch.utils.data import DataLoader, Dataset

from MedSAM2Lib.atomic import atomic_path
from MedSAM2Lib.errors import TrainingError
from MedSAM2Lib.network.sam2 import SAM2
from MedSAM2Lib.training.losses import FROM_SCRATCH, LossWeights
from MedSAM2Lib.training.steps import PromptMix, clip_loss

__all__ = ["BatchSource", "TrainingPlan", "train"]

class BatchSource(Protocol):
    """Where clips come from; `training.clips.ClipSource.sample_batch` is one."""

    def __call__(
        self, rng: np.random.Generator, batch_size: int, image_size: int, length: int, *, step: int
    ) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.bool_]]:
        """images (B, T + 2, S, S) float32, 0..1, and masks (B, T, S, S) bool of all slices but the outer two.

        A function of the arguments alone.
        """


_EVALUATION_SEED = 2**31  # a stream of random numbers that no training step uses


@dataclass(frozen=True)
class TrainingPlan:
    """What a run does; two runs with the same plan, data and machine give the same weights."""

    steps: int
    slices_per_step: int = 16  # a step holds slices_per_step / length clips
    single_slice_steps: int = 0  # first steps that train on single slices only
    lengths: tuple[int, ...] = (4, 6, 8)  # clip lengths afterwards, one drawn per step
    # Steps that train the image encoder too; afterwards it is frozen, which makes a step some three times faster, and
    # the memory and the mask decoder go on alone. None: all steps.
    encoder_steps: int | None = None
    learning_rate: float = 5e-4
    warmup_steps: int = 300
    final_share: float = 0.02  # of the learning rate at the end of the cosine
    weight_decay: float = 0.05  # not on biases, normalisations and embeddings
    gradient_clip: float = 1.0
    averaging: float = 0.999  # decay of the moving average of the weights, which is what ships
    prompts: PromptMix = field(default_factory=PromptMix)
    losses: LossWeights = FROM_SCRATCH
    seed: int = 0
    save_every: int = 100
    validate_every: int = 500
    workers: int = 1

    def scaled(self, steps: int) -> TrainingPlan:
        """The same plan over another number of steps, its stages in proportion."""
        share = steps / self.steps
        encoder_steps = None if self.encoder_steps is None else round(self.encoder_steps * share)
        return replace(
            self, steps=steps, single_slice_steps=round(self.single_slice_steps * share), encoder_steps=encoder_steps
        )

    def clip_length(self, step: int) -> int:
        if step < self.single_slice_steps:
            return 1
        return int(np.random.default_rng((self.seed, step, 1)).choice(self.lengths))

    def trains_encoder(self, step: int) -> bool:
        return self.encoder_steps is None or step < self.encoder_steps

    def learning_rate_at(self, step: int) -> float:
        """Warm-up and a cosine, once for the whole network and once more for what follows it."""
        whole = self.steps if self.encoder_steps is None else min(self.encoder_steps, self.steps)
        start, end = (0, whole) if self.trains_encoder(step) else (whole, self.steps)
        if step - start < self.warmup_steps:
            return self.learning_rate * (step - start + 1) / self.warmup_steps
        progress = (step - start - self.warmup_steps) / max(1, end - start - self.warmup_steps)
        share = self.final_share + (1 - self.final_share) * (1 + math.cos(math.pi * progress)) / 2
        return self.learning_rate * share


class _Batches(Dataset[tuple[Tensor, Tensor]]):
    """Batch number n, made the same way whenever it is asked for."""

    def __init__(self, source: BatchSource, plan: TrainingPlan, image_size: int) -> None:
        self.source, self.plan, self.image_size = source, plan, image_size

    def __len__(self) -> int:
        return self.plan.steps

    def __getitem__(self, step: int) -> tuple[Tensor, Tensor]:
        length = self.plan.clip_length(step)
        rng = np.random.default_rng((self.plan.seed, step))
        images, masks = self.source(rng, max(1, self.plan.slices_per_step // length), self.image_size, length, step=step)
        return torch.from_numpy(images), torch.from_numpy(masks)


def train(
    network: SAM2,
    source: BatchSource,
    plan: TrainingPlan,
    folder: Path,
    *,
    validate: Callable[[SAM2], dict[str, float]] | None = None,
    report: Callable[[str], None] = lambda line: None,
) -> SAM2:
    """Trains `network` and returns its averaged copy. `folder` receives `state.pt` (to go on from) and `log.csv`.

    An interrupted run goes on where `state.pt` left it. A loss that is not finite ends the run with a TrainingError; the
    state before it is kept.
    """
    folder.mkdir(parents=True, exist_ok=True)
    averaged = swa_utils.AveragedModel(network, multi_avg_fn=_moving_average(plan.averaging))
    averaged_network = cast(SAM2, averaged.module)
    optimizer = torch.optim.AdamW(_parameter_groups(network, plan.weight_decay), lr=plan.learning_rate)
    first = _resume(folder / "state.pt", network, averaged, optimizer)
    batches = DataLoader(
        _Batches(source, plan, network.config.image_size),
        batch_size=None,
        sampler=range(first, plan.steps),
        num_workers=plan.workers,
        prefetch_factor=4 if plan.workers else None,
    )
    network.train()
    started, losses = time.monotonic(), []
    for step, (images, masks) in enumerate(batches, start=first):
        losses.append(_step(network, optimizer, plan, step, images.to(network.device), masks.to(network.device)))
        averaged.update_parameters(network)
        done = step + 1
        if done % plan.save_every == 0 or done == plan.steps:
            per_second = (done - first) * plan.slices_per_step / (time.monotonic() - started)
            rate = plan.learning_rate_at(step)
            row = {"step": done, "loss": float(np.mean(losses)), "learning_rate": rate, "slices_per_s": per_second}
            if validate is not None and (done % plan.validate_every == 0 or done == plan.steps):
                row |= validate(averaged_network.eval())
            _log(folder / "log.csv", row)
            report("  ".join(f"{name} {value:.4g}" for name, value in row.items()))
            losses.clear()
            _save(folder / "state.pt", network, averaged, optimizer, done)
    return averaged_network.eval()


def _moving_average(decay: float) -> Callable[[Any, Any, Any], None]:
    """An exponential moving average that forgets the random start: its decay grows to `decay` with the steps."""

    @torch.no_grad()
    def update(averaged: list[Tensor], current: list[Tensor], updates: Tensor | int) -> None:
        torch._foreach_lerp_(averaged, current, max(1 - decay, 9 / (10 + int(updates))))

    return update


def _step(network: SAM2, optimizer: torch.optim.Optimizer, plan: TrainingPlan, step: int, images: Tensor, masks: Tensor) -> float:
    network.image_encoder.requires_grad_(plan.trains_encoder(step))
    for group in optimizer.param_groups:
        group["lr"] = plan.learning_rate_at(step)
    generator = torch.Generator().manual_seed(plan.seed * _EVALUATION_SEED + step)
    with torch.autocast(network.device.type, torch.bfloat16):
        loss = clip_loss(network, images, masks, plan.prompts, plan.losses, generator)
    if not torch.isfinite(loss):
        raise TrainingError(
            f"The loss of step {step} is {loss.item()}; the state before it is kept. Resume with a lower learning rate."
        )
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    torch.nn.utils.clip_grad_norm_(network.parameters(), plan.gradient_clip)
    optimizer.step()
    return float(loss.detach())


def _parameter_groups(network: SAM2, weight_decay: float) -> list[dict[str, Any]]:
    matrices: list[torch.nn.Parameter] = []
    others: list[torch.nn.Parameter] = []
    for name, parameter in network.named_parameters():
        is_matrix = parameter.ndim >= 2 and not any(part in name for part in ("embed", "token", "tpos_enc", "no_"))
        (matrices if is_matrix else others).append(parameter)
    return [{"params": matrices, "weight_decay": weight_decay}, {"params": others, "weight_decay": 0.0}]


def _resume(path: Path, network: SAM2, averaged: torch.nn.Module, optimizer: torch.optim.Optimizer) -> int:
    if not path.exists():
        return 0
    try:
        state = torch.load(path, map_location=network.device, weights_only=True)
        network.load_state_dict(state["network"])
        averaged.load_state_dict(state["averaged"])
        optimizer.load_state_dict(state["optimizer"])
        return int(state["step"])
    except (RuntimeError, ValueError, KeyError, EOFError, pickle.UnpicklingError) as error:
        raise TrainingError(
            f"{path} does not hold a run of this network ({str(error).splitlines()[0]}); name another folder or remove the file."
        ) from error


def _save(path: Path, network: SAM2, averaged: torch.nn.Module, optimizer: torch.optim.Optimizer, step: int) -> None:
    state = {
        "network": network.state_dict(),
        "averaged": averaged.state_dict(),
        "optimizer": optimizer.state_dict(),
        "step": step,
    }
    with atomic_path(path) as temporary:
        torch.save(state, temporary)


def _log(path: Path, row: dict[str, float]) -> None:
    """Appends a row; columns that a row lacks stay empty, so that one file holds losses and validations."""
    names = ["step", "loss", "learning_rate", "slices_per_s", "prompted_dice", "tracked_dice", "object_accuracy"]
    new = not path.exists()
    with path.open("a", newline="") as file:
        writer = csv.DictWriter(file, names)
        if new:
            writer.writeheader()
        writer.writerow(row)
