from __future__ import annotations

import numpy as np
import pytest

from MedSAM2Lib.intensity import Window, resolve_window
from MedSAM2Lib.phantom import Phantom, make_phantom

# ml, generously around what adults have. The tumour is a finding, not an organ.
ORGAN_SIZES_ML = {
    "liver": (900, 2200),
    "tumour": (5, 80),
    "spleen": (70, 400),
    "left kidney": (90, 250),
    "right kidney": (90, 250),
    "stomach": (150, 700),
    "aorta": (60, 200),
    "vena cava": (60, 200),
}


@pytest.fixture(scope="module")
def a_phantom() -> Phantom:
    return make_phantom(0)


def mean_place_mm(mask: np.ndarray, phantom: Phantom) -> np.ndarray:
    """LPS."""
    k, j, i = (axis.mean() for axis in np.nonzero(mask))
    place: np.ndarray = phantom.volume.geometry.index_to_world((i, j, k))
    return place


def test_the_same_number_gives_the_same_patient(a_phantom: Phantom) -> None:
    again = make_phantom(0)
    np.testing.assert_array_equal(again.volume.array, a_phantom.volume.array)
    assert all((again.structures[name] == mask).all() for name, mask in a_phantom.structures.items())


def test_another_number_gives_another_patient(a_phantom: Phantom) -> None:
    other = make_phantom(1)
    assert all((other.structures[name] != mask).any() for name, mask in a_phantom.structures.items())


@pytest.mark.parametrize("seed", [0, 1, 7])
def test_organs_are_as_large_as_organs_are(seed: int) -> None:
    phantom = make_phantom(seed)
    assert phantom.structures.keys() == ORGAN_SIZES_ML.keys()
    for name, (least, most) in ORGAN_SIZES_ML.items():
        assert least < phantom.structures[name].sum() * phantom.volume.geometry.voxel_volume_ml < most, name


def test_organs_lie_where_they_belong(a_phantom: Phantom) -> None:
    places = {name: mean_place_mm(mask, a_phantom) for name, mask in a_phantom.structures.items()}
    left = {name: place[0] for name, place in places.items()}
    assert left["liver"] < left["right kidney"] / 2 < 0 < left["left kidney"] < left["spleen"]
    assert abs(left["aorta"]) < 25
    assert places["liver"][1] < places["left kidney"][1]  # the kidneys lie at the back
    assert places["right kidney"][2] < places["left kidney"][2] < places["spleen"][2]


def test_the_tumour_is_part_of_the_liver_and_nothing_else_overlaps(a_phantom: Phantom) -> None:
    structures = a_phantom.structures
    assert (structures["tumour"] <= structures["liver"]).all()
    others = [mask for name, mask in structures.items() if name != "tumour"]
    assert np.sum(others, axis=0).max() == 1


def test_the_truth_is_what_the_image_shows(a_phantom: Phantom) -> None:
    array = a_phantom.volume.array
    means = {name: array[mask].mean() for name, mask in a_phantom.structures.items()}
    assert 40 < means["tumour"] < 85 < means["liver"] < 130 < means["left kidney"]
    assert array.min() < -900
    low, high = np.percentile(array[a_phantom.structures["liver"]], (25, 75))
    assert 10 < high - low < 40  # noise


def test_it_is_taken_for_a_ct(a_phantom: Phantom) -> None:
    assert a_phantom.volume.array.dtype == np.int16
    assert resolve_window("auto", a_phantom.volume) == Window(-160, 240)
