"""The equations on hand-computed numbers, and the bank on memories whose maps point where the test says."""

from __future__ import annotations

from dataclasses import replace
from itertools import combinations_with_replacement
from math import sqrt

import pytest
import torch

from MedSAM2Lib.errors import OptionError
from MedSAM2Lib.memory.bank import MemoryBank, RecentBank, Selection
from MedSAM2Lib.memory.entry import MemoryEntry, appearance
from MedSAM2Lib.memory.opening import open_bank
from MedSAM2Lib.memory.options import MEMORIES, SelfSorting
from MedSAM2Lib.memory.self_sorting import (
    SelfSortingBank,
    confidence,
    likeliest_draws,
    mean_similarity,
    most_dissimilar,
    random_draws,
    resampling_probabilities,
    similarities,
    total_dissimilarity,
)

UP, DOWN = 1, -1
MANY = 100  # slices
Direction = tuple[float, float]
EAST, NORTH, WEST, NORTH_EAST = (1.0, 0.0), (0.0, 1.0), (-1.0, 0.0), (1.0, 1.0)
PLAIN = SelfSorting(capacity=2, threshold=0.5, resample="no", sharpness=1.0)


def looking(direction: Direction) -> torch.Tensor:
    """Image features of a slice, (1, 2, 1, 1)."""
    return torch.tensor(direction).view(1, 2, 1, 1)


def entry(slice_index: int, direction: Direction = EAST, iou: float = 0.9, present: bool = True) -> MemoryEntry:
    """Its map and its looks both point in a direction."""
    vector = looking(direction)
    score = torch.tensor([100.0 if present else -100.0])
    return MemoryEntry(slice_index, vector, torch.zeros(1, 2), torch.tensor([iou]), score, appearance=appearance(vector))


def a_bank(rule: SelfSorting = PLAIN, *tracked: MemoryEntry, direction: int = UP) -> SelfSortingBank:
    """After slice 10 was prompted, which looks north."""
    bank = SelfSortingBank(RecentBank(slots=7, max_pointers=16), rule)
    bank.add_conditioning(entry(10, NORTH))
    for one in tracked:
        bank.insert(one, direction)
    return bank


def shown(selection: Selection) -> list[int]:
    """Slices of the tracked maps."""
    return [one.slice_index for one, _ in selection.maps if one.slice_index != 10]


def seen_from(bank: MemoryBank, slice_index: int = 40, direction: Direction = EAST, going: int = UP) -> list[int]:
    return shown(bank.select(slice_index, going, MANY, looking(direction)))


# ── equations ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def rows(*directions: Direction) -> torch.Tensor:
    return torch.tensor(directions)


def test_similarity_is_the_cosine() -> None:
    expected = torch.tensor([1.0, 0.0, -1.0, sqrt(0.5)])
    torch.testing.assert_close(similarities(torch.tensor(EAST), rows((3.0, 0.0), NORTH, WEST, NORTH_EAST)), expected)


def test_total_dissimilarity_sums_over_the_others() -> None:
    # east-north 1, east-west 2, north-west 1
    torch.testing.assert_close(total_dissimilarity(rows(EAST, NORTH, WEST)), torch.tensor([3.0, 2.0, 3.0]))


def test_mean_similarity_is_that_of_every_two() -> None:
    assert mean_similarity(rows(EAST, NORTH, WEST)) == pytest.approx(-1 / 3)  # 0, -1 and 0
    assert mean_similarity(rows(EAST)) == 1


def test_length_is_no_dissimilarity() -> None:
    torch.testing.assert_close(total_dissimilarity(rows(EAST, (5.0, 0.0))), torch.zeros(2))


def test_the_most_dissimilar_stay_in_their_order() -> None:
    assert most_dissimilar(rows(EAST, NORTH, WEST), 2) == [0, 2]
    assert most_dissimilar(rows(EAST, NORTH, WEST), 5) == [0, 1, 2]


def test_of_equal_ones_the_first_stay() -> None:
    assert most_dissimilar(rows(EAST, EAST, EAST), 2) == [0, 1]


