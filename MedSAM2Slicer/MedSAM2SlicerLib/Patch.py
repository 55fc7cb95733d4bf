"""What one write did to segments, small enough to be kept for undo."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from MedSAM2Lib.masks import VoxelBox

__all__ = ["Change", "Patch"]

_Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Change:
    """One segment within a patch's box: its mask before and after, eight voxels to a byte."""

    segmentId: str
    shape: tuple[int, ...]
    bitsBefore: bytes
    bitsAfter: bytes

    def before(self) -> _Mask:
        return _unpacked(self.bitsBefore, self.shape)

    def after(self) -> _Mask:
        return _unpacked(self.bitsAfter, self.shape)


@dataclass(frozen=True)
class Patch:
    """The segments that changed within a box of the volume's (k, j, i) voxels; outside of it nothing did."""

    box: VoxelBox
    changes: tuple[Change, ...]

    @classmethod
    def between(cls, box: VoxelBox, before: Mapping[str, _Mask], after: Mapping[str, _Mask]) -> Patch:
        """From the masks of segments, by ID, within the box."""
        changes = [
            Change(segmentId, mask.shape, np.packbits(before[segmentId]).tobytes(), np.packbits(mask).tobytes())
            for segmentId, mask in after.items()
            if not np.array_equal(mask, before[segmentId])
        ]
        return cls(box, tuple(changes))


def _unpacked(bits: bytes, shape: tuple[int, ...]) -> _Mask:
    count = int(np.prod(shape))
    return np.unpackbits(np.frombuffer(bits, dtype=np.uint8), count=count).astype(bool).reshape(shape)
