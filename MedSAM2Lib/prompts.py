"""What a person says about an object: a box, clicks, a caliper line, a painted mask.

All coordinates are voxels of one slice: x is the column, y the row, pixel centres at integers, box corners
inclusive. Which array axes columns and rows are follows from the slicing axis: k -> (j, i) as (row, column),
j -> (k, i), i -> (k, j). Nothing here knows the volume; `inference.session` checks prompts against it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from MedSAM2Lib.errors import PromptError

__all__ = ["Box", "Box3D", "MaskPrompt", "Points", "Prompt", "RecistLine"]


def _finite(name: str, values: tuple[float, ...]) -> None:
    if not all(math.isfinite(value) for value in values):
        raise PromptError(f"The {name}'s coordinates must be finite numbers, but {values} came.")


def _check_slice_index(name: str, slice_index: int) -> None:
    if slice_index < 0:
        raise PromptError(f"The {name}'s slice index counts from 0, but {slice_index} came.")


@dataclass(frozen=True)
class Box:
    """A rectangle on one slice; (x0, y0) and (x1, y1) are opposite corner pixels, both inside."""

    slice_index: int
    x0: float
    y0: float
    x1: float
    y1: float

    def __post_init__(self) -> None:
        _check_slice_index("box", self.slice_index)
        _finite("box", (self.x0, self.y0, self.x1, self.y1))
        if self.x1 < self.x0 or self.y1 < self.y0:
            raise PromptError(
                f"A box is X0,Y0,X1,Y1 with X0 <= X1 and Y0 <= Y1, but {self.x0:g},{self.y0:g},{self.x1:g},{self.y1:g} came; "
                "swap the corners."
            )


@dataclass(frozen=True)
class Points:
    """Clicks on one slice. `labels[n]` is True where (xs[n], ys[n]) lies on the object, False where it does not."""

    slice_index: int
    xs: tuple[float, ...]
    ys: tuple[float, ...]
    labels: tuple[bool, ...]

    def __post_init__(self) -> None:
        _check_slice_index("point", self.slice_index)
        if not (len(self.xs) == len(self.ys) == len(self.labels) > 0):
            raise PromptError(
                f"Points need as many x as y and labels, at least one; {len(self.xs)}, {len(self.ys)}, {len(self.labels)} came."
            )
        _finite("point", (*self.xs, *self.ys))


@dataclass(frozen=True)
class MaskPrompt:
    """A mask painted on one slice, (rows, columns) bool."""

    slice_index: int
    mask: npt.NDArray[np.bool_] = field(repr=False)

    def __post_init__(self) -> None:
        _check_slice_index("mask", self.slice_index)
        if self.mask.ndim != 2:
            raise PromptError(f"A mask prompt is one slice of (rows, columns), but its shape is {self.mask.shape}.")
        if not self.mask.any():
            raise PromptError(f"The mask prompt on slice {self.slice_index} is empty; paint at least one pixel.")


@dataclass(frozen=True)
class RecistLine:
    """The longest diameter of a lesion, measured on one slice from (x0, y0) to (x1, y1)."""

    slice_index: int
    x0: float
    y0: float
    x1: float
    y1: float

    def __post_init__(self) -> None:
        _check_slice_index("line", self.slice_index)
        _finite("line", (self.x0, self.y0, self.x1, self.y1))
        if (self.x0, self.y0) == (self.x1, self.y1):
            raise PromptError("A RECIST line needs two different ends, but both are the same point.")

    def to_box(self) -> Box:
        """The square of the line's length around its midpoint, as MedSAM2's RECIST protocol takes it."""
        half = math.hypot(self.x1 - self.x0, self.y1 - self.y0) / 2
        x, y = (self.x0 + self.x1) / 2, (self.y0 + self.y1) / 2
        return Box(self.slice_index, x - half, y - half, x + half, y + half)


@dataclass(frozen=True)
class Box3D:
    """A box on the middle of the slices `first`..`last` (inclusive), and the order to stay within them."""

    first: int
    last: int
    x0: float
    y0: float
    x1: float
    y1: float

    def __post_init__(self) -> None:
        if not 0 <= self.first <= self.last:
            raise PromptError(f"A 3D box goes from a first to a last slice, both from 0, but {self.first}..{self.last} came.")
        self.middle_box()

    def middle_box(self) -> Box:
        return Box((self.first + self.last) // 2, self.x0, self.y0, self.x1, self.y1)


Prompt = Box | Points | MaskPrompt | RecistLine | Box3D
