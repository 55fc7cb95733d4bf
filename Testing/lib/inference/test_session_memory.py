"""A session under every rule of memory."""

from __future__ import annotations

from dataclasses import asdict, replace

import numpy as np
import pytest

from MedSAM2Lib.checkpoints.loading import LoadedModel
from MedSAM2Lib.errors import OptionError
from MedSAM2Lib.inference.session import Session, SessionOptions
from MedSAM2Lib.memory.options import MEMORIES, Memory, SelfSorting
from MedSAM2Lib.prompts import Box
from MedSAM2Lib.volume import Volume
from Testing.lib.inference.support import PLAIN, Mask, box_around, dice, opened

MIDDLE = 12
LITTLE_ROOM = SelfSorting(capacity=3, threshold=0.0)
EVERY_RULE = (*MEMORIES, LITTLE_ROOM)


def segmented(model: LoadedModel, volume: Volume, box: Box, options: SessionOptions) -> Session:
    session = opened(model, volume, options)
    session.add_prompt("ball", box)
    for _ in session.propagate():
        pass
    return session


@pytest.mark.parametrize("memory", EVERY_RULE)
def test_an_object_is_followed_to_its_ends(
    a_seeing_model: LoadedModel, a_volume: Volume, the_truth: Mask, memory: Memory
) -> None:
    box = box_around(the_truth[MIDDLE], MIDDLE)
    session = segmented(a_seeing_model, a_volume, box, replace(PLAIN, memory=memory))
    assert dice(session.mask("ball"), the_truth) > 0.9


@pytest.mark.parametrize("memory", ["self-sorting-random", LITTLE_ROOM])
def test_two_runs_are_equal_and_so_is_a_second_pass(
    a_model: LoadedModel, a_volume: Volume, the_truth: Mask, memory: Memory
) -> None:
    box = box_around(the_truth[MIDDLE], MIDDLE)
    first, second = (segmented(a_model, a_volume, box, replace(PLAIN, memory=memory)) for _ in range(2))
    np.testing.assert_array_equal(first.mask("ball"), second.mask("ball"))
    before = first.mask("ball")
    for _ in first.propagate():
        pass
    np.testing.assert_array_equal(first.mask("ball"), before)


def test_memories_of_a_narrower_view_are_made_anew(a_seeing_model: LoadedModel, a_volume: Volume, the_truth: Mask) -> None:
    end = int(np.flatnonzero(the_truth.any((1, 2)))[0])
    box = box_around(the_truth[end], end)
    session = segmented(a_seeing_model, a_volume, box, replace(PLAIN, memory=LITTLE_ROOM, zoom=1.2))
    assert dice(session.mask("ball"), the_truth) > 0.9  # it grows beyond the first view


def test_the_rule_changes_what_is_remembered(a_model: LoadedModel, a_volume: Volume, the_truth: Mask) -> None:
    box = box_around(the_truth[MIDDLE], MIDDLE)
    recent, sorted_ = (
        segmented(a_model, a_volume, box, replace(PLAIN, memory=memory)).confidence("ball") for memory in ("recent", LITTLE_ROOM)
    )
    assert recent[MIDDLE] == sorted_[MIDDLE]
    assert recent != sorted_


def test_a_saved_session_remembers_what_it_did(a_model: LoadedModel, a_volume: Volume, the_truth: Mask) -> None:
    options = replace(PLAIN, memory=LITTLE_ROOM)
    first = segmented(a_model, a_volume, box_around(the_truth[MIDDLE], MIDDLE), options)
    second = opened(a_model, a_volume, options)
    second.restore(first.state())
    for session in (first, second):
        session.add_prompt("ball", box_around(the_truth[MIDDLE], 18))
        for _ in session.propagate():
            pass
    np.testing.assert_array_equal(first.mask("ball"), second.mask("ball"))
    slices = [[entry.slice_index for entry, *_ in session.memory("ball").tracked_entries()] for session in (first, second)]
    assert slices[0] == slices[1]


def test_a_report_tells_the_rule() -> None:
    assert asdict(SessionOptions(memory="self-sorting"))["memory"] == "self-sorting"
    assert asdict(SessionOptions(memory=LITTLE_ROOM))["memory"]["capacity"] == 3


def test_an_unknown_rule_is_refused() -> None:
    with pytest.raises(OptionError, match=r"The memory is one of recent, self-sorting.*'newest' came"):
        SessionOptions(memory="newest")  # type: ignore[arg-type]
