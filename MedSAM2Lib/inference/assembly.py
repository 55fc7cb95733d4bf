"""The masks of an object's slices put together to one of the volume, without stray pieces."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from MedSAM2Lib.inference.objects import SegmentedObject
from MedSAM2Lib.masks import bounding_box
from MedSAM2Lib.pieces import Pieces

__all__ = ["assembled"]

_Mask = npt.NDArray[np.bool_]


def assembled(target: SegmentedObject, slice_count: int, slice_shape: tuple[int, int], keep_largest: bool) -> _Mask:
    """(slices, rows, columns) bool, a new array.

    keep_largest  keep of every slice that a person spoke on or locked the largest piece that touches it, and the pieces
                  that were clicked, painted or locked; drop the others. Without any such piece, keep the largest of all
    """
    stack = np.zeros((slice_count, *slice_shape), dtype=bool)
    for index, record in target.records.items():
        if not record.packed.empty:
            stack[index] = record.mask
    if keep_largest:
        _keep_anchored(stack, target)
    return stack


def _keep_anchored(stack: _Mask, target: SegmentedObject) -> None:
    """Takes the other pieces out of the stack."""
    part = bounding_box(stack)
    if part is None:
        return
    first = part[0].start
    pieces = Pieces(stack[part])
    kept = np.zeros(len(pieces.sizes), dtype=bool)
    to_the_pixel = {*target.painted, *target.locked}
    for index in sorted(target.anchors & set(range(first, part[0].stop))):
        on_slice = pieces.on(index - first)
        here = np.unique(on_slice)
        here = here[here > 0]
        if index in to_the_pixel:
            kept[here] = True
        elif len(here):
            kept[here[np.argmax(pieces.sizes[here])]] = True
        kept[[piece for row, column in _clicked(target, index) if (piece := _at(on_slice, part, row, column))]] = True
    if not kept[1:].any():
        kept[1 + np.argmax(pieces.sizes[1:])] = True
    kept[0] = False
    pieces.keep(kept)


def _clicked(target: SegmentedObject, index: int) -> list[tuple[int, int]]:
    """Row and column of each click on the object."""
    return [
        (round(y), round(x))
        for points in target.clicks.get(index, ())
        for x, y, on in zip(points.xs, points.ys, points.labels, strict=True)
        if on
    ]


def _at(pieces: npt.NDArray[np.integer[Any]], part: tuple[slice, ...], row: int, column: int) -> int:
    """The piece at a pixel of the slice; 0 where there is none."""
    _, down, across = part
    inside = down.start <= row < down.stop and across.start <= column < across.stop
    return int(pieces[row - down.start, column - across.start]) if inside else 0
