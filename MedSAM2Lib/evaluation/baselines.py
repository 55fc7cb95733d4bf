"""What a box gives without any network: an ellipsoid, and a region grown from the intensities inside it.

Both see what a model sees, the image and one box on one slice along k, and nothing of the reference.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from MedSAM2Lib.geometry import Geometry
from MedSAM2Lib.prompts import Box
from MedSAM2Lib.simpleitk import import_simpleitk
from MedSAM2Lib.volume import Volume

__all__ = ["BASELINES", "ellipsoid", "grown_region"]

_BoolArray = npt.NDArray[np.bool_]
_FloatArray = npt.NDArray[np.float64]

_CORE = 0.7  # the inner ellipse that mostly lies on the object, in half axes of the box
_SPREAD = 2.0  # intensities accepted, in standard deviations of the core around its mean
_REACH = 1.3  # how far a region may grow, in half axes of the ellipsoid


def ellipsoid(box: Box, volume: Volume) -> _BoolArray:
    """(k, j, i): the ellipse that touches the box's sides, and through the slices the mean of its two half axes, in mm."""
    inside: _BoolArray = _squared_radius(box, volume.geometry) <= 1
    return inside


def grown_region(box: Box, volume: Volume) -> _BoolArray:
    """(k, j, i): what hangs together with the middle of the box and is as bright.

    Accepted are intensities within two standard deviations around the mean of the middle (the ellipse of 0.7 half axes).
    The region stays in the box's rows and columns, and in the ellipsoid widened by 1.3. Of its pieces (connected by
    faces) the one with most of the middle is kept, and its holes are filled slice by slice.
    """
    grid = volume.geometry
    radius = _squared_radius(box, grid)
    middle = radius[box.slice_index] <= max(_CORE**2, radius[box.slice_index].min())
    seen = volume.array[box.slice_index][middle].astype(np.float64)
    low, high = seen.mean() - _SPREAD * seen.std(), seen.mean() + _SPREAD * seen.std()
    candidates = (volume.array >= low) & (volume.array <= high) & (radius <= _REACH**2) & _rows_and_columns(box, grid)
    return _filled(_piece_with_most_of(candidates, middle, box.slice_index))


BASELINES = {"ellipsoid": ellipsoid, "region grower": grown_region}


def _squared_radius(box: Box, grid: Geometry) -> _FloatArray:
    """(k, j, i): 1 on the surface of the ellipsoid. The box's corner pixels are inside it, so it is a pixel wider than
    the distance of their centres."""
    half_x, half_y = (box.x1 - box.x0 + 1) / 2, (box.y1 - box.y0 + 1) / 2
    spacing_x, spacing_y, spacing_z = grid.spacing
    half_z = (half_x * spacing_x + half_y * spacing_y) / 2 / spacing_z
    k, j, i = np.ogrid[: grid.shape[0], : grid.shape[1], : grid.shape[2]]
    across, down = (i - (box.x0 + box.x1) / 2) / half_x, (j - (box.y0 + box.y1) / 2) / half_y
    squared: _FloatArray = across**2 + down**2 + ((k - box.slice_index) / half_z) ** 2
    return squared


def _rows_and_columns(box: Box, grid: Geometry) -> _BoolArray:
    """(1, j, i): the pixels whose centre lies in the box."""
    inside = np.zeros((1, *grid.shape[1:]), dtype=np.bool_)
    rows = slice(max(math.ceil(box.y0), 0), math.floor(box.y1) + 1)
    columns = slice(max(math.ceil(box.x0), 0), math.floor(box.x1) + 1)
    inside[0, rows, columns] = True
    return inside


def _piece_with_most_of(candidates: _BoolArray, middle: _BoolArray, slice_index: int) -> _BoolArray:
    sitk = import_simpleitk()
    pieces = sitk.GetArrayFromImage(sitk.ConnectedComponent(sitk.GetImageFromArray(candidates.astype(np.uint8)), False))
    counts = np.bincount(pieces[slice_index][middle], minlength=2)
    counts[0] = 0
    piece: _BoolArray = (pieces == counts.argmax()) & (counts.max() > 0)
    return piece


def _filled(mask: _BoolArray) -> _BoolArray:
    sitk = import_simpleitk()
    filled = mask.copy()
    for index in np.flatnonzero(mask.any(axis=(1, 2))):
        plane = sitk.BinaryFillhole(sitk.GetImageFromArray(mask[index].astype(np.uint8)), False, 1.0)
        filled[index] = sitk.GetArrayFromImage(plane) > 0
    return filled
