"""What more than one module asks of a mask."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

__all__ = ["bounding_box"]


def bounding_box(mask: npt.NDArray[np.bool_]) -> tuple[slice, ...] | None:
    """The smallest box around a mask's voxels, one slice per axis, as `mask[box]` takes it; None when there are none."""
    axes = range(mask.ndim)
    lines = [np.flatnonzero(np.any(mask, axis=tuple(other for other in axes if other != axis))) for axis in axes]
    if not lines[0].size:
        return None
    return tuple(slice(int(line[0]), int(line[-1]) + 1) for line in lines)
