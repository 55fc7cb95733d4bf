"""The connected pieces of a mask: what touches by face, edge or corner."""

from __future__ import annotations

from itertools import product
from typing import Any

import numpy as np
import numpy.typing as npt

from MedSAM2Lib.masks import slabs
from MedSAM2Lib.simpleitk import import_simpleitk

__all__ = ["Pieces", "connected_pieces"]

_SLAB_VOXELS = 2**22  # labelled at once, for some 50 MB

_Mask = npt.NDArray[np.bool_]
_Labels = npt.NDArray[Any]  # whole numbers from 0


def connected_pieces(mask: _Mask) -> tuple[_Labels, npt.NDArray[np.intp]]:
    """Labels 1.. of the pieces of a mask in array order, and their sizes.

    sizes[0] is the number of voxels outside.
    """
    sitk = import_simpleitk()
    image = sitk.GetImageFromArray(mask.view(np.uint8) if mask.flags.c_contiguous else mask.astype(np.uint8))
    components = sitk.GetArrayFromImage(sitk.ConnectedComponent(image, True))
    return components, np.bincount(components.ravel())


class Pieces:
    """The pieces of a (k, j, i) or (rows, columns) mask, numbered from 1 in array order, found slab by slab.

    A mask's labels take four times its room, and what finds them as much again: on a large volume beside its image features
    that is too much. So they are found again where they are asked for, but those of the slab looked at last.

    sizes  voxels by number; sizes[0] is the number of voxels outside
    """

    def __init__(self, mask: _Mask) -> None:
        self._mask = mask
        self._slabs = list(slabs(tuple(slice(0, side) for side in mask.shape), _SLAB_VOXELS))
        self._latest: tuple[int, _Labels] | None = None  # a slab and its labels
        parents = np.zeros(1, dtype=np.intp)  # by label, of all slabs in a row: the lowest label of its piece known so far
        counts = np.zeros(1, dtype=np.intp)
        firsts: list[int] = []  # by slab: what its labels are raised by
        top: _Labels | None = None  # the last slice of the slab before
        for number, slab in enumerate(self._slabs):
            labels, sizes = connected_pieces(mask[slab])
            self._latest = number, labels
            first = len(parents) - 1
            parents = np.concatenate((parents, np.arange(first + 1, first + len(sizes))))
            counts = np.concatenate((counts, sizes[1:]))
            counts[0] += sizes[0]
            if top is not None:
                for below, above in _touching(top, labels[0]):
                    _join(parents, firsts[-1] + below, first + above)
            firsts.append(first)
            top = labels[-1]
        piece = _numbered(parents)
        self.sizes: npt.NDArray[np.intp] = np.zeros(piece.max() + 1, dtype=np.intp)
        np.add.at(self.sizes, piece, counts)
        ends = [*firsts[1:], len(parents) - 1]
        self._piece = [np.concatenate(([0], piece[first + 1 : end + 1])) for first, end in zip(firsts, ends, strict=True)]

    def on(self, index: int) -> npt.NDArray[np.intp]:
        """The numbers of the pieces on a slice, 0 outside."""
        thickness = self._slabs[0][0].stop
        number, within = divmod(index, thickness)
        on_slice: npt.NDArray[np.intp] = self._piece[number][self._labels(number)[within]]
        return on_slice

    def keep(self, kept: _Mask) -> None:
        """Takes all pieces out of the mask, but those whose number `kept` says True of. The last use of this."""
        for number, slab in enumerate(self._slabs):
            self._mask[slab] &= kept[self._piece[number]][self._labels(number)]

    def _labels(self, number: int) -> _Labels:
        if self._latest is None or self._latest[0] != number:
            self._latest = number, connected_pieces(self._mask[self._slabs[number]])[0]
        return self._latest[1]


def _touching(below: _Labels, above: _Labels) -> list[tuple[int, int]]:
    """The labels of two neighbouring slices that touch, lower slice first."""
    base = int(above.max()) + 1
    found: set[tuple[int, int]] = set()
    for shift in product((-1, 0, 1), repeat=below.ndim):
        one = below[tuple(slice(max(step, 0), min(step, 0) or None) for step in shift)]
        other = above[tuple(slice(max(-step, 0), min(-step, 0) or None) for step in shift)]
        both = (one > 0) & (other > 0)
        pairs = np.unique(one[both].astype(np.int64) * base + other[both])
        found |= {(int(pair) // base, int(pair) % base) for pair in pairs}
    return sorted(found)


def _join(parents: npt.NDArray[np.intp], one: int, other: int) -> None:
    """Makes two labels those of one piece (union-find, the lowest label as the root)."""
    low, high = sorted((_root(parents, one), _root(parents, other)))
    parents[high] = low


def _root(parents: npt.NDArray[np.intp], label: int) -> int:
    while parents[label] != label:
        parents[label] = parents[parents[label]]
        label = int(parents[label])
    return label


def _numbered(parents: npt.NDArray[np.intp]) -> npt.NDArray[np.intp]:
    """By label, the number of its piece: 0 for the outside, the others from 1 in the order of their lowest labels."""
    roots = parents
    while not np.array_equal(above := roots[roots], roots):
        roots = above
    numbers: npt.NDArray[np.intp] = np.unique(roots, return_inverse=True)[1].reshape(-1)
    return numbers
