from __future__ import annotations

import torch

from MedSAM2Lib.memory.bank import RecentBank, Selection
from MedSAM2Lib.memory.entry import MemoryEntry

UP, DOWN = 1, -1
MANY = 100  # slices
ANY = torch.zeros(1, 1, 1, 1)  # features of a slice, which this rule does not look at


def entry(slice_index: int) -> MemoryEntry:
    return MemoryEntry(slice_index, torch.zeros(1, 1, 1, 1), torch.zeros(1, 1), torch.ones(1), torch.ones(1))


def a_bank(*, prompted: list[int], tracked_up: range = range(0), tracked_down: range = range(0)) -> RecentBank:
    bank = RecentBank(slots=7, max_pointers=16)
    for index in prompted:
        bank.add_conditioning(entry(index))
    for index in tracked_up:
        bank.insert(entry(index), UP)
    for index in tracked_down:
        bank.insert(entry(index), DOWN)
    return bank


def maps(selection: Selection) -> list[tuple[int, int]]:
    """(slice, temporal slot)."""
    return [(seen.slice_index, slot) for seen, slot in selection.maps]


def pointers(selection: Selection) -> list[tuple[int, int]]:
    """(slice, signed distance)."""
    return [(seen.slice_index, distance) for seen, distance in selection.pointers]


def test_a_slice_sees_the_prompted_slice_and_the_last_six_oldest_first() -> None:
    selection = a_bank(prompted=[10], tracked_up=range(11, 20)).select(20, UP, MANY, ANY)
    assert maps(selection) == [(10, 6), (14, 5), (15, 4), (16, 3), (17, 2), (18, 1), (19, 0)]


def test_downwards_the_last_six_are_those_above() -> None:
    selection = a_bank(prompted=[30], tracked_down=range(29, 20, -1)).select(20, DOWN, MANY, ANY)
    assert maps(selection) == [(30, 6), (26, 5), (25, 4), (24, 3), (23, 2), (22, 1), (21, 0)]


def test_pointers_come_from_passed_prompted_slices_first_then_from_the_nearest_on() -> None:
    selection = a_bank(prompted=[10], tracked_up=range(11, 15)).select(15, UP, MANY, ANY)
    assert pointers(selection) == [(10, 5), (14, 1), (13, 2), (12, 3), (11, 4)]


def test_a_prompted_slice_ahead_lends_its_map_but_not_its_pointer() -> None:
    selection = a_bank(prompted=[10, 18], tracked_up=range(11, 14)).select(14, UP, MANY, ANY)
    assert maps(selection) == [(10, 6), (18, 6), (11, 2), (12, 1), (13, 0)]
    assert pointers(selection) == [(10, 4), (13, 1), (12, 2), (11, 3)]


def test_downwards_passed_slices_are_at_positive_distances_too() -> None:
    selection = a_bank(prompted=[5, 18], tracked_down=range(17, 14, -1)).select(14, DOWN, MANY, ANY)
    assert pointers(selection) == [(18, 4), (15, 1), (16, 2), (17, 3)]


def test_prompted_slices_are_seen_however_far_away() -> None:
    selection = a_bank(prompted=[0, 90]).select(40, UP, MANY, ANY)
    assert maps(selection) == [(0, 6), (90, 6)]
    assert pointers(selection) == [(0, 40)]


def test_no_more_than_fifteen_tracked_pointers_are_seen() -> None:
    selection = a_bank(prompted=[0], tracked_up=range(1, 40)).select(40, UP, MANY, ANY)
    assert pointers(selection) == [(0, 40), *((40 - distance, distance) for distance in range(1, 16))]


def test_a_short_volume_has_a_shorter_reach() -> None:
    bank = a_bank(prompted=[0], tracked_up=range(1, 5))
    assert bank.pointer_reach(6) == 5
    assert pointers(bank.select(4, UP, 3, ANY)) == [(0, 4), (3, 1), (2, 2)]


def test_slices_that_were_skipped_leave_a_gap() -> None:
    bank = a_bank(prompted=[10], tracked_up=range(11, 14))
    assert maps(bank.select(18, UP, MANY, ANY)) == [(10, 6), (12, 5), (13, 4)]


def test_the_two_directions_do_not_see_each_other() -> None:
    bank = a_bank(prompted=[10], tracked_up=range(11, 15))
    assert maps(bank.select(9, DOWN, MANY, ANY)) == [(10, 6)]
    bank.insert(entry(9), DOWN)
    assert maps(bank.select(15, UP, MANY, ANY)) == [(10, 6), (11, 3), (12, 2), (13, 1), (14, 0)]


def test_a_prompt_takes_the_place_of_what_was_tracked_there() -> None:
    bank = a_bank(prompted=[10], tracked_up=range(11, 15))
    bank.add_conditioning(entry(13))
    assert maps(bank.select(15, UP, MANY, ANY)) == [(10, 6), (13, 6), (11, 3), (12, 2), (14, 0)]


def test_a_forgotten_slice_is_seen_no_more() -> None:
    bank = a_bank(prompted=[10], tracked_up=range(11, 13))
    bank.forget(10)
    bank.forget(12)
    assert maps(bank.select(13, UP, MANY, ANY)) == [(11, 1)]


def test_a_new_pass_forgets_only_its_own_direction() -> None:
    bank = a_bank(prompted=[10], tracked_up=range(11, 13), tracked_down=range(9, 7, -1))
    bank.forget_tracked(UP)
    assert maps(bank.select(13, UP, MANY, ANY)) == [(10, 6)]
    assert maps(bank.select(7, DOWN, MANY, ANY)) == [(10, 6), (9, 1), (8, 0)]


def test_an_empty_bank_shows_nothing() -> None:
    assert RecentBank(slots=7, max_pointers=16).select(3, UP, MANY, ANY) == Selection([], [])


def test_a_copy_changes_alone() -> None:
    bank = RecentBank(slots=7, max_pointers=16)
    bank.add_conditioning(entry(1))
    bank.insert(entry(2), UP)
    copy = bank.copy()
    assert copy.select(3, UP, MANY, ANY) == bank.select(3, UP, MANY, ANY)
    copy.insert(entry(3), UP)
    copy.add_conditioning(entry(5))
    copy.forget(1)
    assert list(bank.conditioning) == [1]
    assert list(bank.tracked[UP]) == [2]


def test_a_bank_can_be_put_back_as_it_was() -> None:
    bank = a_bank(prompted=[10], tracked_up=range(11, 15), tracked_down=range(9, 5, -1))
    again = a_bank(prompted=[10])
    for remembered in bank.tracked_entries():
        again.put_back(*remembered)
    assert maps(again.select(15, UP, MANY, ANY)) == maps(bank.select(15, UP, MANY, ANY))
    assert pointers(again.select(5, DOWN, MANY, ANY)) == pointers(bank.select(5, DOWN, MANY, ANY))
