"""Steps back and forth: what was there before, and after, bit for bit, in little room."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from MedSAM2Lib.checkpoints.loading import LoadedModel
from MedSAM2Lib.errors import UsageError
from MedSAM2Lib.inference.session import Session
from MedSAM2Lib.memory.options import MEMORIES, Memory
from MedSAM2Lib.prompts import Box, Box3D, MaskPrompt, Points, RecistLine
from MedSAM2Lib.volume import Volume
from Testing.lib.inference.support import PLAIN, Mask, SeesBright, ellipsoid, known, loaded, opened, volume_of
from Testing.lib.network.parity.weights import SMALL

SHAPE = (8, 20, 24)
BOX = Box(3, 5, 6, 14, 13)
CLICK = Points(5, (9.0,), (9.0,), (True,))


@pytest.fixture(scope="module")
def a_small_volume() -> Volume:
    return volume_of(ellipsoid(SHAPE))


@pytest.fixture
def a_session(a_model: LoadedModel, a_small_volume: Volume) -> Session:
    return opened(a_model, a_small_volume)


def painted() -> Mask:
    mask = np.zeros(SHAPE[1:], dtype=bool)
    mask[5:9, 6:11] = True
    return mask


# Each changes something, one after the other.
STEPS: list[tuple[str, Callable[[Session], Any]]] = [
    ("box on slice 3 of liver", lambda s: s.add_prompt("liver", BOX)),
    ("propagation", lambda s: list(s.propagate())),
    ("click on slice 5 of liver", lambda s: s.add_prompt("liver", CLICK)),
    ("propagation", lambda s: [next(one) for one in [s.propagate()]]),  # cancelled after a slice
    ("propagation", lambda s: list(s.propagate())),
    ("lock of 2 slices of liver", lambda s: s.lock("liver", [1, 2])),
    ("mask on slice 2 of cyst", lambda s: s.add_prompt("cyst", MaskPrompt(2, painted()))),
    ("line on slice 6 of cyst", lambda s: s.add_prompt("cyst", RecistLine(6, 4, 4, 12, 4))),
    ("3D box on slice 4 of cyst", lambda s: s.add_prompt("cyst", Box3D(3, 5, 5, 6, 14, 13))),
    ("removal of the prompts on slice 2 of cyst", lambda s: s.remove_prompt("cyst", 2)),
    ("unlock of slice 1 of liver", lambda s: s.unlock("liver", [1])),
    ("renaming of cyst to node", lambda s: s.rename_object("cyst", "node")),
    ("removal of liver", lambda s: s.remove_object("liver")),
    ("reset", lambda s: s.reset()),
]


def told(session: Session) -> list[dict[str, Any]]:
    """Does all steps; what was known before each, and at the end."""
    moments = [known(session)]
    for _, step in STEPS:
        step(session)
        moments.append(known(session))
    return moments


def test_every_step_can_be_undone_and_done_again(a_session: Session) -> None:
    moments = told(a_session)
    assert not a_session.can_redo
    for label, _ in reversed(STEPS):
        assert known(a_session) == moments.pop()
        assert (a_session.can_undo, a_session.undo_label) == (True, label)
        a_session.undo()
        assert a_session.redo_label == label
    assert known(a_session) == moments[0] == {}
    assert (a_session.can_undo, a_session.undo_label) == (False, "")
    for _ in STEPS:
        a_session.redo()
    assert known(a_session) == {}
    a_session.undo()
    assert a_session.objects == ["node"]


def test_what_follows_an_undo_and_a_redo_is_what_would_have_followed(
    a_session: Session, a_model: LoadedModel, a_small_volume: Volume
) -> None:
    calm = opened(a_model, a_small_volume)
    for session in (a_session, calm):
        session.add_prompt("liver", BOX)
        list(session.propagate())
        session.add_prompt("liver", CLICK)
    for _ in range(3):
        a_session.undo()
    for _ in range(3):
        a_session.redo()
    for session in (a_session, calm):
        session.add_prompt("liver", Points(7, (9.0,), (9.0,), (False,)))  # looks at the memories of the slices before
        list(session.propagate())
    assert known(a_session) == known(calm)


@pytest.mark.parametrize("memory", MEMORIES)
def test_memories_that_were_dropped_are_made_again(a_model: LoadedModel, a_small_volume: Volume, memory: Memory) -> None:
    session, calm = (opened(a_model, a_small_volume, replace(PLAIN, memory=memory)) for _ in range(2))
    for one in (session, calm):
        one.add_prompt("liver", BOX)
        list(one.propagate())
    list(session.propagate(redo=True))
    session.undo()
    memories = list(session._objects["liver"].memories())
    assert {memory.slice_index for memory in memories if memory._made is not None} == {3}  # the prompt's, which both passes have
    correction = Points(6, (9.0,), (9.0,), (True,))
    assert np.array_equal(session.add_prompt("liver", correction).mask, calm.add_prompt("liver", correction).mask)


def test_an_undo_says_which_slices_changed(a_session: Session) -> None:
    a_session.add_prompt("liver", BOX)
    assert a_session.undo() == {"liver": [3]}
    assert a_session.redo() == {"liver": [3]}
    done = sorted(result.slice_index for result in a_session.propagate(first=2, last=4) if result.mask.any())
    assert done == [2, 4]
    assert a_session.undo() == {"liver": [2, 4]}
    a_session.lock("liver", [3])
    assert a_session.undo() == {}


def test_another_step_forgets_what_was_undone(a_session: Session) -> None:
    a_session.add_prompt("liver", BOX)
    a_session.undo()
    a_session.add_prompt("cyst", BOX)
    with pytest.raises(UsageError, match="nothing to redo"):
        a_session.redo()


def test_there_may_be_nothing_to_undo(a_session: Session, a_small_volume: Volume) -> None:
    with pytest.raises(UsageError, match="nothing to undo"):
        a_session.undo()
    a_session.add_prompt("liver", BOX)
    a_session.set_volume(a_small_volume, "j", "0:255")
    assert not a_session.can_undo


def test_what_changes_nothing_is_no_step(a_session: Session) -> None:
    a_session.add_prompt("liver", BOX)
    list(a_session.propagate())
    a_session.lock("liver", [2])
    for nothing in (
        lambda: a_session.lock("liver", [2]),
        lambda: a_session.unlock("liver", [5]),
        lambda: a_session.rename_object("liver", "liver"),
        lambda: list(a_session.propagate()),
    ):
        nothing()
        assert a_session.undo_label == "lock of slice 2 of liver"


def test_an_undo_ends_a_propagation_that_goes_on(a_session: Session) -> None:
    a_session.add_prompt("liver", BOX)
    results = a_session.propagate()
    next(results)
    a_session.undo()
    assert list(results) == []
    assert list(a_session.confidence("liver")) == [3]


def test_another_propagation_ends_one_that_goes_on(a_session: Session) -> None:
    a_session.add_prompt("liver", BOX)
    first = a_session.propagate()
    next(first)
    second = a_session.propagate()
    next(second)
    assert list(first) == []
    assert len(list(second)) == 5


def test_what_is_done_meanwhile_is_a_step_of_its_own(a_session: Session) -> None:
    a_session.add_prompt("liver", BOX)
    results = a_session.propagate()
    next(results)
    a_session.add_prompt("cyst", BOX)
    list(results)
    labels = []
    while a_session.can_undo:
        labels.append(a_session.undo_label)
        a_session.undo()
    assert labels == ["propagation", "box on slice 3 of cyst", "propagation", "box on slice 3 of liver"]


# ── room ──────────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("image_size", [64, 128, 256], ids=["half as wide", "as wide", "twice as wide"])
def test_a_propagation_takes_less_than_two_bits_a_voxel(image_size: int) -> None:
    """The network's image beside the slices: of 512 pixels, nano's is a quarter as wide, SAM 2's twice."""
    truth = ellipsoid((12, 128, 128))
    session = opened(loaded(SeesBright, replace(SMALL, image_size=image_size)), volume_of(truth))
    session.add_prompt("ball", Box(6, 30, 30, 90, 90))
    list(session.propagate())
    assert session.history_bytes == 0  # everything is in use
    list(session.propagate(redo=True))
    bits = 8 * session.history_bytes / truth.size
    assert 0.1 < bits < 2
    list(session.propagate(first=5, last=7, redo=True))
    assert 8 * session.history_bytes / truth.size < 1.3 * bits  # slices that were left alone are shared


