"""Messages between a front end and its engine, as bytes on a pipe. docs/worker.md is the page for other programs.

    prelude   28 bytes, little-endian: "MS2W", version (2), flags (2, zero), bytes of the header (4), of the payload (8),
              CRC-32 of header and payload (4), CRC-32 of the 24 bytes before (4)
    header    a JSON object in UTF-8: "type", what belongs to it, and "arrays": [[dtype, shape], ...]
    payload   the arrays one after the other, C order, little-endian, each padded with zeros to a multiple of 8 bytes

The prelude is checked before anything is allocated. Where it is damaged, nobody can tell where the next message begins:
the connection is lost (ProtocolError). Where it is whole but the rest is not, the message is lost and the next one is
read (DamagedMessageError).
"""

from __future__ import annotations

import json
import math
import struct
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from MedSAM2Lib.errors import ProtocolError

__all__ = [
    "HEADER_LIMIT", "MAGIC", "PAYLOAD_LIMIT", "PRELUDE_BYTES", "VERSION", "DamagedMessageError", "Message", "Source", "encode",
    "read_message",
]  # fmt: skip

MAGIC = b"MS2W"
VERSION = 1
HEADER_LIMIT = 2**24  # bytes; a session of thousands of prompts needs less
PAYLOAD_LIMIT = 2**34  # bytes; a volume of 2048 x 2048 x 2048 voxels of 16 bits

_SIZES = struct.Struct("<4sHHIQI")
_CHECK = struct.Struct("<I")
PRELUDE_BYTES = _SIZES.size + _CHECK.size
_ALIGNMENT = 8
_CHUNK = 2**20
_MOST_AXES = 8
_KINDS = {f"{kind}{size}" for kind in "iuf" for size in (2, 4, 8)} - {"f1"} | {"i1", "u1"}


class DamagedMessageError(ProtocolError):
    """One message cannot be understood; those after it can. `header` is what could be read of it."""

    def __init__(self, text: str, header: dict[str, Any] | None = None) -> None:
        super().__init__(text)
        self.header = header or {}


@dataclass(frozen=True)
class Message:
    """`header["type"]` says what it is; `arrays` are read-only, numbers only, and may share memory."""

    header: dict[str, Any]
    arrays: Sequence[npt.NDArray[Any]] = field(default=(), repr=False)


class Source(Protocol):
    """What messages are read from: a raw or buffered binary stream."""

    def read(self, size: int, /) -> bytes | None: ...


def encode(message: Message) -> list[memoryview]:
    """The pieces of a message, to be written one after the other; arrays in the right order and type are not copied."""
    pieces: list[memoryview] = []
    listed: list[tuple[str, tuple[int, ...]]] = []
    payload_bytes = 0
    for array in message.arrays:
        plain = np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("<"))
        kind = f"{plain.dtype.kind}{plain.dtype.itemsize}"
        if kind not in _KINDS:
            raise ProtocolError(f"A message carries whole or floating-point numbers, but an array of {array.dtype} came.")
        listed.append((kind, array.shape))
        padding = -plain.nbytes % _ALIGNMENT
        pieces += [plain.reshape(-1).view(np.uint8).data, memoryview(bytes(padding))]
        payload_bytes += plain.nbytes + padding
    try:
        header = json.dumps({**message.header, "arrays": listed}, allow_nan=False, separators=(",", ":")).encode()
    except ValueError as error:
        raise ProtocolError(f"A message holds finite numbers, text, lists and dictionaries only ({error}).") from error
    if len(header) > HEADER_LIMIT or payload_bytes > PAYLOAD_LIMIT:
        raise ProtocolError(
            f"A message has at most {HEADER_LIMIT} bytes of header and {PAYLOAD_LIMIT} of arrays, but it would have "
            f"{len(header)} and {payload_bytes}; send a crop of the volume."
        )
    check = zlib.crc32(header)
    for piece in pieces:
        check = zlib.crc32(piece, check)
    sizes = _SIZES.pack(MAGIC, VERSION, 0, len(header), payload_bytes, check)
    prelude = sizes + _CHECK.pack(zlib.crc32(sizes))
    return [memoryview(prelude + header), *(piece for piece in pieces if piece.nbytes)]


def read_message(source: Source, *, skip: int = 0) -> Message | None:
    """The next message; None where the stream ends between two.

    skip  bytes that may come before the first message, as a remote shell's greeting does

    Raises DamagedMessageError where only this message is lost, ProtocolError where the connection is.
    """
    prelude = _read_prelude(source, skip)
    if prelude is None:
        return None
    header_bytes, payload_bytes, check = _sizes_of(prelude)
    raw_header = _read_exactly(source, header_bytes)
    try:
        payload = np.empty(payload_bytes, dtype=np.uint8)
    except MemoryError as error:
        _drain(source, payload_bytes)
        raise DamagedMessageError(
            f"There is no memory left for the {payload_bytes / 1e6:.0f} MB of a message; close another volume, or send a crop.",
            _header_or_nothing(raw_header),
        ) from error
    _fill(source, payload.data)
    if zlib.crc32(payload.data, zlib.crc32(raw_header)) != check:
        raise DamagedMessageError("A message was damaged on its way (its checksum differs); send it again.")
    header = _header_of(raw_header)
    return Message(header, _arrays_of(header, payload))


# ── the prelude ───────────────────────────────────────────────────────────────────────────────────────────────────


