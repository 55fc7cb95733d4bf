"""A clip: one object through some slices, as training sees it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

__all__ = ["Clip", "ClipBatch", "batch_of"]


@dataclass(frozen=True)
class Clip:
    """One object through T slices in one S x S crop; `masks[0]`, the prompted slice, is not empty."""

    images: npt.NDArray[np.float32]  # (T, 3, S, S), 0..1: the slice before, the slice, the slice after
    masks: npt.NDArray[np.bool_]  # (T, S, S); empty where the object has ended
    distances: npt.NDArray[np.float32]  # (T,) from the prompted slice, pixels
    step: float  # from slice to slice, pixels; after the first and before the last there may be more
    kind: str  # "scan", "label map", "supervoxel", "lesion" or "synthetic"
    name: str  # volume and structure, for people


class ClipBatch(NamedTuple):
    """B clips of one length."""

    images: Tensor  # (B, T, 3, S, S)
    masks: Tensor  # (B, T, S, S) bool
    distances: Tensor  # (B, T)
    steps: Tensor  # (B,)

    def to(self, device: torch.device) -> ClipBatch:
        return ClipBatch(*(part.to(device) for part in self))

    def clip(self, number: int) -> ClipBatch:
        """One of the clips, still with a batch dimension."""
        return ClipBatch(*(part[number : number + 1] for part in self))


def batch_of(clips: Sequence[Clip]) -> ClipBatch:
    """Clips of one length and size."""
    return ClipBatch(
        torch.from_numpy(np.stack([clip.images for clip in clips])),
        torch.from_numpy(np.stack([clip.masks for clip in clips])),
        torch.from_numpy(np.stack([clip.distances for clip in clips])),
        torch.tensor([clip.step for clip in clips]),
    )