def test_rows_that_stay_always_count_among_the_others() -> None:
    # Without the first row, east (1) is as far from north (1) as north from east; beside west, east is further.
    assert most_dissimilar(rows(WEST, NORTH, EAST), 1, always=1) == [2]
    assert most_dissimilar(rows(NORTH, EAST), 1) == [0]


def test_resampling_follows_similarity() -> None:
    # cosines 1, 0 and sqrt(1/2)
    expected = torch.tensor([1.0, 0.0, sqrt(0.5)]) / (1 + sqrt(0.5))
    found = resampling_probabilities(torch.tensor(EAST), rows(EAST, NORTH, NORTH_EAST))
    torch.testing.assert_close(found, expected)


def test_sharpness_is_a_power() -> None:
    found = resampling_probabilities(torch.tensor(EAST), rows(EAST, NORTH_EAST), sharpness=2.0)
    torch.testing.assert_close(found, torch.tensor([2 / 3, 1 / 3]))


def test_what_points_away_is_not_drawn_unless_all_do() -> None:
    towards = torch.tensor(EAST)
    torch.testing.assert_close(resampling_probabilities(towards, rows(EAST, WEST)), torch.tensor([1.0, 0.0]))
    torch.testing.assert_close(resampling_probabilities(towards, rows(WEST, WEST)), torch.tensor([0.5, 0.5]))


@pytest.mark.parametrize(
    ("probabilities", "expected"),
    [
        ((0.25, 0.25, 0.25, 0.25), [0, 1, 2, 3]),
        ((0.4, 0.35, 0.25), [0, 1, 2]),  # six orders of .035 make .21; of 0 0 1 there are three of .056, .168
        ((0.5, 0.3, 0.2), [0, 0, 1]),  # three of .075, .225, against six of .03, .18
        ((0.0, 1.0), [1, 1]),
    ],
)
def test_the_likeliest_draws(probabilities: tuple[float, ...], expected: list[int]) -> None:
    assert likeliest_draws(torch.tensor(probabilities), len(probabilities)) == expected


def test_no_outcome_is_likelier_than_the_likeliest() -> None:
    probabilities = torch.rand(4, generator=torch.Generator().manual_seed(0))
    multinomial = torch.distributions.Multinomial(5, probabilities)

    def likelihood(rows: tuple[int, ...]) -> float:
        return float(multinomial.log_prob(torch.bincount(torch.tensor(rows), minlength=4)))

    outcomes = combinations_with_replacement(range(4), 5)
    assert tuple(likeliest_draws(probabilities, 5)) == max(outcomes, key=likelihood)


def test_random_draws_come_as_often_as_they_are_probable() -> None:
    drawn = random_draws(torch.tensor([0.1, 0.0, 0.9]), 2000, torch.Generator().manual_seed(0))
    assert drawn.count(1) == 0
    assert drawn.count(2) / 2000 == pytest.approx(0.9, abs=0.03)


def test_random_draws_repeat_with_their_seed() -> None:
    even = torch.full((6,), 1 / 6)
    first, second, other = (random_draws(even, 6, torch.Generator().manual_seed(seed)) for seed in (3, 3, 4))
    assert first == second != other


# ── admission ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_confidence_is_nothing_where_the_object_is_absent() -> None:
    assert confidence(entry(1, iou=0.8)) == pytest.approx(0.8)
    assert confidence(entry(1, iou=0.8, present=False)) == pytest.approx(0.0)


def test_a_slice_at_the_threshold_is_admitted_and_one_below_is_not() -> None:
    rule = replace(PLAIN, threshold=0.5, fill=False)
    assert seen_from(a_bank(rule, entry(11, iou=0.5), entry(12, iou=0.49))) == [11]


def test_slices_below_the_threshold_fill_an_empty_bank_but_replace_nothing() -> None:
    assert seen_from(a_bank(PLAIN, *(entry(index, iou=0.1) for index in (11, 12, 13)))) == [11, 12]


def test_with_nothing_admitted_the_prompted_slice_is_still_seen() -> None:
    bank = a_bank(replace(PLAIN, fill=False), entry(11, iou=0.1))
    assert [(one.slice_index, slot) for one, slot in bank.select(12, UP, MANY, looking(EAST)).maps] == [(10, 6)]


