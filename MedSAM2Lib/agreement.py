"""Whether masks of one object that were found in different ways agree, and how one way's mask is put to another.

Used where an object is followed along more than one axis of its volume (`inference.orientations`, Slicer's panel).
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations

import numpy as np
import numpy.typing as npt

from MedSAM2Lib.masks import bounding_box
from MedSAM2Lib.metrics import dice
from MedSAM2Lib.prompts import Box

__all__ = ["agreement", "areas", "box_on", "largest_slice"]

_Mask = npt.NDArray[np.bool_]


def agreement(masks: Sequence[_Mask]) -> float:
    """The mean Dice of every two of the masks, which have one shape; 1 where all are empty."""
    return float(np.mean([dice(one, other) for one, other in combinations(masks, 2)]))


def areas(mask: _Mask, axis: int) -> npt.NDArray[np.intp]:
    """Voxels of each slice along an array axis."""
    counted: npt.NDArray[np.intp] = np.count_nonzero(np.moveaxis(mask, axis, 0), axis=(1, 2))
    return counted


def largest_slice(mask: _Mask, axis: int) -> int:
    """The slice along an array axis that shows most of a mask."""
    return int(areas(mask, axis).argmax())


def box_on(mask: _Mask, axis: int, index: int) -> Box:
    """The box prompt around what a mask has on a slice along an array axis, which must be something."""
    found = bounding_box(np.moveaxis(mask, axis, 0)[index])
    assert found is not None, "slices with boxes have the object"
    rows, columns = found
    return Box(index, columns.start, rows.start, columns.stop - 1, rows.stop - 1)
