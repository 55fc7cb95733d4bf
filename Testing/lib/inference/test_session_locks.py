"""Locked slices: what a person approved never changes, and passes start from it and stop at it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from MedSAM2Lib.checkpoints.loading import LoadedModel
from MedSAM2Lib.errors import OptionError, PromptError
from MedSAM2Lib.inference.session import Session, SessionOptions
from MedSAM2Lib.prompts import Box, Box3D, MaskPrompt, Points, Prompt, RecistLine
from MedSAM2Lib.volume import Volume
from Testing.lib.inference.support import PLAIN, SHAPE, Mask, box_around, known, opened, volume_of

MIDDLE = 11
BOX = Box(MIDDLE, 12, 14, 30, 34)
CLICK = Points(16, (20.0,), (20.0,), (False,))


@pytest.fixture
def a_session(a_model: LoadedModel, a_volume: Volume) -> Session:
    """Propagated over slices 6..18; slices 8, 9 and 14 are locked."""
    session = opened(a_model, a_volume)
    session.add_prompt("organ", BOX)
    list(session.propagate(first=6, last=18))
    session.lock("organ", [14, 9, 8])
    return session


def painted() -> Mask:
    mask = np.zeros(SHAPE[1:], dtype=bool)
    mask[15:30, 13:28] = True
    return mask


@pytest.mark.parametrize(
    "prompt",
    [
        replace(BOX, slice_index=9),
        replace(CLICK, slice_index=9),
        MaskPrompt(9, painted()),
        RecistLine(9, 14.5, 16.0, 29.0, 31.25),
        Box3D(7, 11, 12, 14, 30, 34),
    ],
    ids=lambda prompt: type(prompt).__name__,
)
def test_a_prompt_on_a_locked_slice_is_refused(a_session: Session, prompt: Prompt) -> None:
    before = known(a_session)
    with pytest.raises(PromptError, match=r"Slice 9 of 'organ' is locked.*unlock it first"):
        a_session.add_prompt("organ", prompt)
    assert known(a_session) == before


def test_nothing_but_removal_changes_a_locked_slice(a_session: Session) -> None:
    locked = a_session.locked("organ")
    assert locked == [8, 9, 14]
    before = a_session.mask("organ")[locked]
    for change in (
        lambda: a_session.add_prompt("organ", CLICK),
        lambda: list(a_session.propagate()),
        lambda: list(a_session.propagate(redo=True)),
        lambda: a_session.add_prompt("organ", Box3D(11, 13, 12, 14, 30, 34)),
        lambda: a_session.remove_prompt("organ", MIDDLE),
        lambda: list(a_session.propagate(redo=True)),
        a_session.undo,
        a_session.undo,
        a_session.undo,
        lambda: setattr(a_session, "options", replace(PLAIN, keep_largest=True, stop_after=1)),
        lambda: list(a_session.propagate(redo=True)),
    ):
        change()
        assert np.array_equal(a_session.mask("organ")[locked], before)


def test_passes_leave_from_locked_slices_and_stop_at_them(a_session: Session) -> None:
    ways = {index: direction for _, (index, direction) in a_session.plan(redo=True)}
    assert {index for index, way in ways.items() if way == 1} == {10, 12, *range(15, 24)}
    assert {index for index, way in ways.items() if way == -1} == {13, *range(8)}


def test_passes_are_conditioned_on_locked_slices(a_session: Session, a_model: LoadedModel, a_volume: Volume) -> None:
    free = opened(a_model, a_volume)
    free.add_prompt("organ", BOX)
    list(free.propagate(first=6, last=18))
    for session in (a_session, free):
        list(session.propagate(redo=True))
    assert {*a_session._objects["organ"].tracker.bank.conditioning} == {8, 9, MIDDLE, 14}
    assert not np.array_equal(a_session.mask("organ")[12], free.mask("organ")[12])


def test_of_many_locked_slices_side_by_side_only_the_outermost_condition(a_session: Session) -> None:
    a_session.lock("organ", range(12, 19))
    list(a_session.propagate(redo=True))
    assert {*a_session._objects["organ"].tracker.bank.conditioning} == {8, 9, MIDDLE, 18}
    a_session.unlock("organ", [15])
    list(a_session.propagate())
    assert {*a_session._objects["organ"].tracker.bank.conditioning} == {8, 9, MIDDLE, 14, 16, 18}


def test_lock_and_unlock_leave_the_memories_as_they_were(a_session: Session, a_model: LoadedModel, a_volume: Volume) -> None:
    free = opened(a_model, a_volume)
    free.add_prompt("organ", BOX)
    list(free.propagate(first=6, last=18))
    a_session.add_prompt("organ", CLICK)  # its pass takes the locked slices among the conditioning ones
    list(a_session.propagate(first=17, last=18))
    a_session.unlock("organ")
    assert a_session.locked("organ") == []
    bank, other = (one._objects["organ"].tracker.bank for one in (a_session, free))
    assert {*bank.conditioning} == {MIDDLE, 16}
    before = {entry.slice_index: entry.map.tolist() for entry, *_ in other.tracked_entries()}
    after = {entry.slice_index: entry.map.tolist() for entry, *_ in bank.tracked_entries()}
    assert all(before[index] == after[index] for index in (8, 9))


def test_unlocked_slices_are_segmented_again(a_session: Session) -> None:
    list(a_session.propagate())
    a_session.unlock("organ", [14, 9, 22])
    assert {index for _, (index, _) in a_session.plan()} == {9, 14}


def test_what_is_locked_is_what_was_shown(a_seeing_model: LoadedModel) -> None:
    """A stray that is nowhere connected is not shown, so it is not locked either, and does not come back."""
    truth = np.zeros((8, 48, 48), dtype=bool)
    truth[1:7, 10:30, 10:30] = True
    truth[4, 38:44, 38:44] = True
    session = opened(a_seeing_model, volume_of(truth), SessionOptions(fill_hole_cells=0))
    session.add_prompt("ball", box_around(truth[2], 2))
    list(session.propagate())
    shown = session.mask("ball")
    assert session.slice_mask("ball", 4)[40, 40]
    assert not shown[4, 40, 40]
    session.lock("ball", [4])
    assert np.array_equal(session.mask("ball"), shown)
    assert np.array_equal(session.slice_mask("ball", 4), shown[4])
    session.options = replace(session.options, keep_largest=False)
    assert np.array_equal(session.mask("ball")[4], shown[4])


def test_an_empty_slice_that_is_locked_stays_empty_and_ends_passes(a_model: LoadedModel, a_volume: Volume) -> None:
    session = opened(a_model, a_volume)
    session.add_prompt("organ", BOX)
    session.lock("organ", [7])
    assert sorted(result.slice_index for result in session.propagate()) == [8, 9, 10, *range(12, 24)]
    assert not session.mask("organ")[:8].any()


def test_a_slice_locked_while_propagation_goes_on_is_passed_over(a_model: LoadedModel, a_volume: Volume) -> None:
    session = opened(a_model, a_volume)
    session.add_prompt("organ", BOX)
    results = session.propagate()
    next(results)
    session.lock("organ", [15])
    assert 15 not in {result.slice_index for result in results}
    assert not session.mask("organ")[15].any()


@pytest.mark.parametrize("slices", [[-1], [24], [2.5], ["3"], [True]])
def test_slices_that_there_are_not_cannot_be_locked(a_session: Session, slices: list[int]) -> None:
    before = known(a_session)
    for call in (a_session.lock, a_session.unlock):
        with pytest.raises(OptionError, match=r"within 0\.\.23"):
            call("organ", slices)
    assert known(a_session) == before


def test_the_prompt_of_a_locked_slice_stays(a_session: Session) -> None:
    a_session.lock("organ", [MIDDLE])
    with pytest.raises(PromptError, match="locked, so its prompt stays"):
        a_session.remove_prompt("organ", MIDDLE)
