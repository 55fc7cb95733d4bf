"""How well a network does on clips it was not trained on, while it trains."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from MedSAM2Lib.network.sam2 import SAM2, MaskPrediction
from MedSAM2Lib.training.clip import ClipBatch
from MedSAM2Lib.training.clip_training import BatchSource
from MedSAM2Lib.training.steps import PromptMix, track_clip

__all__ = ["ClipValidation"]

_BOX_ONLY = replace(PromptMix(), box=1.0, click=0.0, correction=0.0, alone=0.0, unplaced=0.0)
_VALIDATION_STEP = 10**9  # a number that no training step reaches, so that no training batch is validated on


class ClipValidation:
    """Dice from one box on a fixed set of clips: on the prompted slice and on the tracked ones."""

    def __init__(self, source: BatchSource, image_size: int, *, batches: int = 12, clips: int = 8, length: int = 6) -> None:
        self._batches: list[ClipBatch] = []
        for number in range(batches):
            rng = np.random.default_rng((_VALIDATION_STEP, number))
            self._batches.append(source(rng, clips, image_size, length, step=_VALIDATION_STEP))

    @torch.no_grad()
    def __call__(self, network: SAM2) -> dict[str, float]:
        """`prompted_dice`, `tracked_dice` (slices with the object), `object_accuracy` (of "is it here", tracked slices)."""
        prompted: list[float] = []
        tracked: list[float] = []
        right: list[float] = []
        for number, batch in enumerate(self._batches):

            def note(prediction: MaskPrediction, wanted: Tensor, index: int) -> None:
                present = wanted.flatten(1).any(-1)
                scores = _dice(prediction.logits, wanted)[present].tolist()
                (tracked if index else prompted).extend(scores)
                if index:
                    right.extend(((prediction.object_score > 0) == present).float().tolist())

            generator = torch.Generator().manual_seed(number)
            with torch.autocast(network.device.type, torch.bfloat16):
                track_clip(network, batch.to(network.device), _BOX_ONLY, generator, note)
        return {"prompted_dice": _mean(prompted), "tracked_dice": _mean(tracked), "object_accuracy": _mean(right)}


def _mean(values: Sequence[float]) -> float:
    return float(np.mean(values)) if values else float("nan")


def _dice(logits: Tensor, target: Tensor) -> Tensor:
    """(B, 1, s, s) logits and (B, S, S) bool to (B,)."""
    full = F.interpolate(logits.float(), size=target.shape[-2:], mode="bilinear", align_corners=False)
    mask = full[:, 0] > 0
    return 2 * (mask & target).flatten(1).sum(-1) / (mask.flatten(1).sum(-1) + target.flatten(1).sum(-1)).clamp(min=1)