def _read_prelude(source: Source, skip: int) -> bytes | None:
    begun = _read_up_to(source, PRELUDE_BYTES)
    skipped = bytearray()
    while skip > 0 and len(begun) == PRELUDE_BYTES and not begun.startswith(MAGIC):
        place = begun.find(MAGIC[:1], 1)
        step = min(len(begun) if place < 0 else place, skip)
        skipped += begun[:step]
        skip -= step
        begun = begun[step:] + _read_up_to(source, step)
    if not begun and not skipped:
        return None
    if len(begun) < PRELUDE_BYTES or not begun.startswith(MAGIC):
        came = bytes(skipped + begun)[:200]
        raise ProtocolError(f"Expected a message that begins with {MAGIC.decode()}, but {came!r} came.")
    return begun


def _sizes_of(prelude: bytes) -> tuple[int, int, int]:
    """Bytes of the header, of the payload, and the checksum of both."""
    sizes, (check,) = prelude[: _SIZES.size], _CHECK.unpack(prelude[_SIZES.size :])
    _, version, flags, header_bytes, payload_bytes, body_check = _SIZES.unpack(sizes)
    if zlib.crc32(sizes) != check:
        raise ProtocolError("The beginning of a message is damaged (its checksum differs); the connection cannot go on.")
    if version != VERSION or flags:
        raise ProtocolError(
            f"This side speaks version {VERSION} of the protocol, but version {version} (flags {flags}) came; "
            "install the same MedSAM2 on both sides."
        )
    if header_bytes > HEADER_LIMIT or payload_bytes > PAYLOAD_LIMIT:
        raise ProtocolError(
            f"Expected a message of at most {HEADER_LIMIT} bytes of header and {PAYLOAD_LIMIT} of arrays, but {header_bytes} and "
            f"{payload_bytes} are announced; send a crop of the volume."
        )
    return header_bytes, payload_bytes, body_check


# ── header and arrays ─────────────────────────────────────────────────────────────────────────────────────────────


def _header_of(raw: bytes) -> dict[str, Any]:
    try:
        header: Any = json.loads(raw, parse_constant=_no_number)
    except (ValueError, RecursionError) as error:
        raise DamagedMessageError(
            f"Expected a message's header to be JSON in UTF-8, but it is not ({type(error).__name__}: {error})."
        ) from error
    if not isinstance(header, dict) or not isinstance(header.get("type"), str):
        raise DamagedMessageError(f'Expected a message\'s header to be a JSON object with a "type", but {header!r:.80} came.')
    return header


def _no_number(name: str) -> float:
    raise ValueError(f"{name} is no number")


def _header_or_nothing(raw: bytes) -> dict[str, Any]:
    try:
        return _header_of(raw)
    except DamagedMessageError:
        return {}


def _arrays_of(header: dict[str, Any], payload: npt.NDArray[np.uint8]) -> list[npt.NDArray[Any]]:
    payload.flags.writeable = False
    arrays, offset = [], 0
    for dtype, shape in _listed(header):
        count = math.prod(shape) * dtype.itemsize
        if offset + count > payload.nbytes:
            raise DamagedMessageError(
                f"Expected the {payload.nbytes} bytes of a message's arrays to be enough, but it lists more.", header
            )
        try:
            arrays.append(payload[offset : offset + count].view(dtype).reshape(shape))
        except (ValueError, OverflowError) as error:  # no elements, but more along one axis than a machine can count
            raise DamagedMessageError(f"Expected the shape of an array, but {shape!r:.80} came.", header) from error
        offset += count + -count % _ALIGNMENT
    if offset != payload.nbytes:
        raise DamagedMessageError(f"Expected the {offset} bytes that a message's arrays need, but {payload.nbytes} came.", header)
    return arrays


def _listed(header: dict[str, Any]) -> list[tuple[np.dtype[Any], tuple[int, ...]]]:
    listed = header.pop("arrays", [])
    found = []
    for one in listed if isinstance(listed, list) else [listed]:
        match one:
            case [str(kind), list(shape)] if (
                kind in _KINDS and len(shape) <= _MOST_AXES and all(_is_size(size) for size in shape)
            ):
                found.append((np.dtype(f"<{kind}"), tuple(shape)))
            case _:
                known = ", ".join(sorted(_KINDS))
                raise DamagedMessageError(
                    f"Expected an array as [type, shape], type one of {known}, but {one!r:.80} came.", header
                )
    return found


def _is_size(size: object) -> bool:
    return type(size) is int and size >= 0


# ── bytes ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def _read_up_to(source: Source, count: int) -> bytes:
    """That many bytes, or fewer where the stream ends."""
    read = bytearray()
    while len(read) < count and (piece := source.read(count - len(read))):
        read += piece
    return bytes(read)


def _read_exactly(source: Source, count: int) -> bytes:
    read = _read_up_to(source, count)
    if len(read) < count:
        raise ProtocolError(
            f"A stream ended in the middle of a message: expected {count} bytes, but {len(read)} came; start it anew."
        )
    return read


def _fill(source: Source, buffer: memoryview) -> None:
    done = 0
    while done < len(buffer):
        piece = source.read(min(_CHUNK, len(buffer) - done))
        if not piece:
            raise ProtocolError(
                f"A stream ended in the middle of a message: expected {len(buffer)} bytes, but {done} came; start it anew."
            )
        buffer[done : done + len(piece)] = piece
        done += len(piece)


def _drain(source: Source, count: int) -> None:
    while count and (piece := source.read(min(_CHUNK, count))):
        count -= len(piece)
