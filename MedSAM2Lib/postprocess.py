"""Cleaning of masks: small holes, stray pieces."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from MedSAM2Lib.masks import bounding_box
from MedSAM2Lib.simpleitk import import_simpleitk

__all__ = ["connected_pieces", "fill_holes", "largest_component", "pieces_touching"]


def fill_holes(mask: npt.NDArray[np.bool_], max_area: int) -> npt.NDArray[np.bool_]:
    """(rows, columns) bool, with every 8-connected piece of background of at most `max_area` pixels filled.

    As in SAM 2, the area alone decides: a small piece of background in a corner of the picture is filled too.
    Returns a new array.
    """
    components, sizes = connected_pieces(~mask)
    small = sizes <= max_area
    small[0] = False
    filled: npt.NDArray[np.bool_] = mask | small[components]
    return filled


def largest_component(mask: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    """(k, j, i) bool: only the largest 26-connected piece; of equal ones the first in array order. Returns a new array."""
    kept = np.zeros_like(mask)
    box = bounding_box(mask)
    if box is not None:
        components, sizes = connected_pieces(mask[box])
        kept[box] = components == 1 + int(np.argmax(sizes[1:]))
    return kept


def pieces_touching(mask: npt.NDArray[np.bool_], other: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    """(rows, columns) bool: the 8-connected pieces of a mask that share a pixel with another mask. Returns a new array."""
    components, sizes = connected_pieces(mask)
    touching = np.zeros(len(sizes), dtype=bool)
    touching[np.unique(components[mask & other])] = True
    touching[0] = False
    kept: npt.NDArray[np.bool_] = touching[components]
    return kept


def connected_pieces(mask: npt.NDArray[np.bool_]) -> tuple[npt.NDArray[Any], npt.NDArray[np.intp]]:
    """Labels 1.. of the pieces of a mask that touch by face, edge or corner, in array order, and their sizes.

    sizes[0] is the number of voxels outside.
    """
    sitk = import_simpleitk()
    image = sitk.GetImageFromArray(mask.view(np.uint8) if mask.flags.c_contiguous else mask.astype(np.uint8))
    components = sitk.GetArrayFromImage(sitk.ConnectedComponent(image, True))
    return components, np.bincount(components.ravel())
