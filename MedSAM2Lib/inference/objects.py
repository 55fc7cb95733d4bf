"""What a session knows of one object."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

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
    """What is kept of a segmented slice: its mask, and enough to correct it, or to see it through another view."""

    mask: npt.NDArray[np.bool_]  # (rows, columns)
    logits: Tensor  # (1, 1, S / 4, S / 4) float16 on the CPU
    view: View
    confidence: SliceConfidence


@dataclass
class SegmentedObject:
    """One thing to segment. The slices that have no record are empty."""

    name: str
    tracker: Tracker
    view: View
    records: dict[int, SliceRecord] = field(default_factory=dict)
    boxes: dict[int, Box] = field(default_factory=dict)  # by slice; clicks refine the box of their slice
    clicks: dict[int, tuple[Points, ...]] = field(default_factory=dict)
    limits: tuple[int, int] | None = None  # slices that a 3D box allows

    def copy(self) -> SegmentedObject:
        """One that can be changed without changing this one; what is kept of a slice never changes, so it is shared."""
        return replace(
            self,
            tracker=self.tracker.copy(),
            records=dict(self.records),
            boxes=dict(self.boxes),
            clicks=dict(self.clicks),
        )

    @property
    def prompted(self) -> list[int]:
        """Slices on which a person spoke."""
        return [index for index in self.records if self.is_prompted(index)]

    @property
    def painted(self) -> list[int]:
        """Slices whose mask is the one that a person painted."""
        return [index for index in self.prompted if index not in self.boxes and index not in self.clicks]

    def is_prompted(self, index: int) -> bool:
        record = self.records.get(index)
        return record is not None and record.confidence.prompted

    def may_track(self, index: int) -> bool:
        """Whether a pass may segment a slice: no person spoke on it, and it lies within a 3D box, if there is one."""
        low, high = self.limits or (index, index)
        return low <= index <= high and not self.is_prompted(index)

    def forget(self, index: int) -> None:
        """The slice becomes empty, as if it had never been segmented."""
        for kept in (self.records, self.boxes, self.clicks):
            kept.pop(index, None)
        self.tracker.forget(index)
