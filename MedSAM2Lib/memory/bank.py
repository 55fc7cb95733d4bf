"""Which memories a slice gets to see: the interface, and SAM 2's own rule.

Directions are +1 (towards higher slice indices) and -1. A prompted slice's memory is *conditioning*: kept for good and
shown to every slice in both directions. A tracked slice's memory belongs to the direction it was tracked in; the two
directions do not see each other's, as in MedSAM2's protocol of two passes with a reset between them.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Protocol

from torch import Tensor

from MedSAM2Lib.memory.entry import MemoryEntry

__all__ = ["MemoryBank", "RecentBank", "Selection"]


@dataclass(frozen=True)
class Selection:
    """What one slice sees, in the order in which the network was trained to see it."""

    maps: list[tuple[MemoryEntry, int]]  # with the temporal slot of each
    pointers: list[tuple[MemoryEntry, int]]  # with the signed distance of each, positive where already passed


class MemoryBank(Protocol):
    """The memories of one object."""

    @property
    def conditioning(self) -> dict[int, MemoryEntry]:
        """By slice index, in the order of prompting."""

    def insert(self, entry: MemoryEntry, direction: int) -> None:
        """Offers the memory of a slice tracked in `direction`; the rule decides whether it is kept."""

    def add_conditioning(self, entry: MemoryEntry) -> None:
        """Keeps the memory of a prompted slice, in place of what was known of that slice."""

    def forget(self, slice_index: int) -> None:
        """Drops every memory of a slice."""

    def forget_tracked(self, direction: int) -> None:
        """Drops the tracked memories of a direction, for a new pass."""

    def renew(self, entry: MemoryEntry) -> None:
        """Puts the memory of a slice that is remembered in the place of the one there: the same, seen through another view."""

    def select(self, slice_index: int, direction: int, slice_count: int, stride16: Tensor) -> Selection:
        """What slice `slice_index` of `slice_count` sees when tracked in `direction`. Asked again, the same.

        stride16  (B, C, h, w) image features of the slice
        """

    def tracked_entries(self) -> list[tuple[MemoryEntry, int, bool]]:
        """The memories of tracked slices, the direction of each, and whether its map may be shown to a slice."""

    def put_back(self, entry: MemoryEntry, direction: int, shown: bool) -> None:
        """A tracked memory as it was. All of `tracked_entries`, in their order, make an empty bank the one it was."""

    def copy(self) -> MemoryBank:
        """A bank that can be changed without changing this one. Entries never change, so they are shared."""


@dataclass
class RecentBank:
    """SAM 2's rule: all conditioning slices, the last `slots - 1` tracked ones, pointers of up to `max_pointers`.

    Figures: SAM 2's `_prepare_memory_conditioned_features` as described in its paper and configuration (temporal slot
    0 for the nearest slice, slots - 1 for conditioning slices; pointers only of slices already passed).
    """

    slots: int
    max_pointers: int
    conditioning: dict[int, MemoryEntry] = field(default_factory=dict)
    tracked: dict[int, dict[int, MemoryEntry]] = field(default_factory=lambda: {1: {}, -1: {}})

    def insert(self, entry: MemoryEntry, direction: int) -> None:
        # Never trimmed: a later correction of any slice looks at the slices around it (0.13 MB a slice at 512 pixels).
        self.tracked[direction][entry.slice_index] = entry

    def add_conditioning(self, entry: MemoryEntry) -> None:
        self.forget(entry.slice_index)
        self.conditioning[entry.slice_index] = entry

    def forget(self, slice_index: int) -> None:
        self.conditioning.pop(slice_index, None)
        for recent in self.tracked.values():
            recent.pop(slice_index, None)

    def forget_tracked(self, direction: int) -> None:
        self.tracked[direction].clear()

    def renew(self, entry: MemoryEntry) -> None:
        for kept in (self.conditioning, *self.tracked.values()):
            if entry.slice_index in kept:
                kept[entry.slice_index] = entry

    def select(self, slice_index: int, direction: int, slice_count: int, stride16: Tensor) -> Selection:
        recent = self.tracked[direction]
        maps = [(entry, self.slots - 1) for entry in self.conditioning.values()]
        for distance in range(self.slots - 1, 0, -1):  # oldest first
            entry = recent.get(slice_index - direction * distance)
            if entry is not None:
                maps.append((entry, distance - 1))

        pointers = [(entry, direction * (slice_index - index)) for index, entry in self.conditioning.items()]
        pointers = [(entry, distance) for entry, distance in pointers if distance >= 0]
        for distance in range(1, self.pointer_reach(slice_count) + 1):
            entry = recent.get(slice_index - direction * distance)
            if entry is not None:
                pointers.append((entry, distance))
        return Selection(maps, pointers)

    def tracked_entries(self) -> list[tuple[MemoryEntry, int, bool]]:
        return [(entry, direction, True) for direction, recent in self.tracked.items() for entry in recent.values()]

    def put_back(self, entry: MemoryEntry, direction: int, shown: bool) -> None:
        self.insert(entry, direction)

    def copy(self) -> RecentBank:
        tracked = {direction: dict(recent) for direction, recent in self.tracked.items()}
        return replace(self, conditioning=dict(self.conditioning), tracked=tracked)

    def pointer_reach(self, slice_count: int) -> int:
        """The furthest distance of a tracked slice whose pointer is seen; it also scales their temporal position."""
        return min(slice_count, self.max_pointers) - 1
