"""Drafts of an object through the volume, from the slices that a person prompted or approved.

A cube around each of these slices is looked at as a whole; where the object goes on beyond a cube, another one follows. A
pass from slice to slice takes a draft along, so that what went astray on one slice is not handed on to all that follow.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from MedSAM2Lib.frames import View, logits_to_slice, mask_to_frame, slice_to_frame
from MedSAM2Lib.network.volume_unet import CUBE_SIDE, VolumeUNet
from MedSAM2Lib.packed_mask import PackedMask

__all__ = ["DraftedSlice", "Drafts", "draft_share"]

Known: TypeAlias = Mapping[int, PackedMask]  # by slice: what a person prompted or approved; an empty mask says absent
_Key: TypeAlias = tuple[tuple[int, PackedMask], ...]

_ZOOM = 1.8  # side of a cube in sides of the object's box on the slice in its middle, the middle of what it was trained on
_NEXT_CUBE = 0.75  # of the way from a cube's middle to its end: there, the middle of the next one lies
_LEAST_PIXELS = 4  # of a mask that is followed into another cube
_DRAFTS_KEPT = 8  # objects, or states of one
_SHARE = 0.3  # of a hint, while one slice is known
_FADED = 0.5  # of the area of the mask of the slice before: a draft that has less is about to end
_GROWN, _NOISE = 1.5, 4  # times the least of the last areas, and pixels beyond that


@dataclass(frozen=True)
class DraftedSlice:
    """What a draft says of a slice."""

    logits: Tensor  # (1, 1, S, S)
    view: View  # through which


@dataclass(frozen=True)
class _Cube:
    """A cube that has been looked at: planes of view x view pixels, `planes_apart` slices from each other."""

    middle: int  # the slice of its middle plane
    view: View
    planes_apart: float
    logits: Tensor  # (S, S, S)
    cut: npt.NDArray[np.bool_]  # (S,) planes on which the object reaches a side of the cube beyond which the slice goes on

    def edge(self, direction: int) -> int:
        """Around which slice to look next: short of the cube's end, or of where the object leaves it sideways."""
        middle = CUBE_SIDE // 2
        outward = self.cut[middle + 1 :] if direction > 0 else self.cut[:middle][::-1]
        whole = int(outward.argmax()) if outward.any() else math.inf  # planes
        planes = min(_NEXT_CUBE * (middle - 1), whole)
        return self.middle + direction * max(1, int(planes * self.planes_apart))

    def at(self, index: int) -> DraftedSlice | None:
        """Between its planes; None beyond them."""
        place = (index - self.middle) / self.planes_apart + CUBE_SIDE // 2
        below = math.floor(place)
        if not 0 <= place <= CUBE_SIDE - 1:
            return None
        above = min(below + 1, CUBE_SIDE - 1)
        return DraftedSlice(torch.lerp(self.logits[below], self.logits[above], place - below)[None, None], self.view)


@dataclass
class _Draft:
    """The cubes of one object so far: outward from each slice that shows it, in either direction."""

    cubes: dict[tuple[int, int], list[_Cube | None]] = field(default_factory=dict)  # None: the object ends before


def draft_share(draft: Tensor, before: Tensor, areas: Sequence[int], doubt: float) -> float:
    """How much of the hint that a slice gets is a draft's, while one slice is known; the rest is the mask's of the slice before.

    From one slice, drafts end long things too early. So where a draft fades but the object has kept its cross-section, the
    draft is not heeded; where the mask has grown instead, it has taken in a neighbour, and the draft has the word.

    draft, before  logits of one shape
    areas          pixels of the object on the last slices of the pass
    doubt          what the object's expected depth says against its being here, a logit
    """
    if torch.count_nonzero(draft > 0) >= _FADED * torch.count_nonzero(before > 0):
        return _SHARE
    if areas and areas[-1] > _GROWN * min(areas) + _NOISE:
        return 1.0
    return 0.0 if doubt <= 0 else _SHARE


