"""The engine between two requests: it encodes slices ahead, and gives that up when it is asked for something."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from MedSAM2Lib.inference.session import Session
from MedSAM2Lib.worker.channel import Channel
from MedSAM2Lib.worker.engine import Engine
from MedSAM2Lib.worker.protocol import Message
from MedSAM2Lib.worker.values import pack
from Testing.lib.worker.support import BOX, Client, a_volume


def ask(engine: Engine, number: int, method: str, volume_id: str = "ct", **arguments: Any) -> None:
    arrays: list[Any] = []
    header = {"type": "request", "id": number, "method": method, "volume": volume_id}
    engine.handle(Message({**header, "arguments": pack(arguments, arrays)}, arrays))


@pytest.fixture
def idle(an_untrained_model: Path) -> Engine:
    engine = Engine(Channel(io.BytesIO()))
    ask(engine, 1, "start", "", model=str(an_untrained_model), device="cpu", threads=1)
    ask(engine, 2, "set_volume", volume=a_volume(), options={"zoom": None})
    return engine


def encoded(engine: Engine) -> int:
    return engine._open["ct"].session.embeddings.encoded


def test_idle_without_a_volume_has_nothing_to_do() -> None:
    assert not Engine(Channel(io.BytesIO())).look_ahead(lambda: False)


def test_slices_around_the_one_looked_at_are_encoded(idle: Engine) -> None:
    assert not idle.look_ahead(lambda: False)
    ask(idle, 3, "look_at", slice_index=4)
    assert idle.look_ahead(lambda: False)
    assert encoded(idle) == 1
    ask(idle, 4, "add_prompt", name="organ", prompt=BOX)


def test_it_is_given_up_in_the_middle_of_a_slice(idle: Engine) -> None:
    ask(idle, 3, "look_at", slice_index=4)
    asked = iter([False, False, True])
    assert idle.look_ahead(lambda: next(asked))
    assert encoded(idle) == 0
    assert idle.look_ahead(lambda: False)  # and done another time
    assert encoded(idle) == 1


def test_what_goes_wrong_then_is_nobodys_failure(idle: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_: Session) -> bool:
        raise MemoryError

    monkeypatch.setattr(Session, "encode_ahead", full)
    assert not idle.look_ahead(lambda: False)


def test_a_process_that_looks_ahead_answers_as_one_that_does_not(a_client: Client) -> None:
    found = []
    for looks in (False, True):
        engine = a_client()
        engine.call("set_volume", "ct", volume=a_volume(), options={"zoom": None})
        if looks:
            engine.call("look_at", "ct", slice_index=BOX.slice_index)
        engine.call("add_prompt", "ct", name="organ", prompt=BOX)
        found.append(engine.call("mask", "ct", name="organ"))
    np.testing.assert_array_equal(*found)
