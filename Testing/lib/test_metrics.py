from __future__ import annotations

import math

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813 - its own convention

from MedSAM2Lib.errors import VolumeError
from MedSAM2Lib.metrics import Scores, dice, hd95_mm, iou, relative_volume_error, score, surface_dice, volume_error_ml

SHAPE = (9, 10, 11)
SPACING = (0.7, 1.1, 2.5)  # i, j, k
EMPTY = np.zeros(SHAPE, bool)


def ball(center: tuple[float, float, float], radius: float) -> np.ndarray:
    k, j, i = np.indices(SHAPE)
    return (k - center[0]) ** 2 + (j - center[1]) ** 2 + (i - center[2]) ** 2 <= radius**2


def block(k: slice, j: slice, i: slice) -> np.ndarray:
    mask = np.zeros(SHAPE, bool)
    mask[k, j, i] = True
    return mask


PAIRS = [
    (ball((4, 5, 5), 3), ball((4, 5, 5), 3)),
    (ball((4, 5, 5), 3), ball((5, 5, 6), 3.5)),
    (ball((3, 3, 3), 2), ball((5, 7, 8), 2)),
    (ball((0, 0, 0), 4), ball((8, 9, 10), 4)),
    (block(slice(0, 9), slice(0, 10), slice(0, 11)), ball((4, 5, 5), 2)),
    (block(slice(4, 5), slice(2, 7), slice(2, 7)), block(slice(4, 6), slice(3, 8), slice(2, 7))),
    (np.random.default_rng(0).random(SHAPE) > 0.9, np.random.default_rng(1).random(SHAPE) > 0.7),
]


