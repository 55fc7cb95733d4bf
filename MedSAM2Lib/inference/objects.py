"""What a session knows of one object."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
from torch import Tensor

from MedSAM2Lib.frames import View
from MedSAM2Lib.inference.tracker import Tracker
from MedSAM2Lib.prompts import Box, Points

__all__ = ["SegmentedObject", "SliceConfidence", "SliceRecord", "SliceResult"]


@dataclass(frozen=True)
class SliceConfidence:
    """What the network thinks of its own mask on one slice."""

    iou: float  # expected IoU with the truth, 0..1
    presence: float  # probability that the object is on the slice, 0..1
    prompted: bool  # a person spoke on this slice


@dataclass(frozen=True)
class SliceResult:
    """The mask of one object on one slice, as soon as it is known."""

    object: str
    slice_index: int
    mask: npt.NDArray[np.bool_] = field(repr=False)  # (rows, columns)
    confidence: SliceConfidence


@dataclass(frozen=True)
class SliceRecord:
    """What is kept of a segmented slice: enough to correct it, or to see it through another view."""

    logits: Tensor  # (1, 1, S / 4, S / 4) float16 on the CPU
    view: View
    confidence: SliceConfidence


@dataclass
class SegmentedObject:
    """One thing to segment. `mask` is (slices, rows, columns) along the session's slicing axis."""

    name: str
    tracker: Tracker
    view: View
    mask: npt.NDArray[np.bool_]
    records: dict[int, SliceRecord] = field(default_factory=dict)
    boxes: dict[int, Box] = field(default_factory=dict)  # by slice; clicks refine the box of their slice
    clicks: dict[int, list[Points]] = field(default_factory=dict)
    memory_views: dict[int, View] = field(default_factory=dict)  # through which view a slice's memory was made
    limits: tuple[int, int] | None = None  # slices that a 3D box allows

    @property
    def prompted(self) -> list[int]:
        """Slices on which a person spoke."""
        return [index for index, record in self.records.items() if record.confidence.prompted]
