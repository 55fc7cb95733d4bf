"""One autosave as a file: which volume it belongs to, the session as the scene keeps it, the voxels of its segments.

    a line            SHA-256 of all that follows
    a line of JSON    {"format", "saved", "volume": {...}, "window", "segments": [...], "parts": [...], "bytes": [...]}
    the rest          session text, then each part's voxels as bits: all compressed by zlib

There is no code in it, and every size is checked before anything is unpacked.
"""

from __future__ import annotations

import hashlib
import json
import math
import time
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from MedSAM2Lib.atomic import atomic_path
from MedSAM2Lib.errors import OutputError, StateError
from MedSAM2Lib.geometry import Geometry
from MedSAM2Lib.masks import VoxelBox

__all__ = ["LARGEST", "Content", "Found", "Identity", "Part", "SegmentFacts", "read", "read_header", "write"]

_FORMAT = "medsam2-autosave/1"
LARGEST = 2**28  # bytes of a file
_LARGEST_HEADER = 2**22
_LARGEST_TEXT = 2**29  # bytes of a session, unpacked
_CHECK_BYTES = 65  # of the first line
_YEAR_3000 = 32_503_680_000  # in seconds since 1970
# What reading something else than was written may raise.
_DAMAGE = (OSError, TypeError, ValueError, KeyError, AttributeError, RecursionError, OverflowError, zlib.error)
_Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Identity:
    """Which volume. `voxels` is a digest of them; the name is for people."""

    name: str
    shape: tuple[int, int, int]  # (k, j, i)
    spacing: tuple[float, float, float]
    origin: tuple[float, float, float]
    direction: tuple[float, ...]
    voxels: str

    @classmethod
    def of(cls, name: str, geometry: Geometry, voxels: str) -> Identity:
        return cls(name, geometry.shape, geometry.spacing, geometry.origin, geometry.direction, voxels)

    def lies_as(self, geometry: Geometry) -> bool:
        """Whether a volume has this one's grid; files round."""
        mine = (*self.spacing, *self.origin, *self.direction)
        theirs = (*geometry.spacing, *geometry.origin, *geometry.direction)
        return self.shape == geometry.shape and bool(np.allclose(mine, theirs, rtol=1e-4, atol=1e-3))


@dataclass(frozen=True)
class SegmentFacts:
    """A segment apart from its voxels."""

    id: str
    name: str
    color: tuple[float, float, float]
    terminology: str
    madeWith: str = ""


@dataclass(frozen=True)
class Part:
    """The voxels of a segment within a box of the volume's (k, j, i) voxels, eight to a byte."""

    segmentId: str
    box: VoxelBox
    bits: bytes = field(repr=False)

    @classmethod
    def of(cls, segmentId: str, box: VoxelBox, mask: _Mask) -> Part:
        return cls(segmentId, box, np.packbits(mask).tobytes())

    def mask(self) -> _Mask:
        size = tuple(side.stop - side.start for side in self.box)
        return np.unpackbits(np.frombuffer(self.bits, np.uint8), count=math.prod(size)).astype(bool).reshape(size)


@dataclass(frozen=True)
class Content:
    """What is saved of a session. `text` is what SessionNode keeps."""

    volume: Identity
    window: str  # of new prompts
    segments: tuple[SegmentFacts, ...]
    parts: tuple[Part, ...]
    text: str = field(repr=False)


@dataclass(frozen=True)
class Found:
    """An autosave, as far as its header tells."""

    path: Path
    saved: float  # seconds since 1970
    volume: Identity
    objects: int


def write(path: Path, content: Content) -> None:
    """Writes an autosave, whole or not at all. Raises OutputError. May be called from another thread."""
    pieces = [zlib.compress(content.text.encode(), 1), *(zlib.compress(part.bits, 1) for part in content.parts)]
    size = sum(map(len, pieces))
    if size > LARGEST:
        raise OutputError(
            f"An autosave takes at most {LARGEST / 1e6:.0f} MB, but this session takes {size / 1e6:.0f} MB; "
            "save the scene instead."
        )
    header = {
        "format": _FORMAT,
        "saved": time.time(),
        "volume": asdict(content.volume),
        "window": content.window,
        "segments": [asdict(segment) for segment in content.segments],
        "parts": [[part.segmentId, [[side.start, side.stop] for side in part.box]] for part in content.parts],
        "bytes": [len(piece) for piece in pieces],
    }
    pieces.insert(0, json.dumps(header).encode() + b"\n")
    check = hashlib.sha256()
    for piece in pieces:
        check.update(piece)
    with atomic_path(path) as temporary, temporary.open("wb") as stream:
        stream.write(check.hexdigest().encode() + b"\n")
        stream.writelines(pieces)


