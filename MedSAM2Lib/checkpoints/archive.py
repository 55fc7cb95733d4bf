"""The container of a checkpoint, checked before anything in it is believed: a zip archive as PyTorch 1.6 and newer write it.

PyTorch stores tensors uncompressed, one record each, and a pickle `NAME/data.pkl` that says how they are put together.
Whatever departs from that (compression, records that overlap, a program, another kind of file) is refused here, so that
no later step can be made to need more memory than the file is large. No torch here.

Source of the layout: PyTorch's notes on serialization (docs/source/notes/serialization.rst), PKWARE's APPNOTE 6.3.
"""

from __future__ import annotations

import os
import struct
import zipfile
import zlib
from dataclasses import dataclass
from typing import BinaryIO

from MedSAM2Lib.errors import CheckpointError

__all__ = ["MOST_BYTES", "MOST_PICKLE_BYTES", "Archive", "check_size", "read_archive"]

# The largest network has 898 MB; a training checkpoint of it with its optimizer's two moments has three times that.
MOST_BYTES = 4 << 30
_MOST_DIRECTORY_BYTES = 8 << 20
_MOST_RECORDS = 20_000  # the largest network has 903 tensors
MOST_PICKLE_BYTES = 4 << 20  # the largest network's has 0.1 MB

_END = struct.Struct("<4s4H2LH")  # end of central directory
_END64_LOCATOR = struct.Struct("<4sLQL")
_END64 = struct.Struct("<4sQ2H2L4Q")
_LOCAL_HEADER = struct.Struct("<4s5H3L2H")
_ENCRYPTED = 1  # of a record's flags


@dataclass(frozen=True)
class Archive:
    """What a checkpoint's container holds."""

    pickle: bytes
    records: dict[str, int]  # bytes of each storage, by its key


def check_size(stream: BinaryIO, name: str) -> int:
    """The bytes of an open file, which is left at its start. Raises CheckpointError where no network needs so many."""
    size = stream.seek(0, os.SEEK_END)
    if size > MOST_BYTES:
        raise CheckpointError(f"{name} has {size:,} bytes, more than any network here needs; it was not opened.")
    stream.seek(0)
    return size


def read_archive(stream: BinaryIO, name: str) -> Archive:
    """Checks the container of an open file; `name` is what messages call it. Raises CheckpointError."""
    size = check_size(stream, name)
    if stream.read(4) != b"PK\x03\x04":
        raise CheckpointError(f"{name} is not a whole checkpoint (it has no zip archive); get the file again.")
    try:
        if _directory_bytes(stream, size) > _MOST_DIRECTORY_BYTES:
            raise CheckpointError(f"{name} has a longer table of contents than any checkpoint; it was not opened.")
        with zipfile.ZipFile(stream) as container:
            entries = container.infolist()
        _check_entries(entries, size, name)
        pickle_entry = _pickle_entry(entries, name)
        pickled = _content(stream, pickle_entry)
        _check_sums(stream, entries, name)
    except (zipfile.BadZipFile, struct.error, ValueError, NotImplementedError, EOFError, OverflowError) as error:
        raise CheckpointError(f"{name} is not a whole checkpoint ({error}); get the file again.") from error
    prefix = pickle_entry.filename.removesuffix("data.pkl") + "data/"
    records = {entry.filename.removeprefix(prefix): entry.file_size for entry in entries if entry.filename.startswith(prefix)}
    return Archive(pickled, records)


def _directory_bytes(stream: BinaryIO, size: int) -> int:
    """How long the table of contents says it is, read as `zipfile` reads it but before it is loaded."""
    tail_bytes = min(size, _END.size + 0xFFFF)
    stream.seek(size - tail_bytes)
    tail = stream.read(tail_bytes)
    at = tail_bytes - _END.size
    if tail[max(at, 0) : at + 4] != b"PK\x05\x06":
        at = tail.rfind(b"PK\x05\x06")
    if at < 0:
        raise ValueError("its end is missing")
    stated: int = _END.unpack_from(tail, at)[5]
    locator_at = size - tail_bytes + at - _END64_LOCATOR.size
    if locator_at >= 0:
        stream.seek(locator_at)
        signature, _, record_at, _ = _END64_LOCATOR.unpack(stream.read(_END64_LOCATOR.size))
        if signature == b"PK\x06\x07" and record_at + _END64.size <= size:
            # zipfile takes the record right before the locator: both must be small.
            for place in (record_at, locator_at - _END64.size):
                stream.seek(max(place, 0))
                stated = max(stated if stated != 0xFFFFFFFF else 0, _END64.unpack(stream.read(_END64.size))[8])
    return stated


def _check_entries(entries: list[zipfile.ZipInfo], size: int, name: str) -> None:
    if len(entries) > _MOST_RECORDS:
        raise CheckpointError(f"{name} has {len(entries):,} records, more than any checkpoint; it was not opened.")
    if len({entry.filename for entry in entries}) < len(entries):
        raise CheckpointError(f"{name} has two records of one name, which no checkpoint has; it was not opened.")
    packed = [
        entry.filename
        for entry in entries
        if entry.compress_type != zipfile.ZIP_STORED or entry.compress_size != entry.file_size or entry.flag_bits & _ENCRYPTED
    ]
    if packed:
        raise CheckpointError(
            f"{name} has compressed or encrypted records ({ascii(packed[0])[:80]}), which could grow beyond any memory; PyTorch "
            "writes none, so it is damaged or foreign. It was not opened; get the file again from its publisher."
        )
    if sum(entry.file_size for entry in entries) > size:
        raise CheckpointError(f"{name} has records that together are larger than the file; it is damaged, get it again.")


def _pickle_entry(entries: list[zipfile.ZipInfo], name: str) -> zipfile.ZipInfo:
    found = [entry for entry in entries if entry.filename.count("/") == 1 and entry.filename.endswith("/data.pkl")]
    if len(found) != 1:
        raise CheckpointError(f"{name} is not a whole checkpoint (it has no data.pkl); get the file again.")
    top = found[0].filename.removesuffix("data.pkl")
    if any(entry.filename.startswith((f"{top}code/", f"{top}constants.pkl")) for entry in entries):
        raise CheckpointError(f"{name} is a program (TorchScript), but plain weights are needed; it was not opened.")
    if found[0].file_size > MOST_PICKLE_BYTES:
        raise CheckpointError(f"{name} has a pickle of {found[0].file_size:,} bytes, more than any; it was not opened.")
    return found[0]


def _check_sums(stream: BinaryIO, entries: list[zipfile.ZipInfo], name: str) -> None:
    """Raises where some records have their CRC-32 and others do not: PyTorch may be told to write none, then none is right."""
    right = [zlib.crc32(_content(stream, entry)) == entry.CRC for entry in entries]
    if any(right) and not all(right):
        damaged = entries[right.index(False)].filename
        raise CheckpointError(f"{name} is damaged (the checksum of {ascii(damaged)[:80]} is wrong); get the file again.")


def _content(stream: BinaryIO, entry: zipfile.ZipInfo) -> bytes:
    """The bytes of a stored record."""
    stream.seek(entry.header_offset)
    signature, *_, name_length, extra_length = _LOCAL_HEADER.unpack(stream.read(_LOCAL_HEADER.size))
    if signature != b"PK\x03\x04":
        raise ValueError(f"{entry.filename!r} is not where it should be")
    stream.seek(name_length + extra_length, os.SEEK_CUR)
    content = stream.read(entry.file_size)
    if len(content) != entry.file_size:
        raise ValueError(f"{entry.filename!r} ends early")
    return content
