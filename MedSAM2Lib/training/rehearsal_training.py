"""Training what follows objects on what it was told in rehearsals."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from MedSAM2Lib.network.mask_decoder import DecodedMasks
from MedSAM2Lib.network.prompted_unet import PromptedUNet
from MedSAM2Lib.network.sam2 import padding
from MedSAM2Lib.training.loop import RunPlan, StepBatches, run_training
from MedSAM2Lib.training.losses import FROM_SCRATCH, candidate_loss
from MedSAM2Lib.training.processes import Processes
from MedSAM2Lib.training.rehearsals import Rehearsed, RehearsedSlices
from MedSAM2Lib.training.validation import dice_of_each

__all__ = ["RehearsalPlan", "RehearsalValidation", "train_follower"]

_ALONE = Processes()
_VALIDATION_SLICES = 64  # at once


@dataclass(frozen=True)
class RehearsalPlan(RunPlan):
    """What a run on rehearsals does."""

    scenes: int = 1000  # that are rehearsed first; a fifteenth as many held-out ones, for the curve
    slices_per_step: int = 48
    # Pointers are made of the decoder's token, and memories were trained on those: how much a token weighs that has changed.
    token_weight: float = 1.0

    def scaled(self, steps: int) -> RehearsalPlan:
        """The same plan over another number of steps, and scenes in proportion."""
        return replace(self, steps=steps, scenes=max(1, round(self.scenes * steps / self.steps)))


class _RehearsedBatches(StepBatches):
    def __init__(self, slices: Rehearsed, plan: RehearsalPlan, processes: Processes) -> None:
        super().__init__(plan, processes)
        self.slices, self.plan = slices, plan

    def draw(self, rng: np.random.Generator, step: int, processes: int, number: int) -> RehearsedSlices:
        count = max(1, self.plan.slices_per_step // processes)
        chosen = np.sort(rng.integers(0, len(self.slices), count))  # in order, as they lie on disk
        return _mirrored(self.slices.batch(chosen), rng)


def _mirrored(batch: RehearsedSlices, rng: np.random.Generator) -> RehearsedSlices:
    """Each slice flipped and turned by chance."""
    across, down, swapped = (torch.from_numpy(rng.random(len(batch.mask)) < 0.5) for _ in range(3))

    def seen(part: Tensor) -> Tensor:
        for chosen, change in ((across, _flip_across), (down, _flip_down), (swapped, _swap)):
            part = torch.where(chosen.view(-1, *(1,) * (part.ndim - 1)), change(part), part)
        return part

    return RehearsedSlices(*(seen(part) if part.ndim > 2 else part for part in batch))


def _flip_across(part: Tensor) -> Tensor:
    return part.flip(-1)


def _flip_down(part: Tensor) -> Tensor:
    return part.flip(-2)


def _swap(part: Tensor) -> Tensor:
    return part.transpose(-1, -2)


def _answer(decoder: PromptedUNet, batch: RehearsedSlices) -> DecodedMasks:
    conditioned = batch.conditioned.float()
    answer: DecodedMasks = decoder(batch.pixels.float(), conditioned, *padding(conditioned), batch.hint.float())
    return answer


class _FollowerLoss(nn.Module):
    def __init__(self, decoder: PromptedUNet, plan: RehearsalPlan) -> None:
        super().__init__()
        self.decoder, self.plan = decoder, plan

    def forward(self, batch: RehearsedSlices, generator: torch.Generator) -> Tensor:
        with torch.autocast(batch.mask.device.type, torch.bfloat16, enabled=self.plan.mixed_precision):
            answer = _answer(self.decoder, batch)
        loss = candidate_loss(answer.logits, answer.iou, answer.object_score[:, 0], batch.mask, FROM_SCRATCH)
        return loss + self.plan.token_weight * F.mse_loss(answer.tokens[:, 0].float(), batch.token.float())


class RehearsalValidation:
    """How well a decoder does on rehearsals that it was not trained on."""

    def __init__(self, slices: Rehearsed) -> None:
        self._slices = slices

    @torch.no_grad()
    def __call__(self, decoder: PromptedUNet) -> dict[str, float]:
        """`tracked_dice` (slices with the object), `object_accuracy` (of "is it here")."""
        device = decoder.mask_head.weight.device
        scores: list[float] = []
        right: list[bool] = []
        for numbers in np.array_split(np.arange(len(self._slices)), -(-len(self._slices) // _VALIDATION_SLICES)):
            batch = self._slices.batch(numbers).to(device)
            with torch.autocast(device.type, torch.bfloat16):
                answer = _answer(decoder, batch)
            present = batch.mask.flatten(1).any(1)
            scores += dice_of_each(answer.logits, batch.mask)[present].tolist()
            right += ((answer.object_score[:, 0] > 0) == present).tolist()
        return {"tracked_dice": float(np.mean(scores)), "object_accuracy": float(np.mean(right))}


def train_follower(
    decoder: PromptedUNet,
    slices: Rehearsed,
    plan: RehearsalPlan,
    folder: Path,
    *,
    validate: Callable[[PromptedUNet], dict[str, float]] | None = None,
    report: Callable[[str], None] = lambda line: None,
    processes: Processes = _ALONE,
) -> PromptedUNet:
    """Trains the `decoder` that follows objects on rehearsals and returns its averaged copy; see `loop.run_training`."""
    decoder.requires_grad_(True)
    return run_training(
        decoder,
        _FollowerLoss(decoder, plan),
        _RehearsedBatches(slices, plan, processes),
        plan,
        folder,
        device=decoder.mask_head.weight.device,
        validate=validate,
        report=report,
        processes=processes,
    )
