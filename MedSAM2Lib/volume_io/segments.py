"""Named, coloured masks on one grid, and their map of labels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from MedSAM2Lib.errors import OptionError, OutputError
from MedSAM2Lib.geometry import Geometry

__all__ = ["Segment", "check_segments", "label_type", "merge_labels", "segment_color"]

# Twelve colours far apart from each other and from the grey of an image, the most different ones first.
_COLORS = (
    (0.90, 0.25, 0.20),
    (0.20, 0.70, 0.30),
    (0.20, 0.45, 0.90),
    (0.95, 0.80, 0.15),
    (0.75, 0.30, 0.85),
    (0.10, 0.85, 0.85),
    (0.95, 0.55, 0.15),
    (0.95, 0.50, 0.70),
    (0.60, 0.85, 0.20),
    (0.55, 0.35, 0.15),
    (0.55, 0.55, 1.00),
    (0.00, 0.45, 0.45),
)


def segment_color(index: int) -> tuple[float, float, float]:
    """The default colour (red, green, blue), each 0..1, of the segment number `index` from 0; repeats after twelve."""
    return _COLORS[index % len(_COLORS)]


@dataclass(frozen=True)
class Segment:
    """One named object.

    name    what a person calls it
    mask    (k, j, i) bool
    color   red, green, blue, each 0..1; None for the default of its place in the list
    terminology  what it is, as 3D Slicer's vtkSegment keeps it; None where nothing is known
    made_with    networks that had a part in it, and how they computed; None where nothing is known
    """

    name: str
    mask: npt.NDArray[np.bool_] = field(repr=False)
    color: tuple[float, float, float] | None = None
    terminology: str | None = None
    made_with: str | None = None

    def __post_init__(self) -> None:
        if not self.name.strip():
            raise OptionError("A segment needs a name, but it is empty.")
        if self.color is not None and not (len(self.color) == 3 and all(0 <= part <= 1 for part in self.color)):
            raise OptionError(f"The colour of {self.name!r} must be three numbers from 0 to 1, but it is {self.color}.")


def label_type(count: int) -> type[np.uint8] | type[np.uint16]:
    """The smallest type that holds the labels 0..count."""
    return np.uint8 if count <= np.iinfo(np.uint8).max else np.uint16


def merge_labels(segments: Sequence[Segment], geometry: Geometry) -> npt.NDArray[np.uint8 | np.uint16]:
    """(k, j, i) map: the segment's place in the list, from 1; 0 is background; a later segment covers an earlier one."""
    check_segments(segments, geometry)
    labels = np.zeros(geometry.shape, label_type(len(segments)))
    for value, segment in enumerate(segments, start=1):
        labels[segment.mask] = value
    return labels


def check_segments(segments: Sequence[Segment], geometry: Geometry) -> None:
    """Raises OutputError unless there are segments and each mask is bool on this grid."""
    if not 0 < len(segments) <= np.iinfo(np.uint16).max:
        raise OutputError(f"Expected 1 to {np.iinfo(np.uint16).max} segments to write, but {len(segments)} came.")
    for segment in segments:
        if segment.mask.shape != geometry.shape or segment.mask.dtype != np.bool_:
            raise OutputError(
                f"The mask of {segment.name!r} must be bool of shape {geometry.shape} (k, j, i), "
                f"but it is {segment.mask.dtype} of {segment.mask.shape}."
            )
