"""A real engine's process whose input is no message, or ends: it says why, and ends too."""

from __future__ import annotations

import random
import struct
from collections.abc import Iterator

import pytest

from Testing.lib.worker.wire import Wire

CONNECTION_LOST = 70


@pytest.fixture
def a_wire() -> Iterator[Wire]:
    with Wire() as wire:
        yield wire


@pytest.mark.parametrize("seed", range(4))
def test_what_is_no_message_ends_the_connection_with_a_reason(a_wire: Wire, seed: int) -> None:
    chance = random.Random(seed)
    whole = a_wire.request("objects")
    broken = [
        chance.randbytes(100),
        whole[:3] + b"?" + whole[4:],
        whole[:4] + struct.pack("<H", 77) + whole[6:],
        whole[:12] + chance.randbytes(8) + whole[20:],
    ][seed]
    a_wire.send(broken)
    message = a_wire.answer()
    assert message is not None
    assert message.header["type"] == "fatal"
    assert message.header["message"]
    assert a_wire.process.wait(60) == CONNECTION_LOST


def test_an_end_in_the_middle_of_a_message_ends_the_process(a_wire: Wire) -> None:
    assert a_wire.process.stdin is not None
    a_wire.send(a_wire.request("objects")[:-5])
    a_wire.process.stdin.close()
    message = a_wire.answer()
    assert message is not None
    assert "in the middle" in message.header["message"]
    assert a_wire.process.wait(60) == CONNECTION_LOST


def test_an_end_between_two_messages_is_the_parent_that_goes(a_wire: Wire) -> None:
    assert a_wire.process.stdin is not None
    a_wire.process.stdin.close()
    assert a_wire.process.wait(60) == 0