def test_the_most_dissimilar_stay_and_the_prompted_slice_counts() -> None:
    # Of east, north-east and west beside the prompted north: D is 1 + .29 + 2, .29 + .29 + 1.71 and 1 + 1.71 + 2.
    assert seen_from(a_bank(PLAIN, entry(11, EAST), entry(12, NORTH_EAST), entry(13, WEST))) == [11, 13]


def test_a_new_memory_like_the_old_ones_is_the_one_to_go() -> None:
    assert seen_from(a_bank(PLAIN, entry(11, EAST), entry(12, WEST), entry(13, NORTH))) == [11, 12]


def test_by_recency_the_last_confident_ones_stay() -> None:
    rule = replace(PLAIN, keep="recent")
    assert seen_from(a_bank(rule, entry(11, EAST), entry(12, WEST), entry(13), entry(14, iou=0.2))) == [12, 13]


def test_memories_can_be_compared_by_what_their_slices_look_like() -> None:
    looks = {11: EAST, 12: NORTH, 13: WEST}
    same_map = [replace(entry(index, direction), map=looking(EAST)) for index, direction in looks.items()]
    assert seen_from(a_bank(replace(PLAIN, compare="appearance"), *same_map)) == [11, 13]
    assert seen_from(a_bank(PLAIN, *same_map)) == [11, 12]


def test_capacity_is_what_the_network_was_trained_to_see_unless_given() -> None:
    many = [entry(index) for index in range(11, 30)]
    assert len(seen_from(a_bank(replace(PLAIN, capacity=None), *many))) == 6
    assert len(seen_from(a_bank(replace(PLAIN, capacity=12), *many))) == 12


# ── what a slice sees ─────────────────────────────────────────────────────────────────────────────────────────────────


def test_both_directions_fill_one_memory() -> None:
    bank = a_bank(PLAIN, entry(11, EAST))
    bank.insert(entry(9, WEST), DOWN)
    assert seen_from(bank, 12, going=UP) == seen_from(bank, 8, going=DOWN) == [11, 9]


def test_pointers_are_those_of_the_last_slices_as_in_sam_2() -> None:
    bank = a_bank(PLAIN, entry(11), entry(12), entry(13, iou=0.1))
    bank.insert(entry(9), DOWN)
    pointers = bank.select(14, UP, MANY, looking(EAST)).pointers
    assert [(one.slice_index, distance) for one, distance in pointers] == [(10, 4), (13, 1), (12, 2), (11, 3)]


def test_temporal_slots_are_distances_up_to_the_last_one_but_that_of_prompts() -> None:
    bank = a_bank(replace(PLAIN, capacity=3), entry(11), entry(14), entry(17))
    selection = bank.select(18, UP, MANY, looking(EAST))
    assert [(one.slice_index, slot) for one, slot in selection.maps] == [(10, 6), (11, 5), (14, 3), (17, 0)]


def test_images_without_order_are_all_as_prompted() -> None:
    selection = a_bank(replace(PLAIN, slots="timeless"), entry(11), entry(39)).select(40, UP, MANY, looking(EAST))
    assert {slot for _, slot in selection.maps} == {6}


def test_a_slice_does_not_see_itself() -> None:
    assert seen_from(a_bank(PLAIN, entry(11), entry(12)), 12) == [11]


def test_a_memory_like_the_slice_is_seen_twice_and_one_that_points_away_not_at_all() -> None:
    bank = a_bank(replace(PLAIN, resample="likeliest"), entry(11, EAST), entry(12, WEST))
    assert seen_from(bank, direction=EAST) == [11, 11]
    assert seen_from(bank, direction=WEST) == [12, 12]


def test_sharpness_decides_how_much_more_a_like_memory_counts() -> None:
    bank = a_bank(replace(PLAIN, resample="likeliest"), entry(11, EAST), entry(12, NORTH_EAST))
    assert seen_from(bank, direction=EAST) == [11, 12]
    bank.rule = replace(bank.rule, sharpness=4.0)
    assert seen_from(bank, direction=EAST) == [11, 11]


