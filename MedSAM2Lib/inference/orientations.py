"""One object along several slicing axes: more than one look at it, and where they differ (Medical SAM 2, section 3.3).

    session.add_prompt("liver", Box(42, 80, 60, 210, 190))
    for _ in session.propagate():
        pass
    liver = Orientations(session, volume, axis="k", window="auto", count=3).segment("liver")
    liver.mask, liver.uncertainty       # (k, j, i)

The paper runs through a volume along three axes and back, but does not say how one prompt reaches the sequences of the
other axes. Here the mask of the session's own sequence, the first, gives the prompts of the others:

* of the other axes, a box around it on the slice that shows most of it. Three sequences, each going outwards;
* inwards, boxes on the slices to either side of that where it shrinks to half its area, from which the tracks meet. This
  takes the place of the paper's reversed sequences: a session goes both ways from its prompt already, so turning the
  order of the slices around would change nothing. Six sequences.

What a person said stands: sequences along the session's axis have the person's prompts, and prompted slices stay as they
are. Nothing is added beyond the slices to which the object is limited.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Literal, get_args

import numpy as np
import numpy.typing as npt

from MedSAM2Lib.agreement import areas, box_on, largest_slice
from MedSAM2Lib.errors import OptionError
from MedSAM2Lib.inference.session import Session
from MedSAM2Lib.metrics import dice
from MedSAM2Lib.postprocess import largest_component
from MedSAM2Lib.prompts import Box3D, Prompt
from MedSAM2Lib.volume import Volume

__all__ = ["AGGREGATIONS", "COUNTS", "Aggregation", "Orientations", "OrientedMask"]

COUNTS = (1, 3, 6)
Aggregation = Literal["mean", "majority"]
AGGREGATIONS: tuple[Aggregation, ...] = get_args(Aggregation)

_AXES = ("k", "j", "i")
_BOUND = 8.0  # of logits that are averaged: no sequence outvotes the others by being very sure
_SHOULDER = 0.5  # share of the largest area at which the inward sequences begin

_Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class OrientedMask:
    """What the sequences make of an object together."""

    mask: _Mask = field(repr=False)  # (k, j, i)
    support: npt.NDArray[np.float32] = field(repr=False)  # (k, j, i), share of the sequences that have the voxel in the object
    sequences: tuple[str, ...]  # "k outwards" and so on
    agreement: float  # mean Dice of every two sequences; 1 for a single one

    @property
    def uncertainty(self) -> npt.NDArray[np.float32]:
        """(k, j, i), 0 where all sequences agree, 1 where they are split in halves."""
        return 1 - np.abs(2 * self.support - 1)


class Orientations:
    """The other sequences of a session's objects.

    session      of the volume along `axis`, its objects propagated; it is not changed
    axis, window as `set_volume` got them
    count        1, 3 or 6 sequences
    aggregation  mean of logits, or majority of masks; half the sequences are not enough
    """

    def __init__(
        self, session: Session, volume: Volume, axis: str, window: str, count: int, aggregation: Aggregation = "mean"
    ) -> None:
        if count not in COUNTS:
            raise OptionError(f"The number of orientations is one of {', '.join(map(str, COUNTS))}, but {count} came.")
        if aggregation not in AGGREGATIONS:
            raise OptionError(f"Orientations are put together by {' or '.join(AGGREGATIONS)}, but {aggregation!r} came.")
        self._session, self._volume, self._window = session, volume, window
        self._own = volume.geometry.array_axis(axis)
        self._count, self._aggregation = count, aggregation
        self._sessions: dict[int, Session] = {}  # by array axis; their image features serve all objects

    @property
    def more(self) -> int:
        """Sequences of an object beside the first."""
        return self._count - 1

    def segment(
        self, name: str, within: tuple[int, int] | None = None, after_each: Callable[[], None] = lambda: None
    ) -> OrientedMask:
        """Runs the object's other sequences, and puts all together.

        within      slices along the session's axis, inclusive, beyond which nothing is added; None: the object's own limits
        after_each  called after every sequence
        """
        first = self._session.mask(name)
        together = _Together(first, self._logits(self._session, name, first, self._own), f"{_AXES[self._own]} outwards")
        if first.any():
            for axis, way, prompts in self._sequences(name, first):
                session = self._along(axis)
                session.reset()
                for prompt in prompts:
                    session.add_prompt(name, prompt)
                for _ in session.propagate([name]):
                    pass
                mask = session.mask(name)
                together.add(mask, self._logits(session, name, mask, axis), f"{_AXES[axis]} {way}")
                after_each()
        mask = together.majority() if self._aggregation == "majority" else together.mean()
        return together.result(self._as_said(name, first, mask, within))

    def _sequences(self, name: str, first: _Mask) -> Iterator[tuple[int, str, list[Prompt]]]:
        """Array axis, way and prompts of every sequence but the first."""
        if self._count == 1:
            return
        others = [axis for axis in range(3) if axis != self._own]
        for axis in others:
            yield axis, "outwards", [box_on(first, axis, largest_slice(first, axis))]
        if self._count == 6:
            for axis in (self._own, *others):
                said = self._session.prompts(name) if axis == self._own else []
                spoken = self._spoken(name) if axis == self._own else set()
                shoulders = [index for index in _shoulders(first, axis) if index not in spoken]
                yield axis, "inwards", [*said, *(box_on(first, axis, index) for index in shoulders)]

    def _along(self, axis: int) -> Session:
        if axis not in self._sessions:
            self._sessions[axis] = Session(self._session.model, self._session.options)
            self._sessions[axis].set_volume(self._volume, _AXES[axis], self._window)
        return self._sessions[axis]

    def _logits(self, session: Session, name: str, mask: _Mask, axis: int) -> npt.NDArray[np.float32]:
        """(k, j, i), bounded; undecided where the session's mask is not what the network made of the slice."""
        along = np.full(np.moveaxis(mask, axis, 0).shape, -_BOUND, dtype=np.float32)
        for index in range(len(along)):
            if (seen := session.slice_logits(name, index)) is not None:
                along[index] = seen.clip(-_BOUND, _BOUND)
        logits = np.moveaxis(along, 0, axis)
        logits[(logits > 0) != mask] = 0
        return logits

    def _spoken(self, name: str) -> set[int]:
        return {index for index, confidence in self._session.confidence(name).items() if confidence.prompted}

    def _as_said(self, name: str, first: _Mask, mask: _Mask, within: tuple[int, int] | None) -> _Mask:
        """The mask within its limits, in one piece if masks are to be, and on prompted slices as the person has it."""
        if self._session.options.keep_largest:
            mask = largest_component(mask)
        by_slice, of_first = np.moveaxis(mask, self._own, 0), np.moveaxis(first, self._own, 0)
        boxes = [prompt for prompt in self._session.prompts(name) if isinstance(prompt, Box3D)]
        limits = [*([within] if within else []), *((box.first, box.last) for box in boxes[-1:])]
        for low, high in limits:
            by_slice[:low] = False
            by_slice[high + 1 :] = False
        for index in self._spoken(name):
            by_slice[index] = of_first[index]
        return mask