def brute_force_distances(mask: np.ndarray, reference: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Distances by definition: face neighbours by hand, all pairs of surface voxels."""

    def surface_mm(one: np.ndarray) -> np.ndarray:
        padded = np.pad(one, 1)
        inside = np.ones_like(one)
        for axis in range(3):
            for shift in (-1, 1):
                inside &= np.roll(padded, shift, axis)[1:-1, 1:-1, 1:-1]
        return np.argwhere(one & ~inside) * SPACING[::-1]

    a, b = surface_mm(mask), surface_mm(reference)
    pairs = np.linalg.norm(a[:, None] - b[None], axis=-1)
    return pairs.min(axis=1), pairs.min(axis=0)


def as_images(*masks: np.ndarray) -> list[sitk.Image]:
    images = [sitk.GetImageFromArray(mask.astype(np.uint8)) for mask in masks]
    for image in images:
        image.SetSpacing(SPACING)
    return images


@pytest.mark.parametrize(("mask", "reference"), PAIRS)
def test_overlap_agrees_with_simpleitk(mask: np.ndarray, reference: np.ndarray) -> None:
    measures = sitk.LabelOverlapMeasuresImageFilter()
    measures.Execute(*as_images(reference, mask))
    assert dice(mask, reference) == pytest.approx(measures.GetDiceCoefficient())
    assert iou(mask, reference) == pytest.approx(measures.GetJaccardCoefficient())
    assert 1 + relative_volume_error(mask, reference) == pytest.approx(mask.sum() / reference.sum())


@pytest.mark.parametrize(("mask", "reference"), PAIRS)
def test_surface_distances_agree_with_their_definition(mask: np.ndarray, reference: np.ndarray) -> None:
    there, back = brute_force_distances(mask, reference)
    assert hd95_mm(mask, reference, SPACING) == pytest.approx(max(np.percentile(there, 95), np.percentile(back, 95)), rel=1e-5)
    for tolerance in (0.0, 1.0, 2.0, 4.0):
        # Clear of the rounding of a float32 distance map.
        share = (np.sum(there <= tolerance + 1e-4) + np.sum(back <= tolerance + 1e-4)) / (len(there) + len(back))
        assert surface_dice(mask, reference, SPACING, tolerance + 1e-4) == pytest.approx(share)


# HD95 and the surface Dice at 1, 2 and 4 mm of the pairs above, by `compute_hausdorff_distance(percentile=95)` and
# `compute_surface_dice` of MONAI 1.6.1, which has the same definitions (masks padded by two voxels, so that surfaces on the
# border of the volume count). DeepMind's surface-distance weighs surface voxels by their area, and differs.
MONAI = [
    (0.0, (1.0, 1.0, 1.0)),
    (2.819574, (0.590426, 0.872340, 1.0)),
    (7.264022, (0.0, 0.0, 0.192308)),
    (15.115853, (0.0, 0.0, 0.0)),
    (7.465922, (0.0, 0.0, 0.238281)),
    (2.731300, (0.533333, 0.666667, 1.0)),
    (2.731300, (0.320197, 0.778325, 1.0)),
]


@pytest.mark.parametrize(("pair", "expected"), list(zip(PAIRS, MONAI, strict=True)))
def test_surface_distances_agree_with_monai(
    pair: tuple[np.ndarray, np.ndarray], expected: tuple[float, tuple[float, ...]]
) -> None:
    distance, shares = expected
    assert hd95_mm(*pair, SPACING) == pytest.approx(distance, abs=1e-5)
    found = [surface_dice(*pair, SPACING, tolerance) for tolerance in (1.0, 2.0, 4.0)]
    assert found == pytest.approx(shares, abs=1e-5)


def test_two_single_voxels_are_as_far_apart_as_simpleitk_says() -> None:
    mask, reference = block(slice(1, 2), slice(1, 2), slice(1, 2)), block(slice(4, 5), slice(7, 8), slice(9, 10))
    hausdorff = sitk.HausdorffDistanceImageFilter()
    hausdorff.Execute(*as_images(mask, reference))
    assert hd95_mm(mask, reference, SPACING) == pytest.approx(hausdorff.GetHausdorffDistance())
    assert hd95_mm(mask, reference, SPACING) == pytest.approx(math.hypot(8 * 0.7, 6 * 1.1, 3 * 2.5))


def test_a_shift_by_one_slice_is_one_slice_spacing_far() -> None:
    mask, reference = block(slice(3, 4), slice(2, 8), slice(2, 8)), block(slice(4, 5), slice(2, 8), slice(2, 8))
    assert hd95_mm(mask, reference, SPACING) == pytest.approx(2.5)
    assert surface_dice(mask, reference, SPACING, tolerance_mm=2.0) == 0.0
    assert surface_dice(mask, reference, SPACING, tolerance_mm=2.6) == 1.0


def test_the_place_in_the_volume_does_not_matter() -> None:
    inner = block(slice(3, 6), slice(3, 6), slice(3, 6)), block(slice(3, 7), slice(3, 6), slice(4, 6))
    corner = tuple(np.roll(mask, (-3, -3, -3), axis=(0, 1, 2)) for mask in inner)
    assert score(*inner, SPACING) == score(corner[0], corner[1], SPACING)


def test_in_a_2d_image_the_surface_is_the_outline() -> None:
    mask, reference = np.zeros((1, 20, 20), bool), np.zeros((1, 20, 20), bool)
    mask[0, 4:16, 4:16] = True
    reference[0, 9:11, 9:11] = True
    # Were the whole disc surface, its 95th percentile would be that of the area, not that of the rim.
    assert hd95_mm(mask, reference, (1.0, 1.0, 5.0)) == pytest.approx(np.percentile(brute_rim(), 95))


def brute_rim() -> list[float]:
    rim = [(j, i) for j in range(4, 16) for i in range(4, 16) if j in (4, 15) or i in (4, 15)]
    return [min(math.hypot(j - y, i - x) for y in (9, 10) for x in (9, 10)) for j, i in rim]


def test_volumes_are_in_millilitres_and_signed() -> None:
    mask, reference = block(slice(0, 4), slice(0, 5), slice(0, 5)), block(slice(0, 2), slice(0, 5), slice(0, 5))
    assert volume_error_ml(mask, reference, SPACING) == pytest.approx(50 * 0.7 * 1.1 * 2.5 / 1000)
    assert volume_error_ml(reference, mask, SPACING) == pytest.approx(-50 * 0.7 * 1.1 * 2.5 / 1000)
    assert relative_volume_error(reference, mask) == -0.5


def test_two_empty_masks_agree() -> None:
    assert score(EMPTY, EMPTY, SPACING) == Scores(1.0, 1.0, 0.0, 1.0, 0.0, 0.0)


def test_one_empty_mask_does_not_agree() -> None:
    full = ball((4, 5, 5), 2)
    missed = score(EMPTY, full, SPACING)
    assert (missed.dice, missed.iou, missed.hd95_mm, missed.surface_dice) == (0.0, 0.0, math.inf, 0.0)
    assert missed.relative_volume_error == -1.0
    invented = score(full, EMPTY, SPACING)
    assert (invented.dice, invented.hd95_mm, invented.surface_dice) == (0.0, math.inf, 0.0)
    assert invented.relative_volume_error == math.inf


def test_all_at_once_is_each_by_itself() -> None:
    mask, reference = PAIRS[1]
    assert score(mask, reference, SPACING, tolerance_mm=1.5) == Scores(
        dice=dice(mask, reference),
        iou=iou(mask, reference),
        hd95_mm=hd95_mm(mask, reference, SPACING),
        surface_dice=surface_dice(mask, reference, SPACING, 1.5),
        volume_error_ml=volume_error_ml(mask, reference, SPACING),
        relative_volume_error=relative_volume_error(mask, reference),
    )


def test_the_masks_are_not_written_to() -> None:
    mask, reference = (one.copy() for one in PAIRS[1])
    mask.flags.writeable = reference.flags.writeable = False
    score(mask, reference, SPACING)


@pytest.mark.parametrize(
    ("mask", "reference"),
    [(EMPTY, EMPTY[:8]), (EMPTY, EMPTY.astype(np.uint8)), (EMPTY[0], EMPTY[0])],
    ids=["shape", "type", "2D"],
)
def test_masks_that_do_not_belong_together_are_refused(mask: np.ndarray, reference: np.ndarray) -> None:
    with pytest.raises(VolumeError, match="resample one to the other's grid"):
        score(mask, reference, SPACING)
