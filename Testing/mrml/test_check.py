"""Other directions are asked whether they see the same object: figures for each slice, and nothing else changes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

pytest.importorskip("slicer", reason="needs the slicer-core wheel")

from MedSAM2Lib.errors import UsageError
from MedSAM2SlicerLib.SegmentationLogic import SegmentationLogic
from MedSAM2SlicerLib.Speed import Speed
from Testing.mrml.engine import InProcessEngine
from Testing.mrml.support import add_markups, add_roi, box_around, mask_of, rotation, turn, view, world_of


@pytest.fixture
def followed(scene: Any, a_logic: Any, a_volume: Any, finish: Callable[[], None], the_kidney: Any) -> Any:
    """The logic, with the kidney followed through its slices."""
    a_logic.addObject("kidney")
    view(scene).SetSliceOffset(world_of(a_volume, [(0, 0, 8)])[0, 2])
    a_logic.addPrompt("kidney", box_around(scene, a_volume, the_kidney, 8), view(scene))
    with pytest.raises(UsageError, match="follow the object"):
        a_logic.check("kidney")
    a_logic.propagate()
    finish()
    return a_logic


def agreements(logic: Any) -> dict[int, float]:
    return {mark.index: mark.agreement for mark in logic.timeline("kidney") if mark.agreement is not None}


def test_directions_agree_on_a_bright_thing_and_masks_and_history_stay(
    followed: Any, finish: Callable[[], None], an_engine: InProcessEngine
) -> None:
    mask, steps = mask_of(followed, "kidney"), len(followed._current.steps)
    told = []
    followed.onProgress.connect(told.append)
    followed.check("kidney")
    assert (followed.isChecking, followed.isPropagating) == (True, True)
    with pytest.raises(UsageError, match="A check is running"):
        followed.lock("kidney", [8])
    finish()
    found = agreements(followed)
    assert set(found) >= {mark.index for mark in followed.timeline("kidney") if mark.present}
    assert min(found[index] for index in range(6, 11)) > 0.8
    np.testing.assert_array_equal(mask_of(followed, "kidney"), mask)
    assert (len(followed._current.steps), followed.messages, len(an_engine.sessions)) == (steps, [], 1)
    assert {(progress.part, progress.parts) for progress in told} <= {(0, 2), (1, 2)}


def test_what_changes_is_not_checked_any_more_and_undo_brings_its_check_back(
    scene: Any, followed: Any, finish: Callable[[], None], a_volume: Any
) -> None:
    followed.check("kidney")
    finish()
    before = agreements(followed)
    view(scene).SetSliceOffset(world_of(a_volume, [(0, 0, 9)])[0, 2])
    corners = world_of(a_volume, [(10, 11, 9), (14, 11, 9), (14, 15, 9), (10, 15, 9)])
    followed.addPrompt("kidney", add_markups(scene, "ClosedCurve", corners), view(scene))
    finish()
    assert set(before) - set(agreements(followed)) == {9}
    followed.undo()
    finish()
    assert agreements(followed) == before


def test_a_check_that_is_cancelled_leaves_no_figures_and_no_sessions(
    followed: Any, finish: Callable[[], None], an_engine: InProcessEngine
) -> None:
    followed.check("kidney")
    while an_engine.requests[-1].method != "propagate":
        followed.poll(0)
    followed.cancel()
    finish()
    assert (agreements(followed), followed.isBusy, len(an_engine.sessions)) == ({}, False, 1)


def test_figures_are_saved_with_the_scene(scene: Any, followed: Any, finish: Callable[[], None], an_engine: Any) -> None:
    followed.check("kidney")
    finish()
    before = agreements(followed)
    followed.close()
    again = SegmentationLogic(scene, an_engine)
    assert agreements(again) == before
    again.close()


def test_an_oblique_object_is_checked_across_its_own_slices(
    scene: Any, a_logic: Any, a_volume: Any, finish: Callable[[], None]
) -> None:
    middle = world_of(a_volume, [(12, 13, 8)])[0]
    axes = rotation((1, 0, 0), 20) @ np.diag([-1.0, 1, 1])
    turn(view(scene), axes, middle)
    matrix = np.eye(4)
    matrix[:3, :3], matrix[:3, 3] = axes * (-1, 1, 1), middle
    a_logic.addObject("kidney")
    a_logic.addPrompt("kidney", add_roi(scene, matrix, (16, 16, 0.5)), view(scene))
    a_logic.propagate()
    finish()
    a_logic.check("kidney")
    finish()
    assert a_logic.messages == []
    found = agreements(a_logic)
    assert max(found.values()) > 0.8


def test_a_step_of_many_slices_is_undone_in_pieces_and_whole_when_nobody_waits(
    followed: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    session, mask = followed._current, mask_of(followed, "kidney")
    patch = session.steps[-1].patches[0]
    before = mask.copy()
    before[patch.box] = patch.changes[0].before()
    assert not np.array_equal(before, mask)
    monkeypatch.setattr("MedSAM2SlicerLib.VolumeSession._SLAB_VOXELS", 1)
    step = session.begin("again", None)
    step.patches = [patch, patch]
    session.end(step)
    assert len(session.steps[-1].patches) > 2
    pieces = session.takingBack()
    next(pieces)
    pieces.close()
    assert session.undone[-1] is step
    np.testing.assert_array_equal(mask_of(followed, "kidney"), before)
    for _ in session.doingAgain():
        pass
    np.testing.assert_array_equal(mask_of(followed, "kidney"), mask)


def test_speed_is_that_of_the_last_seconds() -> None:
    speed = Speed()
    for done in range(1, 6):  # arrived together after a stall
        speed.note(done, 0.001 * done)
    assert speed.perSecond == 0
    for done in range(6, 26):
        speed.note(done, 0.5 * (done - 5))
    assert speed.perSecond == pytest.approx(2, rel=0.1)
    speed.note(26, 40.0)  # a stall of 30 seconds
    assert speed.perSecond < 0.4
    for done in range(27, 30):
        speed.note(done, 40 + 0.001 * done)
    assert speed.perSecond < 0.5
    speed.note(1, 50.0)
    assert speed.perSecond == 0