def test_logits_are_packed_while_only_the_history_holds_them() -> None:
    session = opened(loaded(SeesBright, replace(SMALL, image_size=256)), volume_of(ellipsoid((6, 64, 64))))
    session.add_prompt("ball", Box(3, 15, 15, 45, 45))
    list(session.propagate())
    before = known(session)
    list(session.propagate(redo=True))
    after, packed = known(session), session.history_bytes
    session.undo()
    assert session.history_bytes < 1.1 * packed  # of what can be done again
    assert known(session) == before
    session.redo()
    assert session.history_bytes == packed
    assert known(session) == after


def test_history_holds_no_maps(a_session: Session) -> None:
    a_session.add_prompt("liver", BOX)
    list(a_session.propagate())
    list(a_session.propagate(redo=True))
    before = [memory for target in a_session._ledger.history.newest.objects.values() for memory in target.memories()]  # type: ignore[union-attr]
    now = {id(memory) for memory in a_session._objects["liver"].memories()}
    assert len(before) == 8
    assert all(memory._made is None for memory in before if id(memory) not in now)


def test_beyond_its_budget_the_oldest_steps_are_dropped(a_model: LoadedModel, a_small_volume: Volume) -> None:
    session = opened(a_model, a_small_volume)
    session.add_prompt("liver", BOX)
    list(session.propagate())
    list(session.propagate(redo=True))
    one_run = session.history_bytes
    tight = opened(a_model, a_small_volume, replace(PLAIN, history_bytes=2 * one_run))
    tight.add_prompt("liver", BOX)
    for _ in range(4):
        list(tight.propagate(redo=True))
        assert tight.history_bytes <= 2 * one_run
    steps = 0
    while tight.can_undo:
        tight.undo()
        steps += 1
    assert steps == 2
    assert np.array_equal(tight.mask("liver"), session.mask("liver"))
