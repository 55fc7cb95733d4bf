"""Messages as bytes: what is sent comes back, and what is damaged is said to be."""

from __future__ import annotations

import io
import json
import struct
import zlib

import numpy as np
import pytest

from MedSAM2Lib.errors import ProtocolError
from MedSAM2Lib.worker.protocol import (
    HEADER_LIMIT,
    MAGIC,
    PRELUDE_BYTES,
    VERSION,
    DamagedMessageError,
    Message,
    encode,
    read_message,
)  # fmt: skip

KINDS = ("i1", "u1", "i2", "u2", "i4", "u4", "i8", "u8", "f2", "f4", "f8")


def wire(message: Message) -> bytes:
    return b"".join(encode(message))


def raw(header: bytes, payload: bytes = b"", version: int = VERSION, sizes: tuple[int, int] | None = None) -> bytes:
    """A message of any content whose checksums are right."""
    announced = sizes or (len(header), len(payload))
    prelude = struct.pack("<4sHHIQI", MAGIC, version, 0, *announced, zlib.crc32(header + payload))
    return prelude + struct.pack("<I", zlib.crc32(prelude)) + header + payload


def read(content: bytes, skip: int = 0) -> Message | None:
    return read_message(io.BytesIO(content), skip=skip)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("order", ["<", ">"])
def test_arrays_of_every_kind_come_back(kind: str, order: str) -> None:
    array = np.arange(3 * 4 * 5, dtype=order + kind).reshape(3, 4, 5)[:, ::2]
    message = read(wire(Message({"type": "x"}, [array, array[0, 0]])))
    assert message is not None
    assert message.header == {"type": "x"}
    assert [one.dtype.str.lstrip("<|") for one in message.arrays] == [kind, kind]
    assert np.array_equal(message.arrays[0], array)
    assert np.array_equal(message.arrays[1], array[0, 0])


def test_messages_follow_each_other_and_the_stream_ends_between_two() -> None:
    arrays = [np.arange(5, dtype=np.uint8), np.zeros((0, 3)), np.array(7.5)]
    stream = io.BytesIO(wire(Message({"type": "a"}, arrays)) + wire(Message({"type": "b", "text": "Leber – ✓"})))
    first, second = read_message(stream), read_message(stream)
    assert first is not None
    assert second is not None
    assert [one.shape for one in first.arrays] == [(5,), (0, 3), ()]
    assert second.header["text"] == "Leber – ✓"
    assert read_message(stream) is None


def test_what_was_read_cannot_be_written_to() -> None:
    message = read(wire(Message({"type": "x"}, [np.zeros(4)])))
    assert message is not None
    with pytest.raises(ValueError, match="read-only"):
        message.arrays[0][0] = 1


@pytest.mark.parametrize("greeting", [b"Welcome to gpu-host\r\n", b"MMMS MS2", b"M" * 3000])
def test_what_a_remote_shell_says_first_is_skipped(greeting: bytes) -> None:
    message = read(greeting + wire(Message({"type": "x"})), skip=4096)
    assert message is not None
    assert message.header == {"type": "x"}


def test_a_command_that_is_no_engine_is_quoted() -> None:
    with pytest.raises(ProtocolError, match="command not found"):
        read(b"bash: medsam2: command not found\n", skip=4096)


@pytest.mark.parametrize("value", [np.array(["text"]), np.array([1j]), np.array([object()])])
def test_other_arrays_are_refused(value: np.ndarray) -> None:
    with pytest.raises(ProtocolError, match="floating-point"):
        encode(Message({"type": "x"}, [value]))


def test_numbers_that_are_none_are_refused() -> None:
    with pytest.raises(ProtocolError, match="finite"):
        encode(Message({"type": "x", "value": float("nan")}))


# ── damage ────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_another_version_is_named() -> None:
    with pytest.raises(ProtocolError, match="version 9"):
        read(raw(b"{}", version=9))


@pytest.mark.parametrize("sizes", [(HEADER_LIMIT + 1, 0), (2**32 - 1, 0), (2, 2**34 + 1), (2, 2**64 - 1)])
def test_sizes_beyond_the_bounds_are_refused_before_anything_is_read(sizes: tuple[int, int]) -> None:
    with pytest.raises(ProtocolError, match="announced"):
        read(raw(b"{}", sizes=sizes))


@pytest.mark.parametrize("cut", [1, PRELUDE_BYTES - 1, PRELUDE_BYTES, PRELUDE_BYTES + 3, -1])
def test_a_stream_that_ends_in_the_middle_is_said_to(cut: int) -> None:
    with pytest.raises(ProtocolError) as caught:
        read(wire(Message({"type": "x"}, [np.zeros(9)]))[:cut])
    assert not isinstance(caught.value, DamagedMessageError)


@pytest.mark.parametrize(
    "header",
    [
        b"", b"{", b"[]", b"null", b"\xff", b'{"type": 3}', b'{"type": "x", "value": NaN}', b"[" * 100_000,
        b'{"type": "x", "arrays": 3}', b'{"type": "x", "arrays": [3]}', b'{"type": "x", "arrays": [["O", [1]]]}',
        b'{"type": "x", "arrays": [["f8", [-1]]]}', b'{"type": "x", "arrays": [["f8", [true]]]}',
        b'{"type": "x", "arrays": [["f8", [1, 1, 1, 1, 1, 1, 1, 1, 1]]]}', b'{"type": "x", "arrays": [["f8", [99999999999999]]]}',
        b'{"type": "x", "arrays": [["f8", [0, 99999999999999999999]]]}', b'{"type": "x", "arrays": [["u1", [3]], ["u1", [3]]]}',
    ],
)  # fmt: skip
def test_only_a_message_whose_content_is_wrong_is_lost(header: bytes) -> None:
    stream = io.BytesIO(raw(header, bytes(8)) + wire(Message({"type": "after"})))
    with pytest.raises(DamagedMessageError):
        read_message(stream)
    after = read_message(stream)
    assert after is not None
    assert after.header == {"type": "after"}


def test_no_memory_for_a_message_loses_that_message_only(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_memory(*_: object, **__: object) -> None:
        raise MemoryError

    stream = io.BytesIO(wire(Message({"type": "request", "id": 4}, [np.zeros(1000)])) + wire(Message({"type": "after"})))
    with monkeypatch.context() as patch:
        patch.setattr("MedSAM2Lib.worker.protocol.np.empty", no_memory)
        with pytest.raises(DamagedMessageError, match="no memory") as caught:
            read_message(stream)
    assert caught.value.header["id"] == 4
    after = read_message(stream)
    assert after is not None
    assert json.dumps(after.header) == '{"type": "after"}'
