"""Cleaning of masks: small holes, stray pieces."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from MedSAM2Lib.masks import bounding_box
from MedSAM2Lib.pieces import Pieces, connected_pieces

__all__ = ["fill_holes", "largest_component", "pieces_touching"]


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
        kept[box] = mask[box]
        pieces = Pieces(kept[box])
        pieces.keep(np.arange(len(pieces.sizes)) == 1 + int(np.argmax(pieces.sizes[1:])))
    return kept


def pieces_touching(mask: npt.NDArray[np.bool_], other: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    """(rows, columns) bool: the 8-connected pieces of a mask that share a pixel with another mask. Returns a new array."""
    components, sizes = connected_pieces(mask)
    touching = np.zeros(len(sizes), dtype=bool)
    touching[np.unique(components[mask & other])] = True
    touching[0] = False
    kept: npt.NDArray[np.bool_] = touching[components]
    return kept
