"""Three traps of ITK's NIfTI reader (verified with SimpleITK 2.5).

A file that ends too early is read without a word, its missing voxels made up. NaN and infinite voxels become 0. And
`scan.nii.gz` with a `scan.nii` beside it is read as the header of the one and the voxels of the other: the reader
looks for "the" image of a base name, uncompressed first.
"""

from __future__ import annotations

import contextlib
import gzip
import math
import shutil
import struct
import tempfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, cast

import numpy as np

from MedSAM2Lib.errors import VolumeError

__all__ = ["check_nifti", "is_nifti", "without_neighbours"]

_CHUNK_BYTES = 1 << 20
_GZIP_MAGIC = b"\x1f\x8b"
# sizeof_hdr, which is also how the two versions and their byte order are told apart.
_NIFTI1_SIZE = 348
_NIFTI2_SIZE = 540
# NIFTI_TYPE_FLOAT32 and NIFTI_TYPE_FLOAT64 as numpy calls them.
_FLOAT_TYPES = {16: "f4", 64: "f8"}


def is_nifti(path: Path) -> bool:
    """Whether the name says so."""
    return path.name.lower().endswith((".nii", ".nii.gz"))


@contextlib.contextmanager
def without_neighbours(path: Path) -> Iterator[Path]:
    """Yields a path to the same file in a folder where no other file has its base name; usually `path` itself."""
    base = path.name[: path.name.lower().rindex(".nii")]
    neighbours = {path.with_name(base + ending) for ending in (".nii", ".nii.gz", ".hdr", ".hdr.gz", ".img", ".img.gz")}
    if not any(neighbour.exists() for neighbour in neighbours - {path}):
        yield path
        return
    with tempfile.TemporaryDirectory(prefix="medsam2-") as folder:
        alone = Path(folder) / path.name
        try:
            alone.symlink_to(path.resolve())
        except OSError:  # Windows lets only some users make links
            shutil.copyfile(path, alone)
        yield alone


def check_nifti(path: Path) -> None:
    """Raises VolumeError when a .nii or .nii.gz holds fewer bytes than its header promises, damaged ones, or NaN.

    The file is read through once, in pieces; of a compressed one that also compares the checksum.
    """
    try:
        with path.open("rb") as raw:
            compressed = raw.read(len(_GZIP_MAGIC)) == _GZIP_MAGIC
            raw.seek(0)
            stream = cast(BinaryIO, gzip.GzipFile(fileobj=raw)) if compressed else raw
            header = _parse_header(stream.read(_NIFTI2_SIZE))
            if header is None:  # ITK will say what it thinks of the file
                return
            stream.seek(header.offset)
            byte_count, bad_count = _survey(stream, header)
    except (OSError, EOFError, zlib.error, struct.error, ValueError, OverflowError) as error:  # the last two: an offset
        raise VolumeError(f"{path} is damaged or cut short ({error}); copy or convert it again.") from error
    if byte_count < header.voxel_count * header.voxel_bytes:
        raise VolumeError(
            f"{path} is cut short: its header promises {header.voxel_count * header.voxel_bytes} bytes of voxels, "
            f"but {byte_count} are there; copy or convert it again."
        )
    if bad_count:
        raise VolumeError(
            f"{path}: expected finite voxels, but {bad_count} of {header.voxel_count} are NaN or infinite; "
            "replace them by a value of the background, and save the image again."
        )


@dataclass(frozen=True)
class _Header:
    """What this module needs of a NIfTI header; `float_type` is None for voxels that are no floating-point numbers."""

    offset: int
    voxel_count: int
    voxel_bytes: int
    float_type: str | None


def _parse_header(header: bytes) -> _Header | None:
    """From the first bytes of the uncompressed file; None for a header that is neither NIfTI-1 nor NIfTI-2.

    The numbers are the fields' places in nifti1.h and nifti2.h (NIH).
    """
    for order in "<>":
        size = struct.unpack_from(f"{order}i", header)[0]
        if size == _NIFTI1_SIZE:
            dim = struct.unpack_from(f"{order}8h", header, 40)
            datatype, bits = struct.unpack_from(f"{order}2h", header, 70)
            offset = int(struct.unpack_from(f"{order}f", header, 108)[0])
        elif size == _NIFTI2_SIZE:
            datatype, bits = struct.unpack_from(f"{order}2h", header, 12)
            dim = struct.unpack_from(f"{order}8q", header, 16)
            offset = struct.unpack_from(f"{order}q", header, 168)[0]
        else:
            continue
        rank = min(max(int(dim[0]), 0), 7)
        count = math.prod(max(int(length), 1) for length in dim[1 : rank + 1])
        float_type = order + _FLOAT_TYPES[datatype] if datatype in _FLOAT_TYPES else None
        voxel_bytes = np.dtype(float_type).itemsize if float_type else max(int(bits), 8) // 8
        return _Header(max(offset, 0), count, voxel_bytes, float_type)
    return None


def _survey(stream: BinaryIO, header: _Header) -> tuple[int, int]:
    """Bytes from here to the end, and how many of the voxels are NaN or infinite."""
    byte_count = bad_count = 0
    while chunk := _read_fully(stream, _CHUNK_BYTES):
        byte_count += len(chunk)
        if header.float_type is not None:
            whole = len(chunk) - len(chunk) % header.voxel_bytes
            bad_count += int(np.count_nonzero(~np.isfinite(np.frombuffer(chunk[:whole], header.float_type))))
    return byte_count, bad_count


def _read_fully(stream: BinaryIO, count: int) -> bytes:
    """`count` bytes, fewer only at the end: a decompressor may hand out less, and a voxel must not be torn apart."""
    pieces: list[bytes] = []
    while count > 0 and (piece := stream.read(count)):
        pieces.append(piece)
        count -= len(piece)
    return b"".join(pieces)
