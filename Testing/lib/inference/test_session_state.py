"""A session saved and taken up again: the same masks at once, and the same as ever from then on."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from MedSAM2Lib.checkpoints.loading import LoadedModel
from MedSAM2Lib.errors import StateError, UsageError
from MedSAM2Lib.inference.session import Session
from MedSAM2Lib.memory.options import MEMORIES, Memory
from MedSAM2Lib.network.sam2 import SAM2
from MedSAM2Lib.prompts import Box, Box3D, MaskPrompt, Points, RecistLine
from MedSAM2Lib.volume import Volume
from Testing.lib.inference.support import PLAIN, Mask, ellipsoid, known, loaded, opened, signed, volume_of

SHAPE = (8, 20, 24)
BOX = Box(3, 5, 6, 14, 13)
CLOSE = replace(PLAIN, zoom=1.2)


@pytest.fixture(scope="module")
def a_small_volume() -> Volume:
    return volume_of(ellipsoid(SHAPE))


def painted() -> Mask:
    mask = np.zeros(SHAPE[1:], dtype=bool)
    mask[5:9, 6:11] = True
    return mask


def told(session: Session) -> Session:
    """Three objects: one corrected while its propagation goes on, locked and undone; one with every kind of prompt."""
    session.add_prompt("liver", BOX)
    results = session.propagate()
    for _ in range(4):
        next(results)
    session.add_prompt("liver", Points(5, (np.float64(9.0), 8.0), (9.0, 11.0), (True, np.bool_(False))))  # type: ignore[arg-type]
    next(results)
    session.lock("liver", np.array([2]))
    session.add_prompt("cyst", MaskPrompt(np.int64(2), painted()))  # type: ignore[arg-type]
    session.add_prompt("cyst", RecistLine(6, 4, 4, 12, 4))
    list(session.propagate(["cyst"], last=5))
    session.add_prompt("cyst", Points(2, (9.0,), (9.0,), (True,)))
    session.add_prompt("node", Box3D(3, 5, 5, 6, 14, 13))
    session.lock("node", [7])
    session.undo()
    return session


def goes_on(session: Session) -> None:
    """What is done after saving: it looks at memories of every kind."""
    session.add_prompt("liver", Points(6, (9.0,), (9.0,), (True,)))
    session.add_prompt("cyst", Points(4, (9.0,), (9.0,), (False,)))
    list(session.propagate())
    session.unlock("liver")
    list(session.propagate(redo=True))


@pytest.fixture
def a_session(a_model: LoadedModel, a_small_volume: Volume) -> Session:
    return told(opened(a_model, a_small_volume, CLOSE))


@pytest.mark.parametrize("memory", MEMORIES)
def test_a_restored_session_is_the_one_that_was_saved_and_goes_on_alike(
    a_model: LoadedModel, a_small_volume: Volume, memory: Memory
) -> None:
    options = replace(CLOSE, memory=memory)
    first = told(opened(a_model, a_small_volume, options))
    text = json.dumps(first.state(), allow_nan=False)
    second = opened(a_model, a_small_volume, options)
    second.restore(json.loads(text))
    assert known(second) == known(first)
    assert json.dumps(second.state()) == text
    for name in first.objects:
        assert np.array_equal(second.mask(name), first.mask(name))
    for session in (first, second):
        goes_on(session)
    assert known(second) == known(first)
    assert second.state() == first.state()


def test_restoring_asks_nothing_of_the_network(
    a_session: Session, a_small_volume: Volume, a_model: LoadedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    state = a_session.state()
    other = opened(a_model, a_small_volume, CLOSE)
    for step in ("encode_image", "predict", "encode_memory"):
        monkeypatch.setattr(a_model.network, step, None)
    other.restore(state)
    assert other.embeddings.encoded == 0


def test_a_restored_session_has_nothing_to_undo_but_knows_what_was_done(a_session: Session) -> None:
    recording = a_session.recording()
    a_session.restore(a_session.state())
    assert not a_session.can_undo
    assert a_session.recording() == recording
    with pytest.raises(UsageError):
        a_session.undo()


def test_a_state_with_its_history_can_be_undone_as_before(a_session: Session) -> None:
    a_session.undo()
    state = json.loads(json.dumps(a_session.state(history=True)))
    target = Session(a_session.model, CLOSE)
    target.set_volume(a_session._checked_volume(), "k", "0:255")
    target.restore(state)
    assert known(target) == known(a_session)
    assert target.history_bytes == a_session.history_bytes
    for step, label in [("undo", "undo_label")] * 3 + [("redo", "redo_label")] * 5:
        assert getattr(target, label) == getattr(a_session, label)
        assert getattr(target, step)() == getattr(a_session, step)()
        assert known(target) == known(a_session)
    goes_on(target)
    goes_on(a_session)
    assert known(target) == known(a_session)


def test_a_state_holds_the_last_thirty_steps(a_session: Session) -> None:
    for _ in range(20):
        a_session.lock("liver", [6])
        a_session.unlock("liver", [6])
    restored = a_session.state(history=True)
    a_session.restore(restored)
    for _ in range(30):
        a_session.undo()
    assert not a_session.can_undo
    assert a_session.locked("liver") == [2]


def test_a_state_does_not_change_with_its_session(a_session: Session) -> None:
    state = a_session.state()
    before = copy.deepcopy(state)
    goes_on(a_session)
    assert state == before


def test_a_state_takes_less_room_than_its_logits(a_session: Session) -> None:
    records = [record for target in a_session._objects.values() for record in target.all_records()]
    assert len(a_session.state()["records"]) == len({id(record) for record in records})
    logits = sum(record.logits.nbytes for record in records)
    written = sum(len(record["logits"]) for record in a_session.state()["records"])
    assert written < 1.4 * logits  # four letters for three bytes


# ── what is no state of this session ──────────────────────────────────────────────────────────────────────────────────


def assert_refused(session: Session, state: Any, said: str) -> None:
    before, whole = known(session), session.state()
    with pytest.raises(StateError, match=said) as refused:
        session.restore(state)
    assert "\n" not in str(refused.value)
    assert known(session) == before
    assert session.state() == whole
    assert session.can_undo


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Of everything that a state holds, the first and last of each list."""
    if isinstance(value, dict):
        return [path, *(place for key, one in value.items() for place in places(one, (*path, key)))]
    if isinstance(value, list):
        ends = sorted({0, len(value) - 1}) if value else []
        return [path, *(place for number in ends for place in places(value[number], (*path, number)))]
    return [path]


