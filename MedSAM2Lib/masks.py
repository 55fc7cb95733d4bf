"""What more than one module asks of a mask."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

__all__ = ["VoxelBox", "bounding_box", "intersection", "slabs", "union"]

VoxelBox = tuple[slice, ...]  # one slice per axis, with start and stop: `mask[box]` is what lies inside


def bounding_box(mask: npt.NDArray[np.bool_]) -> VoxelBox | None:
    """The smallest box around a mask's voxels, one slice per axis, as `mask[box]` takes it; None when there are none."""
    axes = range(mask.ndim)
    lines = [np.flatnonzero(np.any(mask, axis=tuple(other for other in axes if other != axis))) for axis in axes]
    if not lines[0].size:
        return None
    return tuple(slice(int(line[0]), int(line[-1]) + 1) for line in lines)


def union(one: VoxelBox | None, other: VoxelBox | None) -> VoxelBox | None:
    """The smallest box that holds both; None stands for a box of nothing."""
    if one is None or other is None:
        return one or other
    return tuple(slice(min(a.start, b.start), max(a.stop, b.stop)) for a, b in zip(one, other, strict=True))


def intersection(one: VoxelBox, other: VoxelBox) -> VoxelBox | None:
    """What two boxes have in common; None where that is nothing."""
    common = tuple(slice(max(a.start, b.start), min(a.stop, b.stop)) for a, b in zip(one, other, strict=True))
    return common if all(part.start < part.stop for part in common) else None


def slabs(box: VoxelBox, voxels: int) -> Iterator[VoxelBox]:
    """A box in parts along its first axis, of about so many voxels, so that none takes long to work on."""
    first, *others = box
    thickness = max(voxels // max(math.prod(part.stop - part.start for part in others), 1), 1)
    for start in range(first.start, first.stop, thickness):
        yield (slice(start, min(start + thickness, first.stop)), *others)
