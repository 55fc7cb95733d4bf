"""Any image this project accepts, as a Volume; any map of labels, as a Labelmap."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from MedSAM2Lib.errors import OptionError, VolumeError
from MedSAM2Lib.geometry import Geometry
from MedSAM2Lib.volume import Labelmap, Volume
from MedSAM2Lib.volume_io.dicom import MODALITY_TAG, THICKNESS_TAG, read_series, with_slice_thickness
from MedSAM2Lib.volume_io.itk import geometry_of, quiet_itk, reason_of
from MedSAM2Lib.volume_io.nifti import check_nifti, is_nifti, without_neighbours
from MedSAM2Lib.volume_io.npz import IMAGE_KEY, LABELS_KEY, read_npz

__all__ = ["read_labels", "read_volume"]

_READABLE = "NIfTI (.nii, .nii.gz), NRRD (.nrrd, .nhdr), MetaImage (.mha, .mhd), DICOM (a folder or one file) or .npz"


def read_volume(path: str | os.PathLike[str], series: str | None = None) -> Volume:
    """Reads NIfTI, NRRD, MetaImage, a folder of DICOM files, one DICOM file, or the `.npz` of the MedSAM challenges.

    Intensities are those that the file means: rescale slope and intercept are applied (HU for CT). A 2D image is a
    volume of one slice, 1 mm thick where the file does not tell. `series` is the SeriesInstanceUID to take from a
    folder that holds several.

    Raises VolumeError when it is missing, damaged, not a 3D scalar image, or not one that can be segmented;
    OptionError when `series` is not in the folder.
    """
    array, geometry, modality = _read(Path(path), series, npz_key=IMAGE_KEY)
    return Volume(array, geometry, modality=modality, source=os.fspath(path))


def read_labels(path: str | os.PathLike[str]) -> Labelmap:
    """Reads a map of labels from the same formats; a `.npz` gives its `gts`.

    A floating-point file is accepted when its voxels are whole numbers. Raises VolumeError.
    """
    array, geometry, _ = _read(Path(path), None, npz_key=LABELS_KEY)
    return Labelmap(_as_integers(array, path), geometry, source=os.fspath(path))


def _read(path: Path, series: str | None, npz_key: str) -> tuple[npt.NDArray[Any], Geometry, str | None]:
    if path.is_dir():
        return read_series(path, series)
    if series is not None:
        raise OptionError(f"A series is chosen from a DICOM folder, but {path} is not a folder; leave the series out.")
    if not path.is_file():
        raise VolumeError(f"{path} does not exist; give {_READABLE}.")
    if not os.access(path, os.R_OK):
        raise VolumeError(f"{path} may not be read by this user; change its permissions or copy it.")
    if path.stat().st_size == 0:
        raise VolumeError(f"{path} is empty (0 bytes); copy it again.")
    if path.suffix.lower() == ".npz":
        return *read_npz(path, npz_key), None
    if is_nifti(path):
        check_nifti(path)
        with without_neighbours(path) as alone:
            return _read_with_itk(alone, path)
    return _read_with_itk(path, path)


def _read_with_itk(file: Path, path: Path) -> tuple[npt.NDArray[Any], Geometry, str | None]:
    """Reads `file`; `path` is what the person named, for messages."""
    with quiet_itk() as sitk:
        reader = sitk.ImageFileReader()
        reader.SetFileName(str(file))
        try:
            reader.ReadImageInformation()
            _check_header(sitk, reader, path)
            image = reader.Execute()
        except RuntimeError as error:
            raise VolumeError(
                f"{path} cannot be read ({reason_of(error)}). Expected {_READABLE}; "
                "the file may be damaged or cut short, copy it again."
            ) from error
        geometry = geometry_of(image)
        if reader.HasMetaDataKey(THICKNESS_TAG):
            geometry = with_slice_thickness(geometry, reader.GetMetaData(THICKNESS_TAG))
        modality = reader.GetMetaData(MODALITY_TAG).strip() if reader.HasMetaDataKey(MODALITY_TAG) else ""
        return sitk.GetArrayFromImage(image).reshape(geometry.shape), geometry, modality or None


def _check_header(sitk: Any, reader: Any, path: Path) -> None:
    """Refuses by the header alone what is not one 3D scalar image, before its voxels take up memory."""
    size = reader.GetSize()
    if any(length > 1 for length in size[3:]):
        raise VolumeError(
            f"{path}: expected a 3D image, but it is {len(size)}D of size {tuple(size)}; extract one time point or channel."
        )
    if reader.GetPixelID() in (sitk.sitkComplexFloat32, sitk.sitkComplexFloat64):
        raise VolumeError(f"{path}: expected real numbers, but its voxels are complex; save the magnitude image.")
    if reader.GetNumberOfComponents() != 1:
        raise VolumeError(
            f"{path}: expected one grey value per voxel, but it has {reader.GetNumberOfComponents()} (colour, vectors, or "
            "overlapping segments); convert it to grey, or extract one component."
        )


def _as_integers(array: npt.NDArray[Any], path: str | os.PathLike[str]) -> npt.NDArray[Any]:
    if array.dtype.kind != "f":
        return array
    whole = array.astype(np.int32) if np.all(np.isfinite(array)) else None
    if whole is None or not np.array_equal(whole, array):
        raise VolumeError(
            f"{os.fspath(path)}: expected labels, which are whole numbers, but some voxels are not; give a label map."
        )
    return whole
