"""A folder of DICOM files as one volume: which series, and whether its slices make a regular grid."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from MedSAM2Lib.errors import OptionError, VolumeError
from MedSAM2Lib.geometry import Geometry
from MedSAM2Lib.volume_io.itk import geometry_of, quiet_itk, reason_of

__all__ = ["MODALITY_TAG", "THICKNESS_TAG", "Series", "list_series", "read_series", "with_slice_thickness"]

MODALITY_TAG = "0008|0060"
_DESCRIPTION_TAG = "0008|103e"
_POSITION_TAG = "0020|0032"
THICKNESS_TAG = "0018|0050"

# A DICOM file begins with 128 bytes of anything and this.
_MAGIC_OFFSET, _MAGIC = 128, b"DICM"
# The element (0002,0002) among the first ones of a file says what is stored: the number behind this root.
_HEAD_BYTES = 1024
_STORAGE_CLASS = re.compile(rb"\x02\x00\x02\x00UI..1\.2\.840\.10008\.5\.1\.4\.1\.1\.(\d+)", re.DOTALL)
# CR and DX, CT, US (two), MR, secondary capture, XA (two), NM, microscopy, PET (two): DICOM PS3.4, table B.5-1.
_IMAGE_CLASSES = frozenset({"1", "2", "3", "6", "4", "7", "12", "13", "20", "77", "128", "130"})
# The index of a DICOM medium, which is no image.
_INDEX_NAME = "DICOMDIR"

# A slice may lie this share of the slice spacing off the regular grid. Scanners round positions to 0.01 mm or so;
# one missing slice moves its neighbours by about half a spacing.
_OFF_GRID_TOLERANCE = 0.2


@dataclass(frozen=True)
class Series:
    """One DICOM series of a folder; `files` in the order of their positions."""

    uid: str
    description: str
    modality: str | None
    files: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.uid}  {self.modality or '?'}  {len(self.files)} files  {self.description or '(no description)'}"


def list_series(folder: Path) -> list[Series]:
    """The image series among the files of a folder (not of its subfolders), by UID.

    Series without pictures (structure sets, reports) are left out. Raises VolumeError when a DICOM file is damaged:
    GDCM passes over it, and at either end of a stack nobody would notice that a slice is missing.
    """
    with quiet_itk() as sitk:
        reader = sitk.ImageSeriesReader
        files_of = {uid: reader.GetGDCMSeriesFileNames(str(folder), uid) for uid in reader.GetGDCMSeriesIDs(str(folder))}
        _check_none_damaged(folder, {Path(file).name for files in files_of.values() for file in files})
        described = [_describe(sitk, uid, files_of[uid]) for uid in sorted(files_of) if files_of[uid]]
    return [series for series in described if series is not None]


def read_series(folder: Path, uid: str | None) -> tuple[npt.NDArray[Any], Geometry, str | None]:
    """(k, j, i) array in the units of the modality (HU for CT), grid and modality of a series.

    `uid` may be None when the folder holds one series. Raises VolumeError, or OptionError for an unknown `uid`.
    """
    series = _choose(folder, list_series(folder), uid)
    with quiet_itk() as sitk:
        reader = sitk.ImageSeriesReader()
        reader.SetFileNames(series.files)
        reader.MetaDataDictionaryArrayUpdateOn()
        try:
            image = reader.Execute()
        except RuntimeError as error:
            raise VolumeError(
                f"{folder}: the {len(series.files)} files of series {series.uid} cannot be read as one volume "
                f"({reason_of(error)}); a file may be damaged, or the slices differ in size."
            ) from error
        if image.GetNumberOfComponentsPerPixel() != 1:
            raise VolumeError(
                f"{folder}: expected one grey value per voxel, but the series has {image.GetNumberOfComponentsPerPixel()} "
                "(colour); choose another series, or convert it to grey."
            )
        if image.GetDimension() == 4:
            image = _without_fourth_dimension(folder, image)
        geometry = geometry_of(image)
        if reader.HasMetaDataKey(0, THICKNESS_TAG):
            geometry = with_slice_thickness(geometry, reader.GetMetaData(0, THICKNESS_TAG))
        positions = _positions(folder, reader, len(series.files))
        if positions is not None and len(positions) == geometry.shape[0]:
            _check_regular(folder, geometry, positions)
        return sitk.GetArrayFromImage(image), geometry, series.modality


def _describe(sitk: Any, uid: str, files: Sequence[str]) -> Series | None:
    """None for a series that holds no pictures."""
    reader = sitk.ImageFileReader()
    reader.SetFileName(files[0])
    try:
        reader.ReadImageInformation()
    except RuntimeError:
        return None
    return Series(uid, _tag(reader, _DESCRIPTION_TAG) or "", _tag(reader, MODALITY_TAG), tuple(files))


def _check_none_damaged(folder: Path, readable: set[str]) -> None:
    damaged = [
        file.name
        for file in sorted(folder.iterdir())
        if file.is_file() and file.name not in readable and file.name.upper() != _INDEX_NAME and _is_an_image(file)
    ]
    if damaged:
        shown = ", ".join(damaged[:5]) + (", ..." if len(damaged) > 5 else "")
        raise VolumeError(
            f"{folder}: {len(damaged)} DICOM file(s) cannot be read ({shown}); copy the folder again, or take them out of it."
        )


def _is_an_image(file: Path) -> bool:
    """Whether a file says of itself that it is DICOM and holds a picture, as far as it still says anything."""
    try:
        with file.open("rb") as stream:
            head = stream.read(_HEAD_BYTES)
    except OSError:
        return True
    if head[_MAGIC_OFFSET : _MAGIC_OFFSET + len(_MAGIC)] != _MAGIC:
        return False
    found = _STORAGE_CLASS.search(head)
    return found is None or found[1].decode() in _IMAGE_CLASSES


def with_slice_thickness(geometry: Geometry, thickness: str) -> Geometry:
    """One slice has no neighbour to be spaced from: its thickness, where the header tells (mm), stands for it."""
    try:
        value = float(thickness)
    except ValueError:
        return geometry
    if geometry.shape[0] != 1 or not value > 0:
        return geometry
    return replace(geometry, spacing=(*geometry.spacing[:2], value))


def _tag(reader: Any, tag: str) -> str | None:
    return (reader.GetMetaData(tag).strip() or None) if reader.HasMetaDataKey(tag) else None


def _choose(folder: Path, found: list[Series], uid: str | None) -> Series:
    listing = "".join(f"\n  {series}" for series in found)
    if not found:
        raise VolumeError(
            f"{folder}: expected DICOM images, but there are none (subfolders are not searched); give the folder of one series."
        )
    if uid is None and len(found) > 1:
        raise VolumeError(
            f"{folder}: expected one DICOM series, but there are {len(found)}; "
            f"choose one by its UID (series=UID, --series UID):{listing}"
        )
    matching = [series for series in found if uid is None or series.uid == uid]
    if not matching:
        raise OptionError(f"{folder} holds no DICOM series {uid}; it holds:{listing}")
    return matching[0]


def _without_fourth_dimension(folder: Path, image: Any) -> Any:
    if image.GetSize()[3] != 1:
        raise VolumeError(f"{folder}: expected a 3D series, but it is 4D of size {image.GetSize()}; export one time point.")
    return image[:, :, :, 0]


def _positions(folder: Path, reader: Any, count: int) -> npt.NDArray[np.float64] | None:
    """(slices, 3) LPS mm from the headers, None where they do not tell (ultrasound, secondary capture)."""
    told = [reader.GetMetaData(n, _POSITION_TAG) for n in range(count) if reader.HasMetaDataKey(n, _POSITION_TAG)]
    if len(told) < count:
        return None
    try:
        positions = np.array([[float(part) for part in one.split("\\")] for one in told])
    except ValueError:  # letters, or more numbers in one place than in another
        positions = np.array([])
    if positions.shape != (count, 3) or not np.isfinite(positions).all():
        raise VolumeError(
            f"{folder}: expected the position of each slice as three numbers, but one of the files has something else; "
            "it is damaged, copy the folder again."
        )
    return positions


def _check_regular(folder: Path, geometry: Geometry, positions: npt.NDArray[np.float64]) -> None:
    """Raises VolumeError when slices lie elsewhere than a regular grid puts them: masks would be in the wrong place."""
    count = len(positions)
    if len(np.unique(np.round(positions, 3), axis=0)) < count:
        raise VolumeError(
            f"{folder}: expected one image per position, but some of the {count} share theirs (several time points or "
            "echoes in one series); export one of them."
        )
    normal = geometry.direction_matrix[:, 2]
    expected = geometry.index_to_world([(0, 0, k) for k in range(count)])
    offset = positions - expected
    along = offset @ normal
    across = np.linalg.norm(offset - np.outer(along, normal), axis=1)
    if np.max(across) > min(geometry.spacing[:2]):
        raise VolumeError(
            f"{folder}: expected slices stacked at a right angle, but they shift sideways by up to {np.max(across):.1f} mm "
            "(gantry tilt); load the series in 3D Slicer, harden the transform that straightens it, and save it as NRRD."
        )
    if np.max(np.abs(along)) > _OFF_GRID_TOLERANCE * geometry.spacing[2]:
        raise VolumeError(
            f"{folder}: expected evenly spaced slices, but one lies {np.max(np.abs(along)):.2f} mm off its place in a "
            f"stack of {count} at {geometry.spacing[2]:.2f} mm; slices may be missing, or the spacing varies: export the series "
            "again or resample it."
        )