def changed(state: dict[str, Any], path: tuple[Any, ...], value: Any) -> dict[str, Any]:
    damaged = copy.deepcopy(state)
    part: Any = damaged
    for key in path[:-1]:
        part = part[key]
    part[path[-1]] = value
    return damaged


def test_whatever_is_damaged_is_found(a_session: Session) -> None:
    state = a_session.state()
    before = known(a_session)
    for path in places(state)[1:]:
        with pytest.raises(StateError):
            a_session.restore(changed(state, path, "?"))
    assert known(a_session) == before


@pytest.mark.parametrize("value", [None, -7, 10**9, "?", [], {}, [[]], 0.5, "AAAA"], ids=repr)
def test_a_damage_under_a_right_checksum_is_an_error_or_harmless(a_session: Session, value: Any) -> None:
    """No other exception, and never half of a state; a view or a lock may still be another one than was saved."""
    state = a_session.state(history=True)
    target = Session(a_session.model, CLOSE)
    target.set_volume(a_session._checked_volume(), "k", "0:255")
    for path in places(state)[1:]:
        if path[0] == "checksum":
            continue
        before = known(target)
        try:
            target.restore(signed(changed(state, path, value)))
        except StateError:
            assert known(target) == before
        else:
            while target.can_undo:
                target.undo()


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (lambda state: None, "format 'medsam2-session-state/1', but 'NoneType' came"),
        (lambda state: {}, "format 'medsam2-session-state/1', but None came"),
        (lambda state: {**state, "format": "medsam2-session-state/2"}, "newer version"),
        (lambda state: {**state, "objects": []}, "damaged"),
        (lambda state: {**state, "objects": {1, 2}}, "damaged"),
    ],
)
def test_a_foreign_dictionary_is_refused(a_session: Session, wrong: Callable[[Any], Any], said: str) -> None:
    assert_refused(a_session, wrong(a_session.state()), said)


def test_a_state_of_another_volume_window_or_network_is_refused(
    a_session: Session, a_model: LoadedModel, a_small_volume: Volume
) -> None:
    state = a_session.state()
    for other, axis, window, model, said in (
        (a_small_volume, "j", "0:255", a_model, "shape"),
        (volume_of(ellipsoid((9, 20, 24))), "k", "0:255", a_model, "shape"),
        (a_small_volume, "k", "0:200", a_model, "window"),
        (a_small_volume, "k", "0:255", replace(a_model, name="another"), "model another"),
        (a_small_volume, "k", "0:255", replace(a_model, sha256="1234"), "sha256"),
    ):
        session = Session(model, CLOSE)
        session.set_volume(other, axis, window)
        session.add_prompt("organ", Box(2, 5, 6, 14, 7))
        if said == "model another":
            said = "belongs to the model random, but this one has another"
        assert_refused(session, state, said)


@pytest.mark.parametrize("factor", [0.5, 2.0])
def test_logits_of_another_size_are_refused(
    a_session: Session, a_model: LoadedModel, a_small_volume: Volume, factor: float
) -> None:
    """The approximation "crop" halves the image that the network sees; the weights are the same."""
    config = a_model.network.config
    other = loaded(SAM2, replace(config, image_size=int(factor * config.image_size)))
    session = opened(other, a_small_volume, CLOSE)
    session.add_prompt("organ", Box(2, 5, 6, 14, 7))
    assert_refused(session, a_session.state(), "damaged")


def test_without_a_volume_there_is_no_state(a_session: Session, a_model: LoadedModel) -> None:
    session = Session(a_model)
    for call in (session.state, session.recording, lambda: session.restore(a_session.state())):
        with pytest.raises(UsageError, match="no volume yet"):
            call()


def test_pointers_come_back_where_the_network_is(a_session: Session) -> None:
    a_session.restore(a_session.state())
    for target in a_session._objects.values():
        assert all(record.pointer.dtype == torch.float32 for record in target.records.values())
        assert all(record.pointer.device == a_session.model.network.device for record in target.records.values())
