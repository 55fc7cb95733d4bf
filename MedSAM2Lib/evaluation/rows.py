"""One line of the table of results: one structure, one method, after so many corrections."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

import numpy as np
import numpy.typing as npt

from MedSAM2Lib import metrics

__all__ = ["MODEL", "SURFACE_TOLERANCE_MM", "Agreement", "Row", "agreement", "from_json", "to_json"]

MODEL = "model"  # the method that is evaluated; the others are baselines
SURFACE_TOLERANCE_MM = 2.0

_BoolArray = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Agreement:
    """How well a mask agrees with the reference.

    slice_dice is the mean over the slices prompted first. The others are of the whole volume, and None for an image of
    one slice, where they would be the slice's once more. hd95_mm is also None where the mask is empty.
    """

    slice_dice: float
    dice: float | None
    iou: float | None
    surface_dice: float | None  # at SURFACE_TOLERANCE_MM
    hd95_mm: float | None
    volume_error_ml: float | None  # positive when the mask is too large
    relative_volume_error: float | None  # of the reference's volume


@dataclass(frozen=True)
class Row(Agreement):
    case: str
    structure: str
    modality: str
    anatomy: str
    method: str  # MODEL, or a key of baselines.BASELINES
    corrections: int  # made so far, each followed by a new propagation
    prompts: int  # given so far: boxes, lines, masks and single clicks count one each
    prompted_slices: tuple[int, ...]  # along k
    reference_ml: float
    seconds: float | None  # from the prompt (or the correction) to the last mask of the volume; None for a baseline


def agreement(
    mask: _BoolArray, reference: _BoolArray, spacing: tuple[float, float, float], prompted_slices: tuple[int, ...]
) -> Agreement:
    """Masks are (k, j, i) bool, spacing (i, j, k) mm."""
    slice_dice = float(np.mean([metrics.dice(mask[k : k + 1], reference[k : k + 1]) for k in prompted_slices]))
    if len(reference) == 1:
        return Agreement(slice_dice, None, None, None, None, None, None)
    scores = metrics.score(mask, reference, spacing, SURFACE_TOLERANCE_MM)
    return Agreement(
        slice_dice=slice_dice,
        dice=scores.dice,
        iou=scores.iou,
        surface_dice=scores.surface_dice,
        hd95_mm=scores.hd95_mm if math.isfinite(scores.hd95_mm) else None,
        volume_error_ml=scores.volume_error_ml,
        relative_volume_error=scores.relative_volume_error,
    )


def to_json(row: Row) -> dict[str, Any]:
    return asdict(row)


def from_json(content: Mapping[str, Any]) -> Row:
    """Raises KeyError for a record that lacks a field."""
    values = {one.name: content[one.name] for one in fields(Row)}
    return Row(**{**values, "prompted_slices": tuple(values["prompted_slices"])})
