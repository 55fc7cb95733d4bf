from __future__ import annotations

import numpy as np
import pytest

from MedSAM2Lib.errors import VolumeError
from MedSAM2Lib.geometry import Geometry
from MedSAM2Lib.volume import Labelmap, Volume

GRID = Geometry((2, 3, 4))


def ramp(dtype: type = np.int16) -> np.ndarray:
    return np.arange(24, dtype=dtype).reshape(2, 3, 4)


def test_a_volume_cannot_be_written_to() -> None:
    with pytest.raises(ValueError, match="read-only"):
        Volume(ramp(), GRID).array[0, 0, 0] = 1


def test_the_array_given_stays_as_it_was_writable() -> None:
    array = ramp()
    volume = Volume(array, GRID)
    array[0, 0, 0] = 7
    assert volume.array[0, 0, 0] == 7


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_nan_and_infinite_voxels_are_counted_and_refused(bad: float) -> None:
    array = ramp(np.float32)
    array[0, 1, 1:3] = bad
    with pytest.raises(VolumeError, match=r"scan\.nii: .* 2 of 24 are NaN or infinite"):
        Volume(array, GRID, source="scan.nii")


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_a_constant_image_is_refused(dtype: type) -> None:
    with pytest.raises(VolumeError, match="all 24 voxels are 5"):
        Volume(np.full((2, 3, 4), 5, dtype=dtype), GRID)


@pytest.mark.parametrize("dtype", [np.complex64, np.bool_, object])
def test_voxels_that_are_no_real_numbers_are_refused(dtype: type) -> None:
    with pytest.raises(VolumeError, match="convert the image"):
        Volume(ramp().astype(dtype), GRID)


@pytest.mark.parametrize("shape", [(6, 4), (2, 3, 4, 1)])
def test_a_volume_is_three_dimensional(shape: tuple[int, ...]) -> None:
    with pytest.raises(VolumeError, match="expected a 3D array"):
        Volume(ramp().reshape(shape), GRID)


def test_array_and_geometry_must_agree() -> None:
    with pytest.raises(VolumeError, match=r"\(2, 3, 4\) voxels, but its geometry says \(4, 3, 2\)"):
        Volume(ramp(), Geometry((4, 3, 2)))


def test_a_metre_between_slices_is_a_damaged_header() -> None:
    with pytest.raises(VolumeError, match="at most 1000 mm"):
        Volume(ramp(), Geometry((2, 3, 4), (1.0, 1.0, 1001.0)))


def test_a_labelmap_knows_its_values() -> None:
    labels = np.zeros((2, 3, 4), np.uint8)
    labels[0, 0, :3] = (7, 2, 7)
    assert Labelmap(labels, GRID).values() == [2, 7]


def test_an_empty_labelmap_is_a_labelmap() -> None:
    assert Labelmap(np.zeros((2, 3, 4), np.uint8), GRID).values() == []


def test_labels_are_integers() -> None:
    with pytest.raises(VolumeError, match="float32"):
        Labelmap(ramp(np.float32), GRID)
