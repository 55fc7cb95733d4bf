from __future__ import annotations

import math

import numpy as np
import pytest

from MedSAM2Lib.errors import OptionError, VolumeError
from MedSAM2Lib.geometry import AXIS_NAMES, Geometry

IDENTITY = Geometry((4, 5, 6))


def turned(angle: float) -> tuple[float, ...]:
    """About the patient's long axis."""
    c, s = math.cos(angle), math.sin(angle)
    return (c, -s, 0.0, s, c, 0.0, 0.0, 0.0, 1.0)


def test_the_first_voxel_lies_at_the_origin() -> None:
    geometry = Geometry((4, 5, 6), (0.5, 0.6, 3.0), (10.0, 20.0, 30.0), turned(0.3))
    np.testing.assert_allclose(geometry.index_to_world((0, 0, 0)), (10.0, 20.0, 30.0))


def test_a_step_along_i_goes_along_the_first_column() -> None:
    geometry = Geometry((4, 5, 6), (0.5, 0.6, 3.0), direction=(0, 0, 1, 1, 0, 0, 0, 1, 0))
    np.testing.assert_allclose(geometry.index_to_world((2, 0, 0)), (0.0, 1.0, 0.0))


@pytest.mark.parametrize("angle", [0.0, 0.4, -2.0])
def test_world_to_index_undoes_index_to_world(angle: float) -> None:
    geometry = Geometry((4, 5, 6), (0.5, 0.6, 3.0), (-7.0, 8.0, 9.0), turned(angle))
    index = np.array([[0.0, 0.0, 0.0], [5.0, 4.0, 3.0], [1.5, 2.25, -1.0]])
    np.testing.assert_allclose(geometry.world_to_index(geometry.index_to_world(index)), index, atol=1e-12)


def test_one_voxel_of_1_by_2_by_5_mm_is_a_hundredth_of_a_millilitre() -> None:
    assert Geometry((1, 1, 1), (1.0, 2.0, 5.0)).voxel_volume_ml == pytest.approx(0.01)


def test_k_j_i_name_the_array_axes_whatever_the_direction() -> None:
    geometry = Geometry((4, 5, 6), direction=(0, 0, 1, 1, 0, 0, 0, 1, 0))
    assert [geometry.array_axis(name) for name in "kji"] == [0, 1, 2]


@pytest.mark.parametrize(
    ("direction", "axes"),
    [
        ((1, 0, 0, 0, 1, 0, 0, 0, 1), {"axial": 0, "coronal": 1, "sagittal": 2}),
        ((-1, 0, 0, 0, -1, 0, 0, 0, -1), {"axial": 0, "coronal": 1, "sagittal": 2}),
        # A sagittal scan: slices (k) to the left, rows (j) to the feet, columns (i) to the back.
        ((0, 0, 1, 1, 0, 0, 0, -1, 0), {"axial": 1, "coronal": 2, "sagittal": 0}),
        # A coronal scan.
        ((1, 0, 0, 0, 0, 1, 0, -1, 0), {"axial": 1, "coronal": 0, "sagittal": 2}),
    ],
)
def test_anatomical_planes_follow_the_direction(direction: tuple[float, ...], axes: dict[str, int]) -> None:
    geometry = Geometry((4, 5, 6), direction=direction)
    assert {name: geometry.array_axis(name) for name in axes} == axes


@pytest.mark.parametrize("angle", [math.pi / 4, math.pi / 4 + 1e-9, 0.7, -math.pi / 4])
def test_three_planes_take_three_axes_on_an_oblique_grid_too(angle: float) -> None:
    geometry = Geometry((4, 5, 6), direction=turned(angle))
    assert {geometry.array_axis(name) for name in ("axial", "coronal", "sagittal")} == {0, 1, 2}


def test_spacing_along_counts_array_axes() -> None:
    geometry = Geometry((4, 5, 6), (0.5, 0.6, 3.0))
    assert [geometry.spacing_along(axis) for axis in range(3)] == [3.0, 0.6, 0.5]


def test_an_unknown_axis_lists_the_choices() -> None:
    with pytest.raises(OptionError, match=", ".join(AXIS_NAMES)):
        IDENTITY.array_axis("transverse")


@pytest.mark.parametrize("spacing", [(0.0, 1.0, 1.0), (1.0, -1.0, 1.0), (1.0, 1.0, math.nan), (math.inf, 1.0, 1.0)])
def test_spacing_must_be_positive_and_finite(spacing: tuple[float, float, float]) -> None:
    with pytest.raises(VolumeError, match="spacing"):
        Geometry((4, 5, 6), spacing)


def test_the_origin_must_be_finite() -> None:
    with pytest.raises(VolumeError, match="origin"):
        Geometry((4, 5, 6), origin=(0.0, math.nan, 0.0))


@pytest.mark.parametrize("direction", [(1, 0.2, 0, 0, 1, 0, 0, 0, 1), (0,) * 9, (2, 0, 0, 0, 1, 0, 0, 0, 1), (math.nan,) * 9])
def test_a_direction_that_is_not_orthonormal_is_refused(direction: tuple[float, ...]) -> None:
    with pytest.raises(VolumeError, match="orthonormal"):
        Geometry((4, 5, 6), direction=direction)


def test_a_direction_needs_nine_numbers() -> None:
    with pytest.raises(VolumeError, match="9 numbers"):
        Geometry((4, 5, 6), direction=(1.0, 0.0, 0.0, 1.0))


def test_a_direction_rounded_to_six_digits_is_accepted() -> None:
    Geometry((4, 5, 6), direction=tuple(round(value, 6) for value in turned(0.123)))


def test_a_grid_without_voxels_is_refused() -> None:
    with pytest.raises(VolumeError, match=r"\(4, 0, 6\)"):
        Geometry((4, 0, 6))
