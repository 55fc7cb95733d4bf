"""Steps back and forth.

What a session knows of its objects is never changed, only replaced, so a step back is to take up what was there before.
Slices that a step left alone are the same records before and after it and take room once; memories that only the history
holds are dropped, and made again when they are needed; logits are packed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from MedSAM2Lib.inference.objects import SegmentedObject

__all__ = ["Changes", "History", "Moment", "Moments", "changes"]

_MOST_STEPS = 1000  # however little room they take

Objects = Mapping[str, SegmentedObject]
Changes = dict[str, list[int]]  # slices by object


@dataclass
class Moment:
    """What there was before a step, or, of one that was undone, after it.

    nbytes  of what is not there on the other side of the step; None while the step goes on
    """

    label: str
    objects: Objects
    nbytes: int | None = None


Moments = tuple[list[Moment], list[Moment]]  # those before what there is, and those that were undone


class History:
    """byte_budget  of what only the history holds; beyond it the oldest steps go, then those undone first"""

    def __init__(self, byte_budget: int) -> None:
        self._byte_budget = byte_budget
        self._past: list[Moment] = []
        self._future: list[Moment] = []  # what was undone last comes last

    def recent(self, objects: Objects, steps: int, byte_budget: int) -> Moments:
        """The last moments, at most so many and so many bytes of them; `objects` is what there is."""
        self._measure(objects)
        past, future = list(self._past), list(self._future)
        while len(past) + len(future) > steps or sum(moment.nbytes or 0 for moment in (*past, *future)) > byte_budget:
            (past or future).pop(0)
        return past, future

    def resume(self, moments: Moments, objects: Objects) -> None:
        """Takes up what `recent` gave; `objects` is what there is, as then."""
        self._past, self._future = (list(each_way) for each_way in moments)
        for each_way in (self._past, self._future):
            there = [*(moment.objects for moment in each_way), objects]
            for moment, beside in zip(each_way, there[1:], strict=True):
                moment.nbytes = _packed_bytes(moment.objects, beside)
        self._keep_to_budget()

    @property
    def undo_label(self) -> str:
        return self._past[-1].label if self._past else ""

    @property
    def redo_label(self) -> str:
        return self._future[-1].label if self._future else ""

    @property
    def newest(self) -> Moment | None:
        return self._past[-1] if self._past else None

    @property
    def nbytes(self) -> int:
        """What only the history holds of masks and logits."""
        return sum(moment.nbytes or 0 for moment in (*self._past, *self._future))

    def begin(self, label: str, objects: Objects) -> Moment:
        """Notes what there is before a step. What was undone is forgotten."""
        self._measure(objects)
        self._future.clear()
        self._past.append(Moment(label, objects))
        return self._past[-1]

    def end(self, objects: Objects) -> None:
        """Gives back room, after the last step led to `objects`."""
        self._measure(objects)
        del self._past[:-_MOST_STEPS]
        self._keep_to_budget()

    def back(self, objects: Objects) -> Objects:
        """What there was before the last step; `objects` is what there is."""
        self._measure(objects)
        return self._moved(self._past, self._future, objects)

    def forth(self, objects: Objects) -> Objects:
        """What there was after the step undone last."""
        return self._moved(self._future, self._past, objects)

    def _measure(self, objects: Objects) -> None:
        """Of the last step, which led to `objects`: what it left behind, unless that is known."""
        if self._past and self._past[-1].nbytes is None:
            self._past[-1].nbytes = _packed_bytes(self._past[-1].objects, objects)

    def _moved(self, origin: list[Moment], goal: list[Moment], objects: Objects) -> Objects:
        moment = origin.pop()
        goal.append(Moment(moment.label, objects, _packed_bytes(objects, moment.objects)))
        self._keep_to_budget()
        return moment.objects

    def _keep_to_budget(self) -> None:
        while (self._past or self._future) and self.nbytes > self._byte_budget:
            (self._past or self._future).pop(0)


def _only_in(these: Objects, those: Objects) -> list[SegmentedObject]:
    """Objects that are not the same in both."""
    known = {id(target) for target in those.values()}
    return [target for target in these.values() if id(target) not in known]


def _packed_bytes(held: Objects, in_use: Objects) -> int:
    """Makes small what only the history holds of some objects, while others are in use; the bytes of it."""
    left, there = _only_in(held, in_use), _only_in(in_use, held)
    known = {id(part) for target in there for part in (*target.all_records(), *target.memories())}
    records = {id(record): record for target in left for record in target.all_records() if id(record) not in known}
    for target in left:
        for memory in target.memories():
            if id(memory) not in known:
                memory.fade()
    for record in records.values():
        record.kept.pack()
    return sum(record.nbytes for record in records.values())


def changes(before: Objects, after: Objects) -> Changes:
    """The slices whose masks differ, ascending, by object; of one that is only in one of the two, all that it has."""
    found: Changes = {}
    for name in {**before, **after}:
        old, new = (objects[name].records if name in objects else {} for objects in (before, after))
        differing = [
            index
            for index in sorted({*old, *new})
            if (old[index].packed if index in old else None) != (new[index].packed if index in new else None)
        ]
        if differing or (name in before) != (name in after):
            found[name] = differing
    return found
