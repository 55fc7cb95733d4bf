"""An image or a map of labels together with where it lies in the patient."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from MedSAM2Lib.errors import VolumeError
from MedSAM2Lib.geometry import Geometry

__all__ = ["Labelmap", "Volume"]

# A larger distance between voxel centres is a damaged header: the tallest patient fits between two of them three times.
_LARGEST_SPACING_MM = 1000.0


@dataclass(frozen=True)
class Volume:
    """A scalar image that can be segmented.

    array      (k, j, i) voxels of an integer or floating-point type, HU where it is a CT; read-only. Making a Volume
               does not copy and does not touch the array given, it keeps a read-only view
    geometry   the grid, world in LPS mm
    modality   DICOM's word, 'CT', 'MR', 'PT', 'US', ...; None when the file does not tell
    source     the path it came from, for messages; may be empty

    Raises VolumeError when the array is not one that can be segmented: wrong shape or type, NaN or infinite voxels,
    every voxel the same, a spacing that no scanner makes.
    """

    array: npt.NDArray[Any] = field(repr=False)
    geometry: Geometry
    modality: str | None = None
    source: str = ""

    def __post_init__(self) -> None:
        _check_array(self.array, self.geometry, self.source)
        _check_values(self.array, self.source)
        object.__setattr__(self, "array", _read_only(self.array))


@dataclass(frozen=True)
class Labelmap:
    """A map of labels, 0 where there is none.

    array      (k, j, i) voxels of an integer type, read-only as in Volume
    geometry   the grid, world in LPS mm
    source     the path it came from, for messages; may be empty
    """

    array: npt.NDArray[Any] = field(repr=False)
    geometry: Geometry
    source: str = ""

    def __post_init__(self) -> None:
        _check_array(self.array, self.geometry, self.source)
        if self.array.dtype.kind not in "iu":
            raise VolumeError(f"{_named(self.source)}: labels must be integers, but the voxels are {self.array.dtype}.")
        object.__setattr__(self, "array", _read_only(self.array))

    def values(self) -> list[int]:
        """The labels that occur, ascending, without 0."""
        return [int(value) for value in np.unique(self.array) if value != 0]


def _named(source: str) -> str:
    return source or "The image"


def _read_only(array: npt.NDArray[Any]) -> npt.NDArray[Any]:
    view = array.view()
    view.flags.writeable = False
    return view


def _check_array(array: npt.NDArray[Any], geometry: Geometry, source: str) -> None:
    name = _named(source)
    if array.ndim != 3:
        raise VolumeError(f"{name}: expected a 3D array (k, j, i), but its shape is {array.shape}; take one image of the series.")
    if array.shape != geometry.shape:
        raise VolumeError(
            f"{name}: the array is {array.shape} voxels, but its geometry says {geometry.shape}; both are (k, j, i)."
        )
    if array.dtype.kind not in "iuf":
        raise VolumeError(
            f"{name}: expected whole or floating-point numbers, but the voxels are {array.dtype}; "
            "convert the image to a real scalar type."
        )
    if max(geometry.spacing) > _LARGEST_SPACING_MM:
        raise VolumeError(
            f"{name}: voxel spacing must be at most {_LARGEST_SPACING_MM:g} mm, but it is {geometry.spacing} mm; "
            "correct the file's header."
        )


def _check_values(array: npt.NDArray[Any], source: str) -> None:
    name = _named(source)
    if array.dtype.kind == "f":
        # Slice by slice: a mask of a whole floating-point volume would be a quarter of its size again.
        bad = sum(int(np.count_nonzero(~np.isfinite(plane))) for plane in array)
        if bad:
            raise VolumeError(
                f"{name}: expected finite voxels, but {bad} of {array.size} are NaN or infinite; "
                "replace them by a value of the background, and save the image again."
            )
    if array.min() == array.max():
        raise VolumeError(
            f"{name}: expected an image with contrast, but all {array.size} voxels are {array.flat[0]}; "
            "check that the right file was chosen."
        )
