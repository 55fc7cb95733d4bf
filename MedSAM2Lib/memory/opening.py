"""From the rule a person chose to an empty memory that follows it."""

from __future__ import annotations

from MedSAM2Lib.memory.bank import MemoryBank, RecentBank
from MedSAM2Lib.memory.options import NAMED_RULES, Memory, SelfSorting
from MedSAM2Lib.memory.published_code import PublishedCodeBank
from MedSAM2Lib.memory.self_sorting import SelfSortingBank

__all__ = ["open_bank"]


def open_bank(memory: Memory, slots: int, max_pointers: int) -> MemoryBank:
    """An empty bank for a network with so many temporal positions of memory maps, and so many object pointers."""
    recent = RecentBank(slots, max_pointers)
    if memory == "recent":
        return recent
    if memory == "self-sorting-code":
        return PublishedCodeBank(recent)
    return SelfSortingBank(recent, memory if isinstance(memory, SelfSorting) else NAMED_RULES[memory])
