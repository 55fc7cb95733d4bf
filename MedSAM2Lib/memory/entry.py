"""What is remembered of one slice of one object."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from MedSAM2Lib.frames import View

__all__ = ["MemoryEntry"]


@dataclass(frozen=True)
class MemoryEntry:
    """B is 1 at inference and the batch of clips in training."""

    slice_index: int
    map: Tensor  # (B, D, h, w) from `SAM2.encode_memory`
    pointer: Tensor  # (B, C) object pointer
    iou: Tensor  # (B,) expected IoU of the slice's mask
    object_score: Tensor  # (B,) logit
    view: View | None = None  # through which the slice was seen when the map was made; None where there is only one way