def test_chance_depends_on_the_seed_and_the_slice_alone() -> None:
    fan = [entry(10 + step, (1.0, step / 10)) for step in range(1, 7)]

    def draws(seed: int) -> list[list[int]]:
        bank = a_bank(SelfSorting(resample="random", seed=seed), *fan)
        return [seen_from(bank, index) for index in (20, 21)]

    first = draws(0)
    assert first == draws(0)
    assert first[0] != first[1]
    assert first != draws(1)
    bank = a_bank(SelfSorting(resample="random"), *fan)
    seen_from(bank, 33)
    assert [seen_from(bank, index) for index in (21, 20)] == first[::-1]


# ── the life of a bank ────────────────────────────────────────────────────────────────────────────────────────────────


def test_prompted_slices_are_always_kept_and_take_the_place_of_tracked_ones() -> None:
    bank = a_bank(PLAIN, entry(11, EAST), entry(12, WEST))
    for index in (12, 20, 21, 22):
        bank.add_conditioning(entry(index))
    assert [one.slice_index for one, _ in bank.select(13, UP, MANY, looking(EAST)).maps] == [10, 12, 20, 21, 22, 11]


def test_a_new_pass_forgets_only_its_own_direction() -> None:
    bank = a_bank(PLAIN, entry(11))
    bank.insert(entry(9), DOWN)
    bank.forget_tracked(UP)
    assert seen_from(bank) == [9]


def test_a_forgotten_slice_is_seen_no_more() -> None:
    bank = a_bank(PLAIN, entry(11), entry(12))
    bank.forget(11)
    bank.forget(10)
    assert [one.slice_index for one, _ in bank.select(13, UP, MANY, looking(EAST)).maps] == [12]


def test_a_slice_tracked_again_is_judged_again() -> None:
    assert seen_from(a_bank(replace(PLAIN, fill=False), entry(11), entry(12), entry(12, iou=0.1))) == [11]


def test_a_memory_seen_through_another_view_keeps_its_place_and_direction() -> None:
    bank = a_bank(PLAIN, entry(11, EAST), entry(12, EAST))
    bank.insert(entry(9, EAST), DOWN)
    other = replace(entry(11, NORTH), iou=torch.zeros(1))
    bank.renew(other)
    assert bank.tracked[11] == (other, UP)
    bank.renew(entry(50))
    assert 50 not in bank.tracked


def test_a_bank_can_be_put_back_as_it_was_whatever_came_and_went() -> None:
    bank = a_bank(PLAIN, entry(11, EAST), entry(12, WEST), entry(13, NORTH))
    bank.insert(entry(9, EAST, iou=0.1), DOWN)
    bank.add_conditioning(entry(12, NORTH_EAST))
    again = SelfSortingBank(RecentBank(slots=7, max_pointers=16), PLAIN)
    for prompted in bank.conditioning.values():
        again.add_conditioning(prompted)
    for remembered in bank.tracked_entries():
        again.put_back(*remembered)
    assert again == bank


@pytest.mark.parametrize("memory", MEMORIES)
def test_every_rule_opens_empty_and_its_copy_changes_alone(memory: str) -> None:
    bank = open_bank(memory, 7, 16)  # type: ignore[arg-type]
    assert bank.select(3, UP, MANY, looking(EAST)) == Selection([], [])
    bank.add_conditioning(entry(1))
    bank.insert(entry(2), UP)
    copy = bank.copy()
    copy.insert(entry(3), UP)
    copy.forget(1)
    assert type(copy) is type(bank)
    assert set(seen_from(bank, 4)) == {1, 2}
    assert 1 not in seen_from(copy, 4)


@pytest.mark.parametrize(
    "changes",
    [{"capacity": 0}, {"threshold": 1.1}, {"threshold": -0.1}, {"sharpness": 0.0}, {"keep": "best"}, {"resample": "yes"},
     {"compare": "mask"}, {"slots": "none"}],
)  # fmt: skip
def test_a_rule_that_cannot_be_followed_is_refused(changes: dict[str, object]) -> None:
    with pytest.raises(OptionError, match="memory's"):
        SelfSorting(**changes)  # type: ignore[arg-type]
