"""Training the network that drafts an object in a cube of the volume."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from MedSAM2Lib.network.volume_unet import CUBE_SIDE, VolumeUNet
from MedSAM2Lib.training.cubes import CubeBatch
from MedSAM2Lib.training.loop import RunPlan, StepBatches, run_training
from MedSAM2Lib.training.processes import Processes

__all__ = ["CubeBatches", "CubeValidation", "DraftPlan", "draft_loss", "train_draft"]

_CROSS_ENTROPY_WEIGHT = 4.0  # against 1 of Dice: most cells are far from the object and soon right
_VALIDATION_STEP = 10**9  # a number that no training step reaches, so that no training batch is validated on
_ALONE = Processes()


class CubeBatches(Protocol):
    """Where cubes come from; `training.cubes.CubeSource.sample_batch` is one."""

    def __call__(self, rng: np.random.Generator, batch_size: int, side: int, *, step: int) -> CubeBatch:
        """A function of the arguments alone."""


@dataclass(frozen=True)
class DraftPlan(RunPlan):
    """What a run on cubes does."""

    cubes_per_step: int = 8  # over all processes
    # First steps that train on smaller cubes, half as many again. In bfloat16 of no fewer than 48 cells: on a CPU, the gradients
    # of convolutions over two cells or fewer are not right (torch 2.13), and those over a sixteenth of the cube are among them.
    small_cube_steps: int = 0
    small_cube_side: int = 48

    @property
    def slices_per_step(self) -> int:
        return self.cubes_per_step * CUBE_SIDE

    def cubes_at(self, step: int) -> tuple[int, int]:
        """Cells along the sides of a step's cubes, and how many there are."""
        if step < self.small_cube_steps:
            return self.small_cube_side, self.cubes_per_step * 3 // 2
        return CUBE_SIDE, self.cubes_per_step

    def scaled(self, steps: int) -> DraftPlan:
        """The same plan over another number of steps, its stages in proportion."""
        return replace(self, steps=steps, small_cube_steps=round(self.small_cube_steps * steps / self.steps))


class _DraftBatches(StepBatches):
    def __init__(self, source: CubeBatches, plan: DraftPlan, processes: Processes) -> None:
        super().__init__(plan, processes)
        self.source, self.plan = source, plan

    def draw(self, rng: np.random.Generator, step: int, processes: int, number: int) -> CubeBatch:
        side, cubes = self.plan.cubes_at(step)
        return self.source(rng, max(1, cubes // processes), side, step=number)


class _DraftLoss(nn.Module):
    def __init__(self, network: VolumeUNet, plan: DraftPlan) -> None:
        super().__init__()
        self.network, self.plan = network, plan

    def forward(self, batch: CubeBatch, generator: torch.Generator) -> Tensor:
        with torch.autocast(batch.grey.device.type, torch.bfloat16, enabled=self.plan.mixed_precision):
            logits = self.network(batch.grey, batch.known, batch.told, batch.depth)
        return draft_loss(logits, batch.mask, batch.inside)


def draft_loss(logits: Tensor, mask: Tensor, inside: Tensor) -> Tensor:
    """Cross entropy and Dice, both of the planes inside the volume; shapes as in `CubeBatch`."""
    wanted, counts = mask.float(), inside[:, :, None, None].float()
    cells = (1, 2, 3)
    entropy = F.binary_cross_entropy_with_logits(logits, wanted, reduction="none") * counts
    mean_entropy = entropy.sum(cells) / counts.expand_as(entropy).sum(cells)
    share, wanted = logits.sigmoid() * counts, wanted * counts
    dice = (2 * (share * wanted).sum(cells) + 1) / (share.sum(cells) + wanted.sum(cells) + 1)
    return (_CROSS_ENTROPY_WEIGHT * mean_entropy + 1 - dice).mean()


class CubeValidation:
    """Dice of drafts of a fixed set of cubes."""

    def __init__(self, source: CubeBatches, *, batches: int = 12, cubes: int = 4) -> None:
        rngs = (np.random.default_rng((_VALIDATION_STEP, number)) for number in range(batches))
        self._batches = [source(rng, cubes, CUBE_SIDE, step=_VALIDATION_STEP) for rng in rngs]

    @torch.no_grad()
    def __call__(self, network: VolumeUNet) -> dict[str, float]:
        """`draft_dice`, over all planes, known ones too."""
        scores: list[float] = []
        for batch in self._batches:
            grey, known, told, depth, mask, inside = batch.to(network.device)
            found = (network(grey, known, told, depth) > 0) & inside[:, :, None, None]
            both = (found & mask).flatten(1).sum(1)
            scores += (2 * both / (found.flatten(1).sum(1) + mask.flatten(1).sum(1)).clamp(min=1)).tolist()
        return {"draft_dice": float(np.mean(scores))}


def train_draft(
    network: VolumeUNet,
    source: CubeBatches,
    plan: DraftPlan,
    folder: Path,
    *,
    validate: Callable[[VolumeUNet], dict[str, float]] | None = None,
    report: Callable[[str], None] = lambda line: None,
    processes: Processes = _ALONE,
) -> VolumeUNet:
    """Trains `network` on cubes and returns its averaged copy; see `loop.run_training`."""
    network.requires_grad_(True)  # clips leave it alone
    return run_training(
        network,
        _DraftLoss(network, plan),
        _DraftBatches(source, plan, processes),
        plan,
        folder,
        device=network.device,
        validate=validate,
        report=report,
        processes=processes,
    )
