"""How large a mask is: a small network's is right in shape rather than in size, so the logit at which it is cut is chosen by
what else is known of the object.

A person who draws a box says where the object ends on all four sides (Lempitsky et al., ICCV 2009, image segmentation with a
bounding box prior). One who clicks says where it is, not how large; its other slices do.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from MedSAM2Lib.postprocess import pieces_touching

__all__ = ["fitted", "piece_under"]

# Figures: chosen on held-out training volumes, so that loose boxes (a fifth of their sides to spare all around) lose nothing.
_FURTHEST, _CUTS = 2.0, 17  # logits around 0 at which a mask is cut, and how many of them are tried
_COST = 0.1  # of a logit, as overlap of boxes
_LOOSENESS = (0.0, 0.05, 0.1)  # of a box: how much of its sides may be to spare on each side
_LOOSENESS_COST = 0.5  # of a whole side, as overlap of boxes
_HIGHER_CUTS = tuple(step / 4 for step in range(1, 25))  # logits, for a piece that is too large
_AROUND = 0.25  # of a box's sides: what lies further away is a stray, and says nothing of the mask's size


def fitted(logits: Tensor, box: Tensor) -> Tensor:
    """Logits (1, 1, L, L), moved up or down so that the mask, where they are above 0, fills a box better.

    box  (4,) as (x0, y0, x1, y1), inclusive cells of the logits
    """
    where = _around(box, logits.shape[-1])
    cuts = torch.linspace(-_FURTHEST, _FURTHEST, _CUTS, device=logits.device)
    masks = (logits[0, 0] > cuts[:, None, None]) & where
    found, extents = masks.flatten(1).any(1), _extents(masks)
    sides = (box[2:] - box[:2] + 1).repeat(2)
    inwards = torch.tensor([1.0, 1.0, -1.0, -1.0], device=box.device)
    overlaps = [_overlap(extents, box + inwards * spare * sides) - _LOOSENESS_COST * spare for spare in _LOOSENESS]
    worth = torch.stack(overlaps).amax(0) - _COST * cuts.abs()
    return logits - cuts[worth.masked_fill(~found, -1.0).argmax()]


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


def _around(box: Tensor, side: int) -> Tensor:
    """(side, side) bool: the cells in a box or near it."""
    margin = _AROUND * (box[2:] - box[:2] + 1)
    cell = torch.arange(side, device=box.device)
    columns, rows = ((cell >= box[axis] - margin[axis]) & (cell <= box[2 + axis] + margin[axis]) for axis in (0, 1))
    return rows[:, None] & columns


def _extents(masks: Tensor) -> Tensor:
    """(N, 4) as (x0, y0, x1, y1): the outermost cells of masks (N, L, L)."""
    columns, rows = masks.any(1).int(), masks.any(2).int()
    last = masks.shape[-1] - 1
    edges = (columns.argmax(1), rows.argmax(1), last - columns.flip(1).argmax(1), last - rows.flip(1).argmax(1))
    return torch.stack(edges, dim=1).float()


def _overlap(boxes: Tensor, box: Tensor) -> Tensor:
    """(N,) intersection over union of boxes (N, 4) with one (4,)."""
    shared = (torch.minimum(boxes[:, 2:], box[2:]) - torch.maximum(boxes[:, :2], box[:2]) + 1).clamp(min=0).prod(1)
    areas = ((one[..., 2:] - one[..., :2] + 1).clamp(min=0).prod(-1) for one in (boxes, box))
    return shared / (sum(areas) - shared)
