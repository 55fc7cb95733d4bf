"""In which order slices are visited."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from MedSAM2Lib.inference.order import outward, surroundings


def test_slices_nearest_to_the_prompt_come_first_both_directions_in_turns() -> None:
    assert list(outward([2], 0, 5)) == [(3, 1), (1, -1), (4, 1), (0, -1), (5, 1)]


@pytest.mark.parametrize(("prompted", "steps"), [(0, [(1, 1), (2, 1)]), (2, [(1, -1), (0, -1)])])
def test_from_an_end_there_is_one_direction(prompted: int, steps: list[tuple[int, int]]) -> None:
    assert list(outward([prompted], 0, 2)) == steps


def test_between_two_prompts_the_passes_meet_halfway() -> None:
    steps = list(outward([8, 2], 0, 10))
    assert [index for index, direction in steps if direction == 1] == [3, 4, 5, 9, 10]
    assert [index for index, direction in steps if direction == -1] == [7, 6, 1, 0]


def test_a_range_may_leave_the_prompt_out() -> None:
    assert list(outward([2], 5, 7)) == [(5, 1), (6, 1), (7, 1)]
    assert list(outward([9], 5, 7)) == [(7, -1), (6, -1), (5, -1)]


@pytest.mark.parametrize("prompted", [[], [0], [3, 4, 5]])
def test_there_may_be_nothing_to_do(prompted: list[int]) -> None:
    first, last = (min(prompted), max(prompted)) if prompted else (0, 4)
    assert list(outward(prompted, first, last)) == []


@settings(derandomize=True, deadline=None, database=None)
@given(st.sets(st.integers(0, 30), min_size=1), st.integers(0, 30), st.integers(0, 30))
def test_every_other_slice_of_the_range_is_visited_once_going_away_from_a_prompt(
    prompted: set[int], one_end: int, other_end: int
) -> None:
    first, last = sorted((one_end, other_end))
    steps = list(outward(prompted, first, last))
    assert sorted(index for index, _ in steps) == sorted(set(range(first, last + 1)) - prompted)
    for index, direction in steps:
        behind = [start for start in prompted if (index - start) * direction > 0]
        assert behind
        nearest = min(abs(index - start) for start in behind)
        assert nearest <= min(abs(index - start) for start in prompted) + 1  # the middle of two goes to the lower one


@settings(derandomize=True, deadline=None, database=None)
@given(st.sets(st.integers(0, 30), min_size=1), st.integers(0, 30), st.integers(0, 30))
def test_a_slice_comes_after_the_one_before_it_in_its_direction(prompted: set[int], one_end: int, other_end: int) -> None:
    first, last = sorted((one_end, other_end))
    done: set[tuple[int, int]] = set()
    steps = list(outward(prompted, first, last))
    for index, direction in steps:
        before = index - direction
        assert before in prompted or (before, direction) in done or not first <= before <= last
        done.add((index, direction))


def test_a_slice_that_the_object_is_not_on_is_reached_from_one_that_shows_it() -> None:
    steps = list(outward([2, 8], 0, 10, absent=[8]))
    assert [index for index, direction in steps if direction == 1] == [3, 4, 5, 6, 7, 9, 10]
    assert [index for index, direction in steps if direction == -1] == [1, 0]
    assert [index for index, direction in outward([2, 8], 3, 7, absent=[2, 8]) if direction == -1] == [7, 6]


def test_no_pass_starts_from_a_wall_or_goes_beyond_it() -> None:
    assert list(outward([5], 0, 10, walls=[3, 8])) == [(6, 1), (4, -1), (7, 1)]
    assert list(outward([], 0, 10, walls=[3])) == []


@pytest.mark.parametrize(
    ("index", "anchors", "around"),
    [(5, {2, 8}, [3, 4, 6, 7]), (5, {4}, [6, 7, 8, 9]), (0, set(), [*range(1, 10)]), (5, {4, 6}, [])],
)
def test_what_is_said_on_a_slice_matters_as_far_as_the_nearest_anchors(index: int, anchors: set[int], around: list[int]) -> None:
    assert surroundings(index, anchors, 10) == around


@settings(derandomize=True, deadline=None, database=None)
@given(st.sets(st.integers(0, 30), min_size=1), st.sets(st.integers(0, 30)), st.sets(st.integers(0, 30)))
def test_every_slice_is_visited_once_whatever_is_in_between(prompted: set[int], absent: set[int], walls: set[int]) -> None:
    walls -= prompted
    steps = list(outward(prompted, 0, 30, absent=absent & prompted, walls=walls))
    visited = [index for index, _ in steps]
    assert len(visited) == len(set(visited))
    assert not set(visited) & (prompted | walls)
    for index, direction in steps:  # the pass comes from a prompted slice, with no anchor in between
        behind = [anchor for anchor in prompted | walls if (index - anchor) * direction > 0]
        assert min(behind, key=lambda anchor: abs(index - anchor)) in prompted
