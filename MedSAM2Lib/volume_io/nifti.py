"""Two traps of ITK's NIfTI reader.

A file that ends too early is read without a word, its missing voxels made up. And `scan.nii.gz` with a `scan.nii`
beside it is read as the header of the one and the voxels of the other (the reader looks for "the" image of a base
name, uncompressed first); verified with SimpleITK 2.5.
"""

from __future__ import annotations

import contextlib
import gzip
import math
import os
import shutil
import struct
import tempfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, cast

from MedSAM2Lib.errors import VolumeError

__all__ = ["check_nifti_is_whole", "is_nifti", "without_neighbours"]

_CHUNK_BYTES = 1 << 20
_GZIP_MAGIC = b"\x1f\x8b"
# Of the headers nifti1.h and nifti2.h (NIH): sizeof_hdr, and where dim, bitpix and vox_offset are and of what type.
_NIFTI1_SIZE = 348
_NIFTI2_SIZE = 540


def is_nifti(path: Path) -> bool:
    """Whether the name says so."""
    return path.name.lower().endswith((".nii", ".nii.gz"))


@contextlib.contextmanager
def without_neighbours(path: Path) -> Iterator[Path]:
    """Yields a path to the same file in a folder where no other file has its base name; usually `path` itself."""
    base = path.name.lower().split(".nii")[0]
    neighbours = (base + ending for ending in (".nii", ".nii.gz", ".hdr", ".hdr.gz", ".img", ".img.gz"))
    names = {name.lower() for name in os.listdir(path.parent)} - {path.name.lower()}
    if names.isdisjoint(neighbours):
        yield path
        return
    with tempfile.TemporaryDirectory(prefix="medsam2-") as folder:
        alone = Path(folder) / path.name
        try:
            alone.symlink_to(path.resolve())
        except OSError:  # Windows lets only some users make links
            shutil.copyfile(path, alone)
        yield alone


def check_nifti_is_whole(path: Path) -> None:
    """Raises VolumeError when a .nii or .nii.gz holds fewer bytes than its header promises, or damaged ones.

    A compressed file is read through once, which also compares its checksum.
    """
    try:
        with path.open("rb") as raw:
            compressed = raw.read(2) == _GZIP_MAGIC
            raw.seek(0)
            stream = cast(BinaryIO, gzip.GzipFile(fileobj=raw)) if compressed else raw
            header = stream.read(_NIFTI2_SIZE)
            expected = _promised_bytes(header)
            present = len(header) + _count_to_end(stream)
    except (OSError, EOFError, zlib.error, struct.error) as error:
        raise VolumeError(f"{path} is damaged or cut short ({error}); copy or convert it again.") from error
    if present < expected:
        raise VolumeError(
            f"{path} is cut short: its header promises {expected} bytes, but {present} are there; copy or convert it again."
        )


def _promised_bytes(header: bytes) -> int:
    """Size of the uncompressed file that a NIfTI-1 or NIfTI-2 header speaks of, 0 for a header of neither kind."""
    for order in "<>":
        size = struct.unpack_from(f"{order}i", header)[0]
        if size == _NIFTI1_SIZE:
            dim = struct.unpack_from(f"{order}8h", header, 40)
            bits = struct.unpack_from(f"{order}h", header, 72)[0]
            offset = int(struct.unpack_from(f"{order}f", header, 108)[0])
            break
        if size == _NIFTI2_SIZE:
            bits = struct.unpack_from(f"{order}h", header, 14)[0]
            dim = struct.unpack_from(f"{order}8q", header, 16)
            offset = struct.unpack_from(f"{order}q", header, 168)[0]
            break
    else:
        return 0
    rank = min(max(int(dim[0]), 0), 7)
    voxels = math.prod(max(int(length), 1) for length in dim[1 : rank + 1])
    return offset + voxels * int(bits) // 8


def _count_to_end(stream: BinaryIO) -> int:
    count = 0
    while chunk := stream.read(_CHUNK_BYTES):
        count += len(chunk)
    return count