def read_header(path: Path) -> Found:
    """Without looking whether the rest is whole. Raises StateError for a file that is no autosave, or a damaged one."""
    try:
        with path.open("rb") as stream:
            stream.readline(_CHECK_BYTES)
            header = _header(stream.readline(_LARGEST_HEADER))
    except _DAMAGE as error:
        raise _damaged(path, error) from error
    return Found(path, header["saved"], header["volume"], len(header["segments"]))


def read(path: Path) -> Content:
    """Raises StateError for a file that is no autosave, or a damaged one."""
    try:
        with path.open("rb") as stream:
            check = stream.readline(_CHECK_BYTES).strip().decode()
            content = stream.read(LARGEST + _LARGEST_HEADER)
        if hashlib.sha256(content).hexdigest() != check:
            raise ValueError("its checksum differs")
        line, _, body = content.partition(b"\n")
        header = _header(line)
        text, *bits = _pieces(body, header["bytes"])
        return Content(
            header["volume"],
            header["window"],
            tuple(header["segments"]),
            tuple(_part(one, packed, header["volume"].shape) for one, packed in zip(header["parts"], bits, strict=True)),
            _inflated(text, _LARGEST_TEXT).decode(),
        )
    except _DAMAGE as error:
        raise _damaged(path, error) from error


def _header(line: bytes) -> dict[str, Any]:
    header = json.loads(line)
    if not isinstance(header, dict) or header.get("format") != _FORMAT:
        raise ValueError("it is of another version")
    saved = float(header["saved"])
    if not 0 <= saved < _YEAR_3000:
        raise ValueError("it is of no time")
    return {
        "saved": saved,
        "volume": _identity(header["volume"]),
        "window": str(header["window"]),
        "segments": [_facts(one) for one in header["segments"]],
        "parts": list(header["parts"]),
        "bytes": [int(size) for size in header["bytes"]],
    }


def _identity(content: Mapping[str, Any]) -> Identity:
    k, j, i = (int(size) for size in content["shape"])
    s0, s1, s2 = (float(value) for value in content["spacing"])
    x, y, z = (float(value) for value in content["origin"])
    direction = tuple(float(value) for value in content["direction"])
    return Identity(str(content["name"]), (k, j, i), (s0, s1, s2), (x, y, z), direction, str(content["voxels"]))


def _facts(content: Mapping[str, Any]) -> SegmentFacts:
    red, green, blue = (float(value) for value in content["color"])
    madeWith = str(content.get("madeWith", ""))  # older files have none
    return SegmentFacts(str(content["id"]), str(content["name"]), (red, green, blue), str(content["terminology"]), madeWith)


def _pieces(body: bytes, sizes: Sequence[int]) -> Iterator[bytes]:
    if sum(sizes) != len(body) or any(size < 0 for size in sizes):
        raise ValueError("its sizes do not fit")
    start = 0
    for size in sizes:
        yield body[start : start + size]
        start += size


def _part(listed: Any, packed: bytes, shape: Sequence[int]) -> Part:
    segmentId, sides = listed
    box = tuple(slice(int(start), int(stop)) for start, stop in sides)
    if len(box) != 3 or not all(0 <= side.start < side.stop <= size for side, size in zip(box, shape, strict=True)):
        raise ValueError("a segment lies beyond the volume")
    size = -(-math.prod(side.stop - side.start for side in box) // 8)
    bits = _inflated(packed, size)
    if len(bits) != size:
        raise ValueError("a segment lacks voxels")
    return Part(str(segmentId), box, bits)


def _inflated(packed: bytes, most: int) -> bytes:
    return zlib.decompressobj().decompress(packed, most)


def _damaged(path: Path, why: object) -> StateError:
    return StateError(f"The saved work in {path} is damaged ({why}); discard it.")
