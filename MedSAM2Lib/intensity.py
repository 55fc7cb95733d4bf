"""Windows: which intensities a slice shows, and the 0..255 picture that the networks take.

A window is applied as MedSAM2's scripts do (Ma et al., arXiv 2504.03600; their repository's CT and MR inference
scripts): clip to the window, stretch it to 0..255, cut off the fraction. They stretch what is left between the
lowest and the highest voxel of the clipped volume; here it is the window itself, which is the same wherever the
volume reaches both of its ends, and does not change with what happens to be in the picture.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import numpy as np
import numpy.typing as npt

from MedSAM2Lib.errors import OptionError
from MedSAM2Lib.volume import Volume

__all__ = ["PRESETS", "Window", "apply_window", "is_ct", "resolve_window"]

# MedSAM2's scripts for everything that is not CT.
_PERCENTILES = (0.5, 99.5)
# Fewer non-zero voxels than this say nothing about the image's range: then all voxels count.
_FEWEST_VOXELS = 100
# Air is -1000 HU, fat -100 HU. Any CT of a patient holds a voxel below this, and hardly anything else does.
_LOWEST_VALUE_OF_A_CT = -200
# The soft tissue window of `auto`.
_AUTO_PRESET = "abdomen"


@dataclass(frozen=True)
class Window:
    """The intensities `low` (black) to `high` (white), in the units of the volume, HU for CT."""

    low: float
    high: float

    def __post_init__(self) -> None:
        if not (math.isfinite(self.low) and math.isfinite(self.high) and self.low < self.high):
            raise OptionError(f"A window goes from a lower to a higher finite number, but {self.low:g}:{self.high:g} came.")

    @classmethod
    def from_width_level(cls, width: float, level: float) -> Window:
        return cls(level - width / 2, level + width / 2)


# Width and level in HU. abdomen, lung, brain, mediastinum: the presets of MedSAM2's own Slicer plugin. The others:
# https://radiopaedia.org/articles/windowing-ct (where it gives a range, its middle).
PRESETS: Mapping[str, Window] = MappingProxyType(
    {
        name: Window.from_width_level(width, level)
        for name, (width, level) in {
            "abdomen": (400, 40),
            "soft-tissue": (400, 50),
            "liver": (150, 30),
            "lung": (1500, -600),
            "mediastinum": (350, 50),
            "bone": (1800, 400),
            "brain": (80, 40),
            "stroke": (40, 40),
            "subdural": (215, 75),
            "spine": (250, 50),
        }.items()
    }
)


def resolve_window(spec: str, volume: Volume) -> Window:
    """The window that a word means for a volume.

    `auto`         CT (by DICOM's word, or by a lowest value that only air and lung have): the soft tissue window;
                   8-bit images that use most of 0..255: as they are; anything else: `percentiles`
    `percentiles`  0.5 to 99.5 % of the voxels that are not 0
    a preset       a key of PRESETS, in HU
    `LOW:HIGH`     two numbers in the volume's units

    Raises OptionError, listing the choices.
    """
    if spec == "auto":
        return _auto_window(volume)
    if spec == "percentiles":
        return _percentile_window(volume.array)
    if spec in PRESETS:
        return PRESETS[spec]
    low, colon, high = spec.partition(":")
    try:
        if not colon:
            raise ValueError
        return Window(float(low), float(high))
    except ValueError as error:
        raise OptionError(f"Unknown window {spec!r}: use auto, percentiles, {', '.join(PRESETS)}, or LOW:HIGH.") from error


def apply_window(values: npt.NDArray[Any], window: Window) -> npt.NDArray[np.uint8]:
    """The 0..255 picture of a slice (or any array): `low` and below 0, `high` and above 255, truncated between.

    Computes in float64 on a copy; `values` is not changed.
    """
    picture = np.clip(values.astype(np.float64), window.low, window.high)
    picture -= window.low
    picture /= window.high - window.low
    picture *= 255.0
    return picture.astype(np.uint8)


def is_ct(volume: Volume) -> bool:
    """By DICOM's word, or by a lowest value that only air and lung have."""
    return volume.modality == "CT" or (volume.modality is None and float(volume.array.min()) <= _LOWEST_VALUE_OF_A_CT)


def _auto_window(volume: Volume) -> Window:
    if _is_already_a_picture(volume.array):
        return Window(0.0, 255.0)
    if is_ct(volume):
        return PRESETS[_AUTO_PRESET]
    return _percentile_window(volume.array)


def _is_already_a_picture(array: npt.NDArray[Any]) -> bool:
    """8 bits of which the highest is used: windowed before, as the challenges' `.npz` are."""
    return bool(array.dtype == np.uint8 and array.max() >= 128)


def _percentile_window(array: npt.NDArray[Any]) -> Window:
    """Always a window with low < high: a Volume is never constant."""
    if array.dtype.kind in "iu" and array.dtype.itemsize <= 2:
        low, high = _counted_percentiles(array)
    else:
        voxels = array[array != 0]
        enough = voxels.size >= _FEWEST_VOXELS
        low, high = (float(value) for value in np.percentile(voxels, _PERCENTILES)) if enough else (0.0, 0.0)
    return Window(low, high) if low < high else Window(float(array.min()), float(array.max()))


def _counted_percentiles(array: npt.NDArray[Any]) -> tuple[float, float]:
    """The same as NumPy's, of what is not 0, from how often each value occurs: sorting a large volume takes seconds, this a
    tenth. (0, 0) where there is too little."""
    lowest = int(array.min())
    counts = np.zeros(int(array.max()) - lowest + 1, dtype=np.intp)
    for plane in array:
        counts += np.bincount(plane.ravel().astype(np.intp) - lowest, minlength=len(counts))
    if 0 <= -lowest < len(counts):
        counts[-lowest] = 0
    up_to = counts.cumsum()
    if up_to[-1] < _FEWEST_VOXELS:
        return 0.0, 0.0
    places = np.array([(up_to[-1] - 1) * (percent / 100) for percent in _PERCENTILES])
    below = np.searchsorted(up_to, np.floor(places), side="right") + lowest
    above = np.searchsorted(up_to, np.floor(places) + 1, side="right") + lowest
    low, high = below + (above - below) * (places - np.floor(places))
    return float(low), float(high)
