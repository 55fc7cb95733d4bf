"""What a session knows of one object."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt
from torch import Tensor

from MedSAM2Lib.frames import View
from MedSAM2Lib.inference.kept_logits import KeptLogits
from MedSAM2Lib.inference.late_memory import LateMemory
from MedSAM2Lib.inference.order import surroundings
from MedSAM2Lib.inference.tracker import Tracker
from MedSAM2Lib.packed_mask import PackedMask
from MedSAM2Lib.prompts import Box, Points
from MedSAM2Lib.results import SliceConfidence
from MedSAM2Lib.session_steps import Spoken, slice_of

__all__ = ["SegmentedObject", "SliceRecord"]

_LOOK_BACK = 16  # slices


@dataclass(frozen=True)
class SliceRecord:
    """What is kept of a segmented slice: its mask, and enough to correct it, to see it through another view, and to make
    its memory again."""

    packed: PackedMask
    kept: KeptLogits
    view: View
    direction: int  # in which the slice was looked at: +1 or -1, the direction of its pass
    confidence: SliceConfidence
    pointer: Tensor  # (1, C) float32; this and the next two as `memory.entry` has them
    iou: Tensor  # (1,)
    object_score: Tensor  # (1,)

    @property
    def mask(self) -> npt.NDArray[np.bool_]:
        """(rows, columns), a new array."""
        return self.packed.unpacked()

    @property
    def logits(self) -> Tensor:
        """(1, 1, L, L) float16 on the CPU."""
        return self.kept.tensor

    @property
    def nbytes(self) -> int:
        return len(self.packed.bits) + self.kept.nbytes + self.pointer.nbytes


@dataclass
class SegmentedObject:
    """One thing to segment. The slices that have no record are empty.

    What lies in a session is never changed, but replaced by a changed copy: so the history can hold it too.
    """

    name: str
    tracker: Tracker
    view: View
    records: dict[int, SliceRecord] = field(default_factory=dict)
    spoken: tuple[Spoken, ...] = ()  # in order, without what a later box or mask of the same slice replaced
    boxes: dict[int, Box] = field(default_factory=dict)  # by slice; clicks refine the box of their slice
    clicks: dict[int, tuple[Points, ...]] = field(default_factory=dict)
    limits: tuple[int, int] | None = None  # slices that a 3D box allows
    locked: frozenset[int] = frozenset()
    unreached: set[int] = field(default_factory=set)  # slices that no pass has been to yet
    stale: set[int] = field(default_factory=set)  # slices that one has been to, before something was said next to them

    def copy(self) -> SegmentedObject:
        """One that can be changed without changing this one; what is kept of a slice never changes, so it is shared."""
        return replace(
            self,
            tracker=self.tracker.copy(),
            records=dict(self.records),
            boxes=dict(self.boxes),
            clicks=dict(self.clicks),
            unreached=set(self.unreached),
            stale=set(self.stale),
        )

    # ── what a person said ────────────────────────────────────────────────────────────────────────────────────

    @property
    def prompted(self) -> list[int]:
        """Slices on which a person spoke."""
        return [index for index in self.records if self.is_prompted(index)]

    @property
    def painted(self) -> list[int]:
        """Slices whose mask is the one that a person painted."""
        return [index for index in self.prompted if index not in self.boxes and index not in self.clicks]

    @property
    def shown(self) -> list[int]:
        """Slices on which a person said where the object is, or approved it: not only where it is not."""
        located = {index for index, clicks in self.clicks.items() if any(any(points.labels) for points in clicks)}
        located |= {*self.boxes, *self.painted, *self.locked}
        return sorted(index for index in located if index in self.records and not self.records[index].packed.empty)

    @property
    def anchors(self) -> set[int]:
        """Slices that no pass changes: prompted or locked."""
        return {*self.prompted, *self.locked}

    def anchor_ahead(self, index: int, direction: int) -> int | None:
        """The next prompted or locked slice in this direction."""
        ahead = [anchor for anchor in self.anchors if (anchor - index) * direction > 0]
        return min(ahead, key=lambda anchor: abs(anchor - index)) if ahead else None

    def areas_before(self, index: int, direction: int) -> list[int]:
        """Pixels of the masks of the last slices that a pass came through, back to an anchor; of those with the object."""
        behind = range(index - direction, index - (_LOOK_BACK + 1) * direction, -direction)
        passed = itertools.takewhile(lambda other: other not in self.anchors, behind)
        return [self.records[other].packed.pixels for other in passed if self.is_on(other)][::-1]

    def said(self, index: int | None) -> int:
        """How many things had been said when a person last spoke on a slice; 0 where none did."""
        return max((count for count, spoken in enumerate(self.spoken, start=1) if slice_of(spoken) == index), default=0)

    def is_prompted(self, index: int) -> bool:
        record = self.records.get(index)
        return record is not None and record.confidence.prompted

    def is_on(self, index: int) -> bool:
        """Whether a slice shows the object."""
        record = self.records.get(index)
        return record is not None and not record.packed.empty

    def may_track(self, index: int) -> bool:
        """Whether a pass may segment a slice: no person spoke on it, none locked it, no 3D box shuts it out."""
        low, high = self.limits or (index, index)
        return low <= index <= high and index not in self.locked and not self.is_prompted(index)

    def takes(self, spoken: Spoken) -> None:
        """Notes what a person said. A box or a mask says it anew for its slice, clicks add to what was said."""
        kept = self.spoken
        if not isinstance(spoken, Points):
            kept = tuple(earlier for earlier in kept if slice_of(earlier) != slice_of(spoken))
        self.spoken = (*kept, spoken)

    # ── what passes have done, and have yet to do ─────────────────────────────────────────────────────────────

    def is_due(self, index: int) -> bool:
        return index in self.unreached or index in self.stale

    def disturb(self, index: int, missed: bool = False) -> None:
        """Something else is said on a slice: those between it and the nearest anchors are to be segmented again.

        missed  a pass had not found the object there, and a person points it out. It goes on that far, then; of the slices on
                which it was found this says nothing, and a pass that comes back from its tip would find them less well
        """
        around = surroundings(index, self.anchors - {index}, self.tracker.slice_count)
        self.stale.update({other for other in around if not (missed and self.is_on(other))} - self.unreached)

    def reach(self, index: int) -> None:
        """A pass has been to a slice, or decided that it can stay as it is."""
        self.unreached.discard(index)
        self.stale.discard(index)

    def forget(self, index: int) -> None:
        """The slice becomes empty, as if it had never been segmented."""
        for kept in (self.records, self.boxes, self.clicks):
            kept.pop(index, None)
        self.tracker.forget(index)

    def keep_within(self, first: int, last: int) -> None:
        """Limits the object to slices; those on which a person spoke, and locked ones, stay."""
        self.limits = first, last
        for index in set(self.records) - self.anchors:
            if not first <= index <= last:
                self.forget(index)
                self.unreached.add(index)

    # ── what it holds in memory ───────────────────────────────────────────────────────────────────────────────

    def memories(self) -> Iterator[LateMemory]:
        """Of the slices, as far as they can be made again."""
        bank = self.tracker.bank
        entries = (*bank.conditioning.values(), *(entry for entry, *_ in bank.tracked_entries()), *self.tracker.pending.values())
        return (entry for entry in entries if isinstance(entry, LateMemory))

    def all_records(self) -> Iterable[SliceRecord]:
        """Of the slices, and of memories that are older than what is known of their slice now."""
        yield from self.records.values()
        yield from (entry.record for entry in self.memories() if entry.record is not None)