class Drafts:
    """Of one volume through one intensity window.

    read_slice    slice index -> (rows, columns) uint8, already windowed
    slice_shape   rows, columns
    spacing       mm between slices, rows, columns
    """

    def __init__(
        self,
        network: VolumeUNet,
        read_slice: Callable[[int], npt.NDArray[np.uint8]],
        slice_count: int,
        slice_shape: tuple[int, int],
        spacing: tuple[float, float, float],
    ) -> None:
        self._network = network
        self._read_slice = read_slice
        self._slice_count = slice_count
        self._slice_shape = slice_shape
        self._spacing = spacing
        self._kept: OrderedDict[_Key, _Draft] = OrderedDict()

    def at(self, index: int, known: Known) -> DraftedSlice | None:
        """What is to be expected on a slice, by what is known of others; None where no draft reaches it.

        A function of its arguments: cubes are looked at when they are first asked for, and kept for a while.
        """
        shown = [other for other, mask in known.items() if not mask.empty]
        if not shown:
            return None
        draft = self._draft(known)
        start = min(shown, key=lambda other: (abs(other - index), other))
        direction = 1 if index >= start else -1
        cubes = draft.cubes.setdefault((start, direction), [])
        if not cubes:
            other_way = draft.cubes.get((start, -direction))
            cubes.append(other_way[0] if other_way else self._look(start, self._around(known[start]), known))
        for number in range(self._slice_count):
            cube = cubes[number]
            assert cube is not None
            edge = cube.edge(direction)
            if (index - edge) * direction <= 0:
                return cube.at(index)
            if len(cubes) == number + 1:
                cubes.append(self._next(cube, edge, known))
            if cubes[number + 1] is None:
                return cube.at(index)
        return None

    def _draft(self, known: Known) -> _Draft:
        key = tuple(sorted(known.items(), key=lambda item: item[0]))
        draft = self._kept.setdefault(key, _Draft())
        self._kept.move_to_end(key)
        while len(self._kept) > _DRAFTS_KEPT:
            self._kept.popitem(last=False)
        return draft

    def _next(self, cube: _Cube, edge: int, known: Known) -> _Cube | None:
        """The cube around a slice near a cube's end; None where the object does not get there."""
        drafted = cube.at(edge)
        if drafted is None or not 0 <= edge < self._slice_count:
            return None
        mask = (logits_to_slice(drafted.logits, drafted.view, *self._slice_shape) > 0).cpu().numpy()
        if np.count_nonzero(mask) < _LEAST_PIXELS:
            return None
        packed = PackedMask.of(mask)
        view = self._around(packed)
        if view.width < cube.view.width:
            view = cube.view.moved_to(_corners(packed), *self._slice_shape)
        return self._look(edge, view, {edge: packed, **known})

    def _around(self, mask: PackedMask) -> View:
        return View.around(_corners(mask), _ZOOM, *self._slice_shape)

    def _look(self, middle: int, view: View, known: Known) -> _Cube:
        slice_mm, row_mm, column_mm = self._spacing
        cell_mm = math.sqrt(view.height * row_mm * view.width * column_mm) / CUBE_SIDE
        planes_apart = max(cell_mm / slice_mm, 1.0)  # planes between thick slices would show nothing new
        is_known, told = torch.zeros(CUBE_SIDE, dtype=torch.bool), torch.zeros(CUBE_SIDE, CUBE_SIDE, CUBE_SIDE)
        for index in sorted(known, key=lambda other: -abs(other - middle)):  # the nearest has the last word
            plane = round((index - middle) / planes_apart) + CUBE_SIDE // 2
            if 0 <= plane < CUBE_SIDE:
                is_known[plane] = True
                told[plane] = mask_to_frame(known[index].unpacked(), view, CUBE_SIDE)[0]
        depth = torch.tensor(planes_apart * slice_mm / cell_mm)
        cube = (self._planes(middle, view, planes_apart), is_known, told, depth)
        logits = self._network(*(part[None].to(self._network.device) for part in cube))[0]
        return _Cube(middle, view, planes_apart, logits, self._cut(logits, view))

    def _cut(self, logits: Tensor, view: View) -> npt.NDArray[np.bool_]:
        rows, columns = self._slice_shape
        sides = (
            (view.row > 0, logits[:, 0]),
            (view.row + view.height < rows, logits[:, -1]),
            (view.column > 0, logits[:, :, 0]),
            (view.column + view.width < columns, logits[:, :, -1]),
        )
        cut = np.zeros(CUBE_SIDE, dtype=bool)
        for goes_on, cells in sides:
            cut |= goes_on & (cells > 0).any(1).cpu().numpy()
        return cut

    def _planes(self, middle: int, view: View, planes_apart: float) -> Tensor:
        """(S, S, S) grey values 0..1, interpolated between slices; 0 beyond the volume's ends."""
        places = middle + (np.arange(CUBE_SIDE) - CUBE_SIDE // 2) * planes_apart
        stride = max(1, int(planes_apart))  # slices closer together than planes are not all read
        first = middle - (middle - max(0, math.floor(places[0]))) // stride * stride
        indices = range(first, min(self._slice_count - 1, math.ceil(places[-1])) + 1, stride)
        frames = torch.cat([slice_to_frame(self._read_slice(index), view, CUBE_SIDE) for index in indices])
        number = (places - first) / stride
        below = np.clip(np.floor(number).astype(int), 0, len(frames) - 1)
        above = np.minimum(below + 1, len(frames) - 1)
        share = torch.from_numpy(np.clip(number - below, 0, 1).astype(np.float32))[:, None, None]
        inside = (number > -0.75) & (number < len(frames) - 0.25)  # half a slice beyond the outermost ones' centres
        return torch.lerp(frames[below], frames[above], share) * torch.from_numpy(inside)[:, None, None]


def _corners(mask: PackedMask) -> tuple[float, float, float, float]:
    """Inclusive (x0, y0, x1, y1) of a mask that has a pixel."""
    top, bottom, left, right = mask.box
    return left, top, right - 1, bottom - 1
