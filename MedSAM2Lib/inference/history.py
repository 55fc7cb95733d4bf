"""Steps back and forth.

What a session knows of its objects is never changed, only replaced, so a step back is to take up what was there before.
Slices that a step left alone are the same records before and after it and take room once; memories that only the history
holds are dropped, and made again when they are needed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from MedSAM2Lib.inference.objects import SegmentedObject

__all__ = ["Changes", "History", "Moment", "changes"]

_MOST_STEPS = 1000  # however little room they take

Objects = Mapping[str, SegmentedObject]
Changes = dict[str, list[int]]  # slices by object


@dataclass
class Moment:
    """What there was before a step, or, of one that was undone, after it.

    lost    bytes of what was there before the step and not after it
    gained  bytes of what was there after the step and not before it
    """

    label: str
    objects: Objects
    lost: int = 0
    gained: int = 0
    measured: bool = False  # whether these are known: not while the step goes on


class History:
    """byte_budget  of what only the history holds; beyond it the oldest steps go, then those undone first"""

    def __init__(self, byte_budget: int) -> None:
        self._byte_budget = byte_budget
        self._past: list[Moment] = []
        self._future: list[Moment] = []  # what was undone last comes last

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
        return sum(moment.lost for moment in self._past) + sum(moment.gained for moment in self._future)

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
        """Of the last step, which led to `objects`: what it lost and gained, unless that is known."""
        if not self._past or self._past[-1].measured:
            return
        step = self._past[-1]
        before, after = _only_in(step.objects, objects), _only_in(objects, step.objects)
        step.lost, step.gained, step.measured = _bytes_beyond(before, after), _bytes_beyond(after, before), True
        _fade(before, after)

    def _moved(self, origin: list[Moment], goal: list[Moment], objects: Objects) -> Objects:
        moment = origin.pop()
        goal.append(replace(moment, objects=objects))
        _fade(_only_in(objects, moment.objects), _only_in(moment.objects, objects))
        self._keep_to_budget()
        return moment.objects

    def _keep_to_budget(self) -> None:
        while (self._past or self._future) and self.nbytes > self._byte_budget:
            (self._past or self._future).pop(0)


def _only_in(these: Objects, those: Objects) -> list[SegmentedObject]:
    """Objects that are not the same in both."""
    known = {id(target) for target in those.values()}
    return [target for target in these.values() if id(target) not in known]


def _bytes_beyond(targets: Sequence[SegmentedObject], others: Sequence[SegmentedObject]) -> int:
    """What the records of some objects take that others do not have."""
    known = {id(record) for target in others for record in target.all_records()}
    own = {id(record): record for target in targets for record in target.all_records()}
    return sum(record.nbytes for place, record in own.items() if place not in known)


def _fade(targets: Sequence[SegmentedObject], others: Sequence[SegmentedObject]) -> None:
    """Drops the maps of memories that others, which are in use, do not have."""
    in_use = {id(memory) for target in others for memory in target.memories()}
    for target in targets:
        for memory in target.memories():
            if id(memory) not in in_use:
                memory.fade()


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
