"""The `.npz` files of the MedSAM challenges: `imgs` (D, H, W), optional `gts` of the same shape, `spacing` (x, y, z) mm.

They hold no origin and no direction: the grid starts at 0, and its axes are the patient's.
"""

from __future__ import annotations

import logging
import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from MedSAM2Lib.errors import VolumeError
from MedSAM2Lib.geometry import Geometry

__all__ = ["IMAGE_KEY", "LABELS_KEY", "read_npz"]

IMAGE_KEY = "imgs"
LABELS_KEY = "gts"

_LOGGER = logging.getLogger(__name__)


def read_npz(path: Path, key: str) -> tuple[npt.NDArray[Any], Geometry]:
    """The (k, j, i) array under `key` and its grid. A 2D array is one slice. Raises VolumeError."""
    try:
        with path.open("rb") as stream, np.load(stream, allow_pickle=False) as archive:
            names = list(archive.files)
            array = np.asarray(archive[key]) if key in names else None
            spacing = np.asarray(archive["spacing"]) if "spacing" in names else None
    except (OSError, ValueError, EOFError, KeyError, AttributeError, zipfile.BadZipFile, zlib.error) as error:
        raise VolumeError(f"{path} cannot be read as .npz ({error}); it may be damaged or cut short, copy it again.") from error
    if array is None:
        raise VolumeError(f"{path}: expected an array {key!r} in the .npz, but it holds {', '.join(names) or 'nothing'}.")
    if array.ndim == 2:
        array = array[np.newaxis]
    if array.ndim == 4:
        raise VolumeError(
            f"{path}: expected one grey value per voxel, (D, H, W), but {key!r} has the shape {array.shape}; "
            "convert a colour video to grey, or split a 4D image into its time points."
        )
    if array.ndim != 3:
        raise VolumeError(f"{path}: expected {key!r} of shape (D, H, W), but it is {array.shape}.")
    depth, height, width = array.shape
    return array, Geometry(shape=(depth, height, width), spacing=_spacing(path, spacing))


def _spacing(path: Path, values: npt.NDArray[Any] | None) -> tuple[float, float, float]:
    if values is None:
        _LOGGER.warning("%s holds no spacing: 1 mm is taken, volumes in ml and distances in mm mean voxels.", path)
        return (1.0, 1.0, 1.0)
    if values.shape != (3,) or values.dtype.kind not in "iuf":
        raise VolumeError(f"{path}: expected a spacing of 3 numbers (x, y, z) in mm, but it is {values.tolist()!r}.")
    x, y, z = (float(value) for value in values)
    return (x, y, z)
