from __future__ import annotations

import numpy as np
import pytest

from MedSAM2Lib.errors import OptionError
from MedSAM2Lib.geometry import Geometry
from MedSAM2Lib.intensity import PRESETS, Window, apply_window, resolve_window
from MedSAM2Lib.volume import Volume


def volume(array: np.ndarray, modality: str | None = None) -> Volume:
    return Volume(array, Geometry(array.shape), modality=modality)


def ramp(low: int, high: int, dtype: type = np.int16) -> np.ndarray:
    return np.linspace(low, high, 4 * 8 * 8).round().astype(dtype).reshape(4, 8, 8)


# Which window


@pytest.mark.parametrize("dtype", [np.int16, np.int32, np.float32])
def test_auto_takes_what_holds_air_for_ct(dtype: type) -> None:
    assert resolve_window("auto", volume(ramp(-1024, 1500, dtype))) == Window(-160, 240)


def test_auto_believes_dicom_that_it_is_ct() -> None:
    assert resolve_window("auto", volume(ramp(0, 90), "CT")) == Window(-160, 240)


def test_auto_believes_dicom_that_it_is_not_ct() -> None:
    assert resolve_window("auto", volume(ramp(-1024, 1500), "MR")) != Window(-160, 240)


@pytest.mark.parametrize("modality", [None, "MR", "PT"])
def test_auto_takes_percentiles_of_anything_else(modality: str | None) -> None:
    image = volume(ramp(0, 900), modality)
    assert resolve_window("auto", image) == resolve_window("percentiles", image)


def test_auto_takes_a_picture_as_it_is() -> None:
    assert resolve_window("auto", volume(ramp(0, 255, np.uint8))) == Window(0, 255)


def test_auto_stretches_a_dark_8_bit_image() -> None:
    assert resolve_window("auto", volume(ramp(0, 60, np.uint8))).high < 61


def test_percentiles_leave_the_zeros_around_the_patient_out() -> None:
    array = np.zeros((10, 20, 20), np.int16)
    array[4:6] = np.arange(1, 801).reshape(2, 20, 20)
    window = resolve_window("percentiles", volume(array))
    assert (window.low, window.high) == tuple(np.percentile(np.arange(1, 801), (0.5, 99.5)))


def test_a_few_bright_voxels_do_not_move_the_percentiles() -> None:
    array = ramp(1, 200)
    array[0, 0, 0] = 30000
    assert resolve_window("percentiles", volume(array)).high < 201


@pytest.mark.parametrize("values", [[5], [5, 9], [-3, 4]])
def test_percentiles_of_hardly_any_voxels_are_the_whole_range(values: list[int]) -> None:
    array = np.zeros((4, 8, 8), np.int16)
    array[0, 0, : len(values)] = values
    assert resolve_window("percentiles", volume(array)) == Window(min(0, *values), max(0, *values))


def test_percentiles_of_two_values_are_the_whole_range() -> None:
    array = np.zeros((4, 8, 8), np.int16)
    array[:3] = 7
    assert resolve_window("percentiles", volume(array)) == Window(0, 7)


@pytest.mark.parametrize(
    ("name", "low", "high"), [("abdomen", -160, 240), ("lung", -1350, 150), ("brain", 0, 80), ("mediastinum", -125, 225)]
)
def test_presets_are_the_published_ones(name: str, low: float, high: float) -> None:
    assert resolve_window(name, volume(ramp(0, 900))) == Window(low, high)


@pytest.mark.parametrize(("spec", "low", "high"), [("-160:240", -160, 240), ("0:1", 0, 1), ("-1e3:-0.5", -1000, -0.5)])
def test_two_numbers_are_a_window(spec: str, low: float, high: float) -> None:
    assert resolve_window(spec, volume(ramp(0, 900))) == Window(low, high)


@pytest.mark.parametrize("spec", ["", "abdomn", "100", "1:2:3", "a:b", ":", "Lung"])
def test_an_unknown_window_lists_the_choices(spec: str) -> None:
    with pytest.raises(OptionError, match=r"use auto, percentiles, abdomen, .*, or LOW:HIGH"):
        resolve_window(spec, volume(ramp(0, 900)))


@pytest.mark.parametrize("spec", ["240:-160", "5:5", "nan:5", "0:inf"])
def test_a_window_goes_upwards_between_finite_numbers(spec: str) -> None:
    with pytest.raises(OptionError, match="lower to a higher finite number"):
        resolve_window(spec, volume(ramp(0, 900)))


def test_the_presets_cannot_be_changed() -> None:
    with pytest.raises(TypeError):
        PRESETS["mine"] = Window(0, 1)  # type: ignore[index]


# Applying it


def test_the_ends_of_the_window_are_black_and_white() -> None:
    picture = apply_window(np.array([[-1000, -160, 240, 3000]], np.int16), Window(-160, 240))
    assert picture.dtype == np.uint8
    assert picture.tolist() == [[0, 0, 255, 255]]


def test_fractions_are_cut_off_as_in_the_reference() -> None:
    values = np.arange(-160, 241, dtype=np.int16)
    reference = ((values.astype(np.float64) - values.min()) / (values.max() - values.min()) * 255.0).astype(np.uint8)
    np.testing.assert_array_equal(apply_window(values, Window(-160, 240)), reference)


def test_a_picture_in_its_own_window_stays_as_it_is() -> None:
    values = np.arange(256, dtype=np.uint8)
    np.testing.assert_array_equal(apply_window(values, Window(0, 255)), values)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int16, np.int64, np.float32, np.float64])
def test_the_input_is_never_written_to(dtype: type) -> None:
    values = ramp(0, 200, dtype)
    values.flags.writeable = False
    apply_window(values[0], Window(10, 100))
    np.testing.assert_array_equal(values, ramp(0, 200, dtype))


def test_slices_and_the_whole_volume_give_the_same_picture() -> None:
    array = ramp(-1000, 1000)
    whole = apply_window(array, Window(-160, 240))
    np.testing.assert_array_equal(np.stack([apply_window(plane, Window(-160, 240)) for plane in array]), whole)


@pytest.mark.parametrize("dtype", [np.uint8, np.int8, np.int16, np.uint16])
@pytest.mark.parametrize("seed", range(5))
def test_counted_percentiles_are_those_of_all_voxels_that_are_not_0(dtype: type, seed: int) -> None:
    generator = np.random.default_rng(seed)
    information = np.iinfo(dtype)
    array = (
        generator.normal(40, 10 ** generator.uniform(0.5, 4), (5, 17, 19)).clip(information.min, information.max).astype(dtype)
    )
    window = resolve_window("percentiles", Volume(array, Geometry(array.shape)))
    assert (window.low, window.high) == pytest.approx(tuple(np.percentile(array[array != 0], (0.5, 99.5))), rel=1e-12)
