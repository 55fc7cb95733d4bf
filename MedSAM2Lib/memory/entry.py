"""What is remembered of one slice of one object."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor
from torch.nn import functional as F

from MedSAM2Lib.frames import View

__all__ = ["MemoryEntry", "appearance"]

_APPEARANCE_SIDE = 8  # cells; a slice's features take 8 times the room of its memory map, and layout is enough to compare


@dataclass(frozen=True)
class MemoryEntry:
    """B is 1 at inference and the batch of clips in training."""

    slice_index: int
    map: Tensor  # (B, D, h, w) from `SAM2.encode_memory`
    pointer: Tensor  # (B, C) object pointer
    iou: Tensor  # (B,) expected IoU of the slice's mask
    object_score: Tensor  # (B,) logit
    view: View | None = None  # through which the slice was seen when the map was made; None where there is only one way
    grey_profile: Tensor | None = None  # (B, 64) of `SAM2.grey_profile`; None of tracked slices, and where nobody minds
    appearance: Tensor | None = None  # (B, C, g, g) of `appearance`; None where no rule of memory compares slices


def appearance(stride16: Tensor) -> Tensor:
    """What a slice looks like, (B, C, g, g) with g at most 8, from its image features (B, C, h, w) before any memory."""
    side = min(_APPEARANCE_SIDE, stride16.shape[-1])
    return F.adaptive_avg_pool2d(stride16.detach(), side)
