"""What a person would correct next: the worst slice, by a click in its largest error, a box, or a brush.

Masks are (k, j, i) bool, spacing (i, j, k) mm as in Geometry.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
import numpy.typing as npt

from MedSAM2Lib.evaluation.prompting import deepest_point, reference_box
from MedSAM2Lib.prompts import Box, MaskPrompt, Points
from MedSAM2Lib.simpleitk import import_simpleitk

__all__ = ["CORRECTIONS", "WORST_BY", "CorrectionKind", "WorstBy", "next_correction", "worst_slice"]

WorstBy = Literal["dice", "area"]
WORST_BY: tuple[WorstBy, ...] = ("dice", "area")
CorrectionKind = Literal["click", "box", "mask"]
CORRECTIONS: tuple[CorrectionKind, ...] = ("click", "box", "mask")

_BoolArray = npt.NDArray[np.bool_]


def next_correction(
    mask: _BoolArray,
    reference: _BoolArray,
    spacing: tuple[float, float, float],
    worst_by: WorstBy = "dice",
    kind: CorrectionKind = "click",
) -> Box | MaskPrompt | Points | None:
    """A click, positive where the largest error of the worst slice is something missing, negative where it is too much; or a
    box around the object there; or its mask, painted. Where the object is not on that slice, there is nothing to box or to
    paint, and it is a click.

    A click lies in the error's deepest point. None where nothing is wrong.
    """
    index = worst_slice(mask, reference, worst_by)
    if index is None:
        return None
    if kind != "click" and reference[index].any():
        return reference_box(reference[index], index) if kind == "box" else MaskPrompt(index, reference[index])
    missing, excess = reference[index] & ~mask[index], mask[index] & ~reference[index]
    error = max((_largest_piece(missing), _largest_piece(excess)), key=np.count_nonzero)
    row, column = deepest_point(error, spacing[:2])
    return Points(index, (float(column),), (float(row),), (bool(reference[index, row, column]),))


def worst_slice(mask: _BoolArray, reference: _BoolArray, worst_by: WorstBy = "dice") -> int | None:
    """The slice of lowest Dice, and of equal ones (such as missed ones, 0) that with most wrong pixels; or, by `area`,
    simply that with most wrong pixels. None where nothing is wrong."""
    wrong = np.count_nonzero(mask ^ reference, axis=(1, 2))
    if not wrong.any():
        return None
    if worst_by == "area":
        return int(wrong.argmax())
    marked = np.count_nonzero(mask, axis=(1, 2)) + np.count_nonzero(reference, axis=(1, 2))
    slice_dice = np.where(marked > 0, 1 - wrong / np.maximum(marked, 1), 1.0)
    return int(np.lexsort((-wrong, slice_dice))[0])


def _largest_piece(mask: _BoolArray) -> _BoolArray:
    """Of a slice's mask; pieces hang together by faces. An empty mask stays one."""
    sitk = import_simpleitk()
    pieces = sitk.GetArrayFromImage(sitk.ConnectedComponent(sitk.GetImageFromArray(mask.astype(np.uint8)), False))
    sizes = np.bincount(pieces.ravel(), minlength=2)
    sizes[0] = 0
    largest: _BoolArray = mask & (pieces == sizes.argmax())
    return largest
