from __future__ import annotations

import pytest
import torch

from MedSAM2Lib.memory.bank import RecentBank
from MedSAM2Lib.memory.entry import MemoryEntry
from MedSAM2Lib.memory.opening import open_bank
from MedSAM2Lib.memory.published_code import PublishedCodeBank, replaced_row

UP = 1
MANY = 100  # slices
EAST = (1.0, 0.0)
NORTH = (0.0, 1.0)
NEARLY_EAST = (1.0, 0.1)
ANY_SLICE = torch.ones(1, 2, 1, 1)


def entry(slice_index: int, direction: tuple[float, float] = EAST, iou: float = 0.9) -> MemoryEntry:
    vector = torch.tensor(direction).view(1, 2, 1, 1)
    return MemoryEntry(slice_index, vector, torch.zeros(1, 2), torch.tensor([iou]), torch.ones(1), appearance=vector)


def replaced(new: tuple[float, float], new_iou: float, *known: tuple[float, float]) -> int | None:
    return replaced_row(torch.tensor(new), new_iou, torch.tensor(known), [0.9] * len(known))


def a_full_bank() -> PublishedCodeBank:
    """Sixteen memories that point east."""
    bank = open_bank("self-sorting-code", 7, 16)
    assert isinstance(bank, PublishedCodeBank)
    for index in range(16):
        bank.insert(entry(index), UP)
    return bank


def test_what_differs_takes_the_place_of_a_twin() -> None:
    # Of two that point east, the first is the one least like north, and the second its twin.
    assert replaced(NORTH, 0.9, EAST, EAST, NEARLY_EAST) == 1


def test_what_resembles_all_replaces_nothing() -> None:
    assert replaced(EAST, 0.9, EAST, NORTH) is None


@pytest.mark.parametrize(("iou", "row"), [(0.81, 1), (0.79, None)])
def test_a_newcomer_may_be_a_little_less_sure(iou: float, row: int | None) -> None:
    assert replaced(NORTH, iou, EAST, EAST) == row


def test_everything_is_admitted_until_sixteen_are_there() -> None:
    bank = PublishedCodeBank(RecentBank(7, 16))
    for index in range(20):
        bank.insert(entry(index, iou=0.1), UP)
    assert list(bank.tracked) == list(range(16))


def test_later_a_memory_only_comes_for_another() -> None:
    bank = a_full_bank()
    bank.insert(entry(30, NORTH), UP)
    assert list(bank.tracked) == [0, *range(2, 16), 30]


def test_four_are_seen_without_time() -> None:
    selection = a_full_bank().select(40, UP, MANY, ANY_SLICE)
    assert [slot for _, slot in selection.maps] == [6, 6, 6, 6]


def test_the_draws_of_a_slice_are_always_the_same() -> None:
    first, second = (a_full_bank().select(40, UP, MANY, ANY_SLICE) for _ in range(2))
    assert [one.slice_index for one, _ in first.maps] == [one.slice_index for one, _ in second.maps]
