"""From the slices on which a person spoke to the others: which are segmented in which order, and where a pass may end.

The first time, all of them. After a correction only what it has to do with: the slices between it and the nearest prompted
or locked ones, and of those only as far as new and old masks differ. A pass ends after three slices in a row that agree,
unless it comes to the correction: a network that knows of that from afar may yet change its mind.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice

import numpy as np
import numpy.typing as npt

from MedSAM2Lib.inference.objects import SegmentedObject, SliceRecord
from MedSAM2Lib.inference.order import Step, outward
from MedSAM2Lib.inference.segmenter import Segmenter
from MedSAM2Lib.results import SliceResult

__all__ = ["AGREEING_SLICES", "ObjectPass", "route"]

AGREEING_SLICES = 3  # in a row, after which the rest of a pass stays as it is


def route(target: SegmentedObject, first: int, last: int, redo: bool) -> list[Step]:
    """The slices of first..last that a propagation of an object has to see to, in order."""
    low, high = target.limits or (first, last)
    prompted = target.prompted
    walls = [index for index in target.locked if index not in target.records or target.records[index].packed.empty]
    approved = target.locked - set(walls)
    absent = [index for index in prompted if target.records[index].packed.empty]
    starts = {*prompted, *approved} - set(walls)
    steps = outward(starts, max(first, low), min(last, high), absent=absent, walls=walls)
    return [step for step in steps if redo or target.is_due(step[0])]


@dataclass
class _Run:
    """How a pass fares since it left a slice that it started from."""

    last: int  # the slice it came to last
    absent: int = 0  # slices in a row without the object
    agreeing: int = 0  # slices in a row that are as they were


class ObjectPass:
    """One object in one propagation.

    steps  of `route`, as planned; what is said meanwhile is heeded
    redo   every slice anew, whatever was there before
    """

    def __init__(self, segmenter: Segmenter, steps: Sequence[Step], redo: bool) -> None:
        self._segmenter = segmenter
        self._steps = steps
        self._redo = redo
        self._done = 0  # steps of the plan
        self._runs: dict[int, _Run] = {}  # by direction
        self._seen: set[Step] = set()  # steps that were segmented
        self._begun = False

    @property
    def segmented(self) -> int:
        """Slices so far."""
        return len(self._seen)

    @property
    def planned(self) -> int:
        """Slices at most."""
        return len(self._steps)

    def visit(self, target: SegmentedObject) -> SliceResult | None:
        """The next step of the plan. None where the slice needs no work, or can stay as it is."""
        if not self._begun:
            self._begin(target)
        index, direction = self._steps[self._done]
        self._done += 1
        if not (target.may_track(index) and target.is_due(index)):
            return None
        run = self._run(target, index, direction)
        run.last = index
        if self._over(run, target, index, direction):
            return None
        known = index in target.stale  # else there is no old mask to agree with
        before, leader = target.records.get(index), self._leader(target, index, direction)
        result = self._segmenter.track(target, index, direction, leader, self._coming(direction))
        run.absent = 0 if result.mask.any() else run.absent + 1
        run.agreeing = run.agreeing + 1 if known and self._agree(before, result.mask) else 0
        target.reach(index)
        self._seen.add((index, direction))
        return result

    def _begin(self, target: SegmentedObject) -> None:
        """Forgets the memories of slices that are to be segmented again: none of them is to look at what was wrong."""
        again = {index for index, _ in self._steps if target.may_track(index)}
        if self._redo:
            target.unreached |= again
            target.stale -= again
        self._segmenter.heed_approved(target)
        for direction in (1, -1):
            target.tracker.start_pass(direction, None if self._redo else again)
        self._begun = True

    def _run(self, target: SegmentedObject, index: int, direction: int) -> _Run:
        """The pass that comes to a slice: the one from the slice before, or one that begins here."""
        run = self._runs.get(direction)
        before = index - direction
        if run is None or run.last != before:
            run = self._runs[direction] = _Run(before)
            if target.is_prompted(before) and target.records[before].packed.empty:
                run.absent = self._segmenter.options.stop_after  # a person's word weighs as much as several empty slices
            while run.absent < self._segmenter.options.stop_after and self._was_empty(target, run.absent, before, direction):
                run.absent += 1
        return run

    def _was_empty(self, target: SegmentedObject, steps_back: int, before: int, direction: int) -> bool:
        """Whether an earlier propagation, which this one goes on with, did not find the object on a slice behind it."""
        index = before - steps_back * direction
        record = target.records.get(index)
        return record is not None and record.packed.empty and self._was_tracked(target, index, direction)

    def _was_tracked(self, target: SegmentedObject, index: int, direction: int) -> bool:
        """Whether a slice was segmented in this direction: now, or before and is to stay so."""
        if (index, direction) in self._seen:
            return True
        kept = not self._redo and not target.is_due(index) and index not in target.anchors
        return kept and target.tracker.tracked_direction.get(index) == direction

    def _over(self, run: _Run, target: SegmentedObject, index: int, direction: int) -> bool:
        """Whether the pass ended before this slice; it then becomes empty, or stays as it was."""
        stop_after = self._segmenter.options.stop_after
        if stop_after and run.absent >= stop_after:
            target.forget(index)
            target.reach(index)
            return True
        if run.agreeing >= AGREEING_SLICES and not self._nears_news(target, index, direction):
            if index in target.stale:
                self._segmenter.remember_again(target, index)
                target.reach(index)
                return True
            run.agreeing = 0
        return False

    def _nears_news(self, target: SegmentedObject, index: int, direction: int) -> bool:
        """Whether the pass comes to what was said after that which it started from, and the network sees it from afar: there,
        slices may yet change."""
        if not self._segmenter.network.knows_depth or target.limits:
            return False
        ahead, behind = (target.anchor_ahead(index, way) for way in (direction, -direction))
        return behind not in target.locked and target.said(ahead) > target.said(behind)

    def _leader(self, target: SegmentedObject, index: int, direction: int) -> SliceRecord | None:
        """What is known of the slice before, where this pass comes from there."""
        before = index - direction
        here = before in target.anchors or self._was_tracked(target, before, direction)
        return target.records.get(before) if here else None

    def _coming(self, direction: int) -> list[int]:
        """This slice and those after it in this direction, as far as they are encoded at once."""
        ahead = (index for index, way in islice(self._steps, self._done - 1, None) if way == direction)
        return list(islice(ahead, self._segmenter.embeddings.batch))

    def _agree(self, before: SliceRecord | None, mask: npt.NDArray[np.bool_]) -> bool:
        """Whether a slice's new mask (rows, columns) is about the old one."""
        least = self._segmenter.options.agreement
        old = np.zeros_like(mask) if before is None else before.mask
        both = int(old.sum()) + int(mask.sum())
        return bool(least) and 2 * int((old & mask).sum()) >= least * both
