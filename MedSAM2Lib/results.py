"""What a session answers, slice by slice. No torch here: front ends that never import it receive the same records."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

__all__ = ["PropagationReport", "SliceConfidence", "SliceResult"]


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
class PropagationReport:
    """What a propagation that ended has done, by object."""

    segmented: dict[str, int]  # slices that were segmented
    planned: dict[str, int]  # slices that might have been, had no pass ended earlier
    cancelled: bool  # it was stopped before its end
