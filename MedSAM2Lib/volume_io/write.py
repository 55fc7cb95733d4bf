"""Segments to a file: a plain map of labels, or the `.seg.nrrd` that 3D Slicer opens as a segmentation."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from MedSAM2Lib.atomic import atomic_path, check_writable
from MedSAM2Lib.errors import OptionError, OutputError
from MedSAM2Lib.geometry import Geometry
from MedSAM2Lib.volume_io.itk import image_from_array, quiet_itk, reason_of
from MedSAM2Lib.volume_io.seg_nrrd import write_seg_nrrd
from MedSAM2Lib.volume_io.segments import Segment, check_segments, merge_labels

__all__ = [
    "Segment", "check_map_path", "check_segmentation_path", "is_segmentation_path", "write_map", "write_segmentation",
]  # fmt: skip


def write_segmentation(path: str | os.PathLike[str], segments: Sequence[Segment], geometry: Geometry) -> None:
    """Writes segments in the format that the extension names; the file is whole or not there.

    `.nii.gz` `.nii` `.nrrd` `.mha`: one map of labels, 1 for the first segment, 2 for the second and so on; where
    segments overlap, the later one in the list has the voxel. `.seg.nrrd`: names, colours and every voxel of every
    segment, overlapping ones in layers, as 3D Slicer stores a segmentation.

    Origin, spacing and direction are those of `geometry`, in NRRD and MetaImage to the last digits of a float64.
    NIfTI stores them as float32: to about 1e-7 of their value.

    Raises OptionError for an unknown extension, OutputError when it cannot be written or the masks do not fit.
    """
    write = _writer_for(path)
    check_segments(segments, geometry)
    with atomic_path(path) as temporary:
        write(temporary, segments, geometry)


def is_segmentation_path(path: Path) -> bool:
    """Whether a path ends as a file of segments does."""
    return path.name.lower().endswith(tuple(_WRITERS))


def check_segmentation_path(path: str | os.PathLike[str]) -> None:
    """Raises what `write_segmentation` would for this path, before the work whose result it is to hold."""
    _writer_for(path)
    check_writable(path)


def write_map(path: Path, values: npt.NDArray[np.float32], geometry: Geometry) -> None:
    """Writes a value per voxel, (k, j, i), as `.nii.gz`, `.nii`, `.nrrd` or `.mha`; the file is whole or not there.

    Raises OptionError for another extension, OutputError when it cannot be written.
    """
    check_map_path(path)
    with atomic_path(path) as temporary:
        _write_array(temporary, values, geometry, "map")


def check_map_path(path: Path) -> None:
    """Raises what `write_map` would for this path, before the work whose result it is to hold."""
    if _writer_for(path) is write_seg_nrrd:
        raise OptionError(f"A map of values is no segmentation, but {path} ends in .seg.nrrd; write it as .nrrd.")
    check_writable(path)


_Writer = Callable[[Path, Sequence[Segment], Geometry], None]


def _write_labels(path: Path, segments: Sequence[Segment], geometry: Geometry) -> None:
    _write_array(path, merge_labels(segments, geometry), geometry, "segmentation")


def _write_array(path: Path, array: npt.NDArray[Any], geometry: Geometry, what: str) -> None:
    with quiet_itk() as sitk:
        try:
            sitk.WriteImage(image_from_array(array, geometry), str(path), useCompression=True)
            written = sitk.GetArrayFromImage(sitk.ReadImage(str(path)))
        except RuntimeError as error:
            raise OutputError(f"The {what} cannot be written to {path.parent} ({reason_of(error)}); is the disk full?") from error
    # ITK's writers do not look whether the system took all their bytes: a full disk shows only on reading back.
    if not np.array_equal(written, array):
        raise OutputError(f"The {what} written to {path.parent} came back damaged; is the disk full?")


# Longest first: `.seg.nrrd` is also a `.nrrd`.
_WRITERS: dict[str, _Writer] = {
    ".seg.nrrd": write_seg_nrrd,
    ".nii.gz": _write_labels,
    ".nrrd": _write_labels,
    ".nii": _write_labels,
    ".mha": _write_labels,
}


def _writer_for(path: str | os.PathLike[str]) -> _Writer:
    name = Path(path).name.lower()
    for extension, writer in _WRITERS.items():
        if name.endswith(extension):
            return writer
    raise OptionError(
        f"A segmentation is written as {', '.join(_WRITERS)}, but {os.fspath(path)} ends otherwise; change the extension."
    )
