"""A mask of one slice in little room: cut to its bounding box, a bit per pixel, compressed."""

from __future__ import annotations

import base64
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from MedSAM2Lib.masks import bounding_box

__all__ = ["PackedMask"]

_LARGEST_SIDE = 2**20  # of a slice; a saved mask that claims more would only fill the memory


@dataclass(frozen=True)
class PackedMask:
    """A (rows, columns) bool mask.

    box   first and last + 1 row, first and last + 1 column of its pixels; all 0 where it is empty
    bits  the box's pixels row by row, eight to a byte, compressed by zlib
    """

    shape: tuple[int, int]
    box: tuple[int, int, int, int]
    bits: bytes = field(repr=False)

    @classmethod
    def of(cls, mask: npt.NDArray[np.bool_]) -> PackedMask:
        rows, columns = mask.shape
        part = bounding_box(mask)
        if part is None:
            return cls((rows, columns), (0, 0, 0, 0), b"")
        down, across = part
        bits = zlib.compress(np.packbits(mask[part]).tobytes(), 1)
        return cls((rows, columns), (down.start, down.stop, across.start, across.stop), bits)

    @property
    def empty(self) -> bool:
        return not self.bits

    @cached_property
    def pixels(self) -> int:
        """How many the mask has."""
        return 0 if self.empty else int(np.count_nonzero(self._boxed()))

    def unpacked(self) -> npt.NDArray[np.bool_]:
        """(rows, columns) bool, a new array. Raises ValueError where the bits do not fill the box."""
        mask = np.zeros(self.shape, dtype=bool)
        if not self.empty:
            top, bottom, left, right = self.box
            mask[top:bottom, left:right] = self._boxed()
        return mask

    def _boxed(self) -> npt.NDArray[np.uint8]:
        """What lies in the box, 0 or 1."""
        top, bottom, left, right = self.box
        size = (bottom - top) * (right - left)
        limited = zlib.decompressobj()
        packed = np.frombuffer(limited.decompress(self.bits, (size + 7) // 8), dtype=np.uint8)
        if len(packed) != (size + 7) // 8:
            raise ValueError(f"a mask of {size} pixels came with {len(packed)} bytes")
        return np.unpackbits(packed, count=size).reshape(bottom - top, -1)

    def to_json(self) -> dict[str, Any]:
        return {"shape": list(self.shape), "box": list(self.box), "bits": base64.b64encode(self.bits).decode()}

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> PackedMask:
        """What `to_json` wrote. Raises ValueError, KeyError or TypeError where it is something else."""
        rows, columns = (int(side) for side in content["shape"])
        top, bottom, left, right = (int(edge) for edge in content["box"])
        bits = base64.b64decode(content["bits"], validate=True)
        if not (0 < rows <= _LARGEST_SIDE and 0 < columns <= _LARGEST_SIDE):
            raise ValueError(f"a mask cannot have {rows} rows and {columns} columns")
        if not (0 <= top <= bottom <= rows and 0 <= left <= right <= columns and bool(bits) == (bottom > top and right > left)):
            raise ValueError(f"a box of rows {top}..{bottom} and columns {left}..{right} does not fit the mask")
        mask = cls((rows, columns), (top, bottom, left, right), bits)
        try:
            mask.unpacked()
        except zlib.error as error:
            raise ValueError(f"a mask's pixels are damaged ({error})") from error
        return mask
