"""How large a mask is: as the box says that was drawn around it, or, under a click, as the object's other slices do.

A small network's mask is right in shape rather than in size, so the logit at which it is cut is chosen.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from MedSAM2Lib.postprocess import pieces_touching

__all__ = ["cut_to_box", "piece_under"]

_HIGHER_CUTS = tuple(step / 4 for step in range(1, 25))  # logits
# Of a box, the nearest to 0 first, and what a logit away from it costs in overlap: boxes are drawn by people.
_BOX_CUTS = tuple(sorted((step / 4 for step in range(-4, 5)), key=abs))
_CUT_COST = 0.02


def cut_to_box(logits: npt.NDArray[np.float32], corners: tuple[float, float, float, float]) -> float:
    """Where to cut logits (rows, columns) so that the mask fills the box best: by the overlap (IoU) of its own box with that.

    corners  x0, y0, x1, y1 of the box, pixels, both inside
    """
    highest = logits.max(axis=0), logits.max(axis=1)  # of each column and row: they reach the mask where that is above the cut
    drawn = [(corners[axis] - 0.5, corners[axis + 2] + 0.5) for axis in (0, 1)]

    def worth(cut: float) -> float:
        reached = [np.flatnonzero(line > cut) for line in highest]
        if not len(reached[0]):
            return 0.0
        sides = [(float(line[0]) - 0.5, float(line[-1]) + 0.5) for line in reached]
        common = math.prod(max(0.0, min(a[1], b[1]) - max(a[0], b[0])) for a, b in zip(drawn, sides, strict=True))
        both = sum(math.prod(last - first for first, last in box) for box in (drawn, sides))
        return common / (both - common) - _CUT_COST * abs(cut)

    return max(_BOX_CUTS, key=worth)


def piece_under(
    logits: npt.NDArray[np.float32], clicked: npt.NDArray[np.bool_], most: float
) -> tuple[float, npt.NDArray[np.bool_]]:
    """Where to cut logits (rows, columns), and the piece of the mask under clicks (rows, columns), of at most so many pixels.

    It is larger where the clicks would be lost otherwise, and empty where they lie beside the mask.
    """
    cut, piece = 0.0, pieces_touching(logits > 0, clicked)
    for higher in _HIGHER_CUTS:
        smaller = pieces_touching(logits > higher, clicked)
        if np.count_nonzero(piece) <= most or not smaller.any():
            break
        cut, piece = higher, smaller
    return cut, piece
