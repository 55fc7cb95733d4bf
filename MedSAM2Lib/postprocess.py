"""Cleaning of masks: small holes, stray pieces."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from MedSAM2Lib.masks import bounding_box
from MedSAM2Lib.pieces import Pieces, connected_pieces
from MedSAM2Lib.simpleitk import import_simpleitk

__all__ = ["depths", "fill_holes", "largest_component", "pieces_touching"]


def fill_holes(mask: npt.NDArray[np.bool_], max_area: int) -> npt.NDArray[np.bool_]:
    """(rows, columns) bool, with every 8-connected piece of background of at most `max_area` pixels filled.

    As in SAM 2, the area alone decides: a small piece of background in a corner of the picture is filled too.
    Returns a new array.
    """
    filled = mask.copy()
    box = bounding_box(mask)
    if box is None:
        return filled
    # Beyond the mask there is only background. So much of it comes along that, cut off, it still is too large to be filled.
    margin = max_area // min(part.stop - part.start for part in box) + 1
    part = tuple(slice(max(one.start - margin, 0), one.stop + margin) for one in box)
    components, sizes = connected_pieces(~mask[part])
    small = sizes <= max_area
    small[0] = False
    filled[part] |= small[components]
    return filled


def largest_component(mask: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    """(k, j, i) bool: only the largest 26-connected piece; of equal ones the first in array order. Returns a new array."""
    kept = np.zeros_like(mask)
    box = bounding_box(mask)
    if box is not None:
        kept[box] = mask[box]
        pieces = Pieces(kept[box])
        pieces.keep(np.arange(len(pieces.sizes)) == 1 + int(np.argmax(pieces.sizes[1:])))
    return kept


def pieces_touching(mask: npt.NDArray[np.bool_], other: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    """(rows, columns) bool: the 8-connected pieces of a mask that share a pixel with another mask. Returns a new array."""
    kept = np.zeros_like(mask)
    box = bounding_box(mask)
    if box is None:
        return kept
    components, sizes = connected_pieces(mask[box])
    touching = np.zeros(len(sizes), dtype=bool)
    touching[components[other[box]]] = True
    touching[0] = False
    kept[box] = touching[components]
    return kept


def depths(mask: npt.NDArray[np.bool_], spacing: tuple[float, float] = (1.0, 1.0)) -> npt.NDArray[np.float32]:
    """(rows, columns) float32: how far a pixel lies inside the mask, 0 on its edge, negative outside. The slice's border is an
    edge too.

    spacing  mm between columns and between rows, which is the unit of the depths
    """
    sitk = import_simpleitk()
    image = sitk.GetImageFromArray(np.pad(mask, 1).astype(np.uint8))
    image.SetSpacing(spacing)
    depth = sitk.SignedMaurerDistanceMap(image, insideIsPositive=True, squaredDistance=False, useImageSpacing=True)
    inside: npt.NDArray[np.float32] = sitk.GetArrayFromImage(depth)[1:-1, 1:-1]
    return inside
