"""Lesions drawn into scans: where they lie, and that nothing else of the scan changes."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest

from MedSAM2Lib.training.lesions import draw_lesion, paint_lesion
from MedSAM2Lib.training.rendering import tissues_of
from MedSAM2Lib.training.volumes import Target, TrainingVolume

SHAPE = (16, 48, 48)


def a_scan(grey: float = 100.0) -> TrainingVolume:
    """Tissue in the middle, air around it."""
    image = np.zeros(SHAPE, np.float32)
    image[:, 8:40, 8:40] = grey + np.random.default_rng(0).normal(0, 3, (SHAPE[0], 32, 32))
    return TrainingVolume("scan", (2.0, 1.0, 1.0), image, None)


def lesions(volume: TrainingVolume, count: int = 30) -> list[Target]:
    drawn = [draw_lesion(np.random.default_rng(seed), volume) for seed in range(count)]
    return [target for target in drawn if target is not None]


def codes_and_mask(target: Target, axis: int = 0) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.bool_]]:
    every = np.arange(SHAPE[axis])
    rows, columns = (slice(0, size) for a, size in enumerate(SHAPE) if a != axis)
    return target.codes(axis, every, rows, columns), target.cut(axis, every, rows, columns)


def test_lesions_lie_in_tissue() -> None:
    targets = lesions(a_scan())
    assert len(targets) > 20
    for target in targets:
        _, mask = codes_and_mask(target)
        assert mask.any()
        assert not mask[:, :6].any()
        assert not mask[..., 42:].any()
    assert len({int(codes_and_mask(target)[1].sum()) for target in targets}) > 15


def test_in_air_there_are_none() -> None:
    assert not lesions(TrainingVolume("air", (2.0, 1.0, 1.0), np.full(SHAPE, -1000, np.int16), None, is_ct=True))


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_a_lesion_is_the_same_along_every_axis(axis: int) -> None:
    target = lesions(a_scan())[0]
    np.testing.assert_array_equal(np.moveaxis(codes_and_mask(target, axis)[1], 0, axis), codes_and_mask(target)[1])


def test_only_where_the_lesion_is_the_scan_changes() -> None:
    volume = a_scan()
    assert volume.image is not None
    values = (volume.image / 200).astype(np.float32)
    changes = []
    for seed, target in enumerate(lesions(volume)):
        codes, mask = codes_and_mask(target)
        painted = paint_lesion(np.random.default_rng(seed), values, codes)
        np.testing.assert_array_equal(painted[codes == 0], values[codes == 0])
        assert 0 <= painted.min() <= painted.max() <= 1
        changes.append(abs(float(painted[mask].mean() - values[mask].mean())))
    assert np.median(changes) > 0.04


def test_tissues_are_the_labels_and_steps_of_grey_where_there_is_none() -> None:
    values = np.zeros((1, 12, 30), np.float32)
    values[..., 10:] = 0.5
    values[..., 20:] = 0.9
    label = np.zeros(values.shape, np.uint8)
    label[:, :4] = 7
    mask = np.zeros(values.shape, bool)
    mask[:, 8:] = True
    tissues = tissues_of(values, label, mask)
    assert set(tissues[:, :4].flat) == {7}
    assert len(set(tissues[mask])) == 1
    between = tissues[0, 6]
    assert between[0] == 0  # outside
    assert len({int(between[5]), int(between[15]), int(between[25])}) == 3
    assert not set(between) & {7, int(tissues[0, 10, 0])}
