"""How large a mask under a click is: who clicks says where the object is, not how large; its other slices do.

A small network's mask is right in shape rather than in size, so the logit at which it is cut is chosen.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from MedSAM2Lib.postprocess import pieces_touching

__all__ = ["piece_under"]

_HIGHER_CUTS = tuple(step / 4 for step in range(1, 25))  # logits


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
