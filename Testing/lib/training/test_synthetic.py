"""Synthetic patients and rendered label maps."""

from __future__ import annotations

import numpy as np
import pytest

from MedSAM2Lib.errors import TrainingError
from MedSAM2Lib.training.fields import smooth_field
from MedSAM2Lib.training.synthetic import render_labels, synthetic_patient, synthetic_volume

SHAPE = (8, 40, 48)


def _generator(seed: int) -> np.random.Generator:
    return np.random.default_rng(seed)


def test_the_same_seed_gives_the_same_patient_and_another_seed_another() -> None:
    first, again, other = (synthetic_volume(_generator(seed), SHAPE) for seed in (3, 3, 4))
    np.testing.assert_array_equal(first[0], again[0])
    np.testing.assert_array_equal(first[1], again[1])
    assert not np.array_equal(first[1], other[1])


@pytest.mark.parametrize("seed", range(12))
def test_a_volume_has_the_shape_that_was_asked_for_grey_values_from_0_to_1_and_objects(seed: int) -> None:
    image, label = synthetic_volume(_generator(seed), SHAPE)
    assert image.shape == label.shape == SHAPE
    assert image.dtype == np.float32
    assert label.dtype == np.uint8
    assert image.min() >= 0
    assert image.max() <= 1
    assert image.std() > 0.01
    assert len(np.unique(label)) > 2


def test_an_object_inside_another_is_listed_under_it() -> None:
    patients = [synthetic_patient(_generator(seed), SHAPE) for seed in range(12)]
    nested = [pair for patient in patients for pair in patient.nested.items()]
    assert nested
    assert all(outer not in inner for outer, inner in nested)


def test_a_volume_too_small_for_shapes_is_refused() -> None:
    with pytest.raises(TrainingError, match=r"at least \(4, 24, 24\), but \(2, 10, 10\)"):
        synthetic_volume(_generator(0), (2, 10, 10))


def _two_cubes() -> np.ndarray:
    label = np.zeros((6, 32, 32), np.uint8)
    label[:, 4:14, 4:28] = 1
    label[:, 18:28, 4:28] = 2
    return label


def test_a_label_map_gets_another_contrast_at_every_rendering() -> None:
    rng, label = _generator(0), _two_cubes()
    images = [render_labels(label, rng) for _ in range(8)]
    contrasts = [float(image[label == 1].mean() - image[label == 2].mean()) for image in images]
    assert all(image.min() >= 0 and image.max() <= 1 and image.dtype == np.float32 for image in images)
    assert any(c < 0 for c in contrasts)
    assert any(c > 0 for c in contrasts)


def test_labels_of_one_tissue_class_are_rendered_alike() -> None:
    tissues = np.arange(256)
    tissues[2] = 1
    label = _two_cubes()
    for seed in range(8):
        image = render_labels(label, _generator(seed), tissues=tissues)
        assert abs(float(image[label == 1].mean() - image[label == 2].mean())) < 0.25


def test_a_label_map_of_another_type_is_refused() -> None:
    with pytest.raises(TrainingError, match="uint8, but float64"):
        render_labels(np.zeros((4, 8, 8)), _generator(0))  # type: ignore[arg-type]


def test_a_smooth_field_is_smooth_centred_and_of_about_unit_deviation() -> None:
    fields = np.stack([smooth_field(_generator(seed), (20, 30, 40), (3, 3, 3)) for seed in range(40)])
    assert fields.shape[1:] == (20, 30, 40)
    assert abs(fields.mean()) < 0.2
    assert 0.8 < fields.std() < 1.2
    assert np.abs(np.diff(fields, axis=3)).max() < 0.5
