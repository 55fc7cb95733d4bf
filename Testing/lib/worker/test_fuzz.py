"""A real engine's process gets nonsense: every piece of it is answered or named, nothing changes, nothing hangs."""

from __future__ import annotations

import json
import random
import struct
import subprocess
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from MedSAM2Lib.worker.process import clean_environment, default_command
from MedSAM2Lib.worker.protocol import MAGIC, VERSION, Message, encode, read_message
from MedSAM2Lib.worker.values import pack, unpack
from Testing.lib.worker.support import BOX, EVERY_SLICE, a_volume, changed

REQUESTS = 300
CONNECTION_LOST = 70


class Wire:
    """A worker, bytes in and messages out."""

    def __init__(self) -> None:
        environment = {**clean_environment(), "OMP_NUM_THREADS": "1"}
        self.process = subprocess.Popen(
            default_command(), stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=environment
        )
        self._id = 0

    def send(self, content: bytes) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(content)
        self.process.stdin.flush()

    def answer(self) -> Message | None:
        """The next message that answers something; None at the end."""
        assert self.process.stdout is not None
        while (message := read_message(self.process.stdout)) is not None:
            if message.header["type"] in ("done", "failed", "fatal"):
                return message
        return None

    def ask(self, method: str, **arguments: Any) -> Any:
        self.send(self.request(method, **arguments))
        message = self.answer()
        assert message is not None
        assert message.header["type"] == "done", message
        return unpack(message.header["value"], message.arrays)

    def request(self, method: str, **arguments: Any) -> bytes:
        return b"".join(encode(Message(*self.parts(method, **arguments))))

    def parts(self, method: str, **arguments: Any) -> tuple[dict[str, Any], list[Any]]:
        self._id += 1
        arrays: list[Any] = []
        header = {"type": "request", "id": self._id, "method": method, "volume": "ct", "arguments": pack(arguments, arrays)}
        return header, arrays


@pytest.fixture
def a_wire() -> Iterator[Wire]:
    wire = Wire()
    with wire.process:
        yield wire
        wire.process.kill()


def sealed(header: bytes, payload: bytes) -> bytes:
    """A message of whatever content, with right sizes and checksums."""
    prelude = struct.pack("<4sHHIQI", MAGIC, VERSION, 0, len(header), len(payload), zlib.crc32(header + payload))
    return prelude + struct.pack("<I", zlib.crc32(prelude)) + header + payload


def nonsense(wire: Wire, chance: random.Random) -> bytes:
    """A request with something wrong in it."""
    mask = np.zeros((40, 48), dtype=bool)
    mask[5:20, 7:30] = True
    method, arguments = chance.choice(
        [("mask", {"name": "organ"}), ("slice_mask", {"name": "organ", "slice_index": 3}), ("plan", {"objects": ["organ"]})]
    )
    too_much = chance.choice([{}, {"mask": mask, "prompt": BOX}])
    header, arrays = wire.parts(method, **arguments, **too_much)
    payload = b"".join(encode(Message({"type": "x"}, arrays))[1:])
    listed = [["u1", list(array.shape)] for array in arrays]
    match chance.randrange(4):
        case 0:
            return sealed(json.dumps({**header, "arrays": changed(listed, chance)}).encode(), payload)
        case 1:
            parts = {key: one if key in ("type", "id") else changed(one, chance) for key, one in header.items()}
            return sealed(json.dumps({**parts, "arrays": listed}).encode(), payload)
        case 2:
            return sealed(chance.randbytes(chance.randrange(200)), chance.randbytes(8))
        case _:
            whole = bytearray(sealed(json.dumps({**header, "arrays": listed}).encode(), payload))
            whole[chance.randrange(28, len(whole))] ^= 1 << chance.randrange(8)
            return bytes(whole)


def test_requests_with_something_wrong_are_answered_and_change_nothing(a_wire: Wire, an_untrained_model: Path) -> None:
    chance = random.Random(0)
    a_wire.ask("start", model=str(an_untrained_model), device="cpu", threads=1)
    a_wire.ask("set_volume", volume=a_volume(), options=EVERY_SLICE)
    a_wire.ask("add_prompt", name="organ", prompt=BOX)
    before, refused = a_wire.ask("state"), 0
    for _ in range(REQUESTS):
        a_wire.send(nonsense(a_wire, chance))
        message = a_wire.answer()
        assert message is not None
        if message.header["type"] == "failed":
            refused += 1
            assert "met an unexpected" not in message.header["message"]
    assert refused > 0.8 * REQUESTS  # some are as good as before
    assert a_wire.ask("state") == before


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