class _Together:
    """What the sequences say, summed as they come: a volume of logits takes more room than the image."""

    def __init__(self, mask: _Mask, logits: npt.NDArray[np.float32], sequence: str) -> None:
        self._masks = [np.packbits(mask)]  # an eighth of their room
        self._votes = mask.astype(np.uint8)
        self._logits = logits
        self._sequences = [sequence]
        self._agreements: list[float] = []  # Dice of every two

    def add(self, mask: _Mask, logits: npt.NDArray[np.float32], sequence: str) -> None:
        others = (np.unpackbits(packed, count=mask.size).view(bool).reshape(mask.shape) for packed in self._masks)
        self._agreements += [dice(other, mask) for other in others]
        self._masks.append(np.packbits(mask))
        self._votes += mask
        self._logits += logits
        self._sequences.append(sequence)

    def majority(self) -> _Mask:
        decided: _Mask = 2 * self._votes > len(self._sequences)
        return decided

    def mean(self) -> _Mask:
        decided: _Mask = self._logits > 0
        return decided

    def result(self, mask: _Mask) -> OrientedMask:
        support = (self._votes / len(self._sequences)).astype(np.float32)
        agreement = sum(self._agreements) / len(self._agreements) if self._agreements else 1.0
        return OrientedMask(mask, support, tuple(self._sequences), agreement)


def _shoulders(mask: _Mask, axis: int) -> list[int]:
    """To either side of the largest slice, the last one before the area falls below half of the largest."""
    area = areas(mask, axis)
    middle = int(area.argmax())
    small = np.flatnonzero(area < _SHOULDER * area[middle])
    below, above = small[small < middle], small[small > middle]
    low = int(below[-1]) + 1 if len(below) else 0
    high = int(above[0]) - 1 if len(above) else len(area) - 1
    return sorted({low, high})
