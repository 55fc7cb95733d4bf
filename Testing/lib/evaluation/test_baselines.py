from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from MedSAM2Lib.evaluation.baselines import BASELINES, ellipsoid, grown_region
from MedSAM2Lib.evaluation.cases import load_case
from MedSAM2Lib.evaluation.manifest import read_manifest
from MedSAM2Lib.geometry import Geometry
from MedSAM2Lib.metrics import dice
from MedSAM2Lib.prompts import Box
from MedSAM2Lib.volume import Volume

SHARED = Path(__file__).resolve().parents[4] / "shared" / "data" / "manifest.json"
BOX = Box(5, 10, 12, 29, 31)  # 20 x 20 pixels


def a_volume(spacing: tuple[float, float, float] = (1.0, 1.0, 1.0)) -> Volume:
    """(11, 44, 40): a bright ball of radius 10 in the box, and another ball that does not touch it."""
    k, j, i = np.ogrid[:11, :44, :40]
    bright = ((k - 5) * spacing[2]) ** 2 + (j - 21.5) ** 2 + (i - 19.5) ** 2 <= 100
    apart = (k - 5) ** 2 + (j - 38) ** 2 + (i - 5) ** 2 <= 16
    noise = np.random.default_rng(0).normal(0, 5, bright.shape)
    return Volume((np.where(bright | apart, 100, 0) + noise).astype(np.float32), Geometry(bright.shape, spacing))


def test_the_ellipse_touches_the_box() -> None:
    plane = ellipsoid(BOX, a_volume())[5]
    rows, columns = np.flatnonzero(plane.any(1)), np.flatnonzero(plane.any(0))
    assert (columns[0], rows[0], columns[-1], rows[-1]) == (10, 12, 29, 31)


@pytest.mark.parametrize(("thickness", "slices"), [(1.0, 11), (2.0, 9), (4.0, 5), (40.0, 1)])
def test_the_ellipsoid_is_as_deep_as_wide_in_millimetres(thickness: float, slices: int) -> None:
    mask = ellipsoid(BOX, a_volume((1.0, 1.0, thickness)))
    assert np.count_nonzero(mask.any(axis=(1, 2))) == slices


def test_the_region_is_what_is_as_bright_and_hangs_together() -> None:
    volume = a_volume()
    truth = (volume.array > 50) & (np.arange(44) < 33)[None, :, None]
    region = grown_region(BOX, volume)
    assert dice(region, truth) > 0.97
    assert not region[:, 33:].any()


def test_holes_of_the_region_are_filled() -> None:
    array = a_volume().array.copy()
    array[5, 21, 19] = -500
    assert grown_region(BOX, Volume(array, a_volume().geometry))[5, 21, 19]


def test_a_box_of_one_pixel_still_gives_a_region() -> None:
    for baseline in BASELINES.values():
        assert baseline(Box(5, 19, 21, 19, 21), a_volume())[5, 21, 19]


def test_one_slice_is_a_volume_too() -> None:
    volume = a_volume()
    flat = Volume(volume.array[5:6], Geometry((1, 44, 40)))
    for baseline in BASELINES.values():
        assert np.count_nonzero(baseline(Box(0, 10, 12, 29, 31), flat)) > 200


@pytest.mark.skipif(not SHARED.exists(), reason="needs shared/data beside the repository")
def test_the_ellipsoid_scores_on_the_shared_cases_what_the_issue_says() -> None:
    on_slice, in_3d = [], []
    for case in read_manifest(SHARED):
        loaded = load_case(case)
        for target in loaded.targets:
            box = target.structure.suggested
            assert box is not None
            mask, index = ellipsoid(box, loaded.volume), box.slice_index
            on_slice.append(dice(mask[index : index + 1], target.reference[index : index + 1]))
            if len(mask) > 1:
                in_3d.append(dice(mask, target.reference))
    assert (len(on_slice), len(in_3d)) == (47, 40)
    assert round(float(np.mean(on_slice)), 2) == 0.79
    assert round(float(np.mean(in_3d)), 2) == 0.54
