"""What is measured, and how long a step takes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from MedSAM2Lib.benchmark.clock import now
from MedSAM2Lib.errors import OptionError

__all__ = ["CORRECTED", "Masks", "Plan", "Steps", "click", "seconds_of"]

Steps = Iterator[object]  # each is done when it is asked for
Masks = dict[int, npt.NDArray[np.bool_]]  # by slice, (rows, columns)

CORRECTED = 1  # the slice that is corrected: beside the prompted one, so that all go through the others in one order


@dataclass(frozen=True)
class Plan:
    """How much is measured. The defaults take some five minutes on two cores."""

    slices: int = 12
    encoder_repeats: int = 5
    first_mask_repeats: int = 3
    prompt_repeats: int = 9
    objects: int = 5
    most_object_slices: int = 6  # tracked with all objects, the prompted one not counted

    def __post_init__(self) -> None:
        if self.slices < 3:
            raise OptionError(f"A benchmark needs at least 3 slices, but {self.slices} came.")

    @property
    def object_slices(self) -> int:
        return min(self.most_object_slices, self.slices - 1)


def click(size: int) -> tuple[float, float]:
    """(x, y) of a correction anywhere: what it says does not change how long it takes."""
    return size * 0.55, size * 0.5


def seconds_of(steps: Steps, device: torch.device) -> float | None:
    """Seconds of the next step; None at the end."""
    begun = now(device)
    try:
        next(steps)
    except StopIteration:
        return None
    return now(device) - begun
