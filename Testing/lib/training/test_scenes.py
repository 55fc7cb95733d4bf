"""Scenes: what is around an object, as a volume that a session takes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from MedSAM2Lib.training.scenes import Scene, SceneSource, make_scene
from MedSAM2Lib.training.sources import SourceOptions
from MedSAM2Lib.training.volumes import TrainingVolume, label_targets
from Testing.lib.training.support import ball

SHAPE = (48, 80, 60)
CENTRE = (20, 40, 30)


def a_volume(spacing: tuple[float, float, float] = (1.0, 1.0, 1.0)) -> TrainingVolume:
    """A bright ball."""
    label = ball(SHAPE, CENTRE, 8).astype(np.uint8)
    noise = np.random.default_rng(0).normal(0, 5, SHAPE)
    return TrainingVolume("ball", spacing, np.clip(np.where(label, 200, 60) + noise, 1, 255).astype(np.uint8), label)


def scenes_of(volume: TrainingVolume, count: int = 12) -> list[Scene]:
    (target,) = label_targets(volume, "ball", [1], split=False)
    drawn = (make_scene(np.random.default_rng(seed), volume, target, "scan", 128, 8, axis=0) for seed in range(4 * count))
    return [scene for scene in drawn if scene is not None][:count]


@pytest.fixture(scope="module")
def some_scenes() -> list[Scene]:
    return scenes_of(a_volume())


def test_the_prompted_slice_shows_the_object(some_scenes: list[Scene]) -> None:
    assert len(some_scenes) == 12
    for scene in some_scenes:
        assert scene.mask.shape == scene.volume.array.shape
        assert scene.mask[scene.prompted].sum() >= 6


def test_the_object_is_what_is_bright(some_scenes: list[Scene]) -> None:
    contrasts = [abs(scene.volume.array[scene.mask].mean() - scene.volume.array[~scene.mask].mean()) for scene in some_scenes]
    assert np.median(contrasts) > 0.15 * 255


def test_the_whole_object_lies_in_its_scene_and_slices_beyond_its_ends(some_scenes: list[Scene]) -> None:
    for scene in some_scenes:
        shown = scene.mask.any(axis=(1, 2))
        assert 5 <= shown.sum() <= 17
        assert not shown[0]
        assert not shown[-1]


def test_left_out_slices_make_the_others_thicker() -> None:
    thick = {(round(scene.spacing[2], 3), int(scene.mask.any(axis=(1, 2)).sum())) for scene in scenes_of(a_volume())}
    assert {slice_mm for slice_mm, _ in thick} <= {1.0, 2.0, 3.0}
    assert len(thick) > 1
    assert all(abs(slice_mm * count - 17) <= slice_mm for slice_mm, count in thick)


def test_rows_and_columns_keep_their_spacing_when_they_change_places() -> None:
    scenes = scenes_of(a_volume((1.0, 1.0, 2.0)))
    assert {scene.spacing[:2] for scene in scenes} == {(1.0, 2.0), (2.0, 1.0)}


def test_objects_of_few_slices_are_passed_over() -> None:
    label = np.zeros(SHAPE, np.uint8)
    label[20:22, 30:50, 20:40] = 1
    assert not scenes_of(TrainingVolume("disc", (1.0, 1.0, 1.0), np.where(label, 200, 60).astype(np.uint8), label))


def test_a_scene_follows_from_its_seed_and_step() -> None:
    def scene(step: int) -> Scene:
        source = SceneSource(None, SourceOptions(synthetic_shape=(24, 48, 48)))
        return source.sample_scene(np.random.default_rng(3), step=step)

    first, again, other = scene(1), scene(1), scene(2)
    assert np.array_equal(first.volume.array, again.volume.array)
    assert np.array_equal(first.mask, again.mask)
    assert first.volume.array.shape != other.volume.array.shape or not np.array_equal(first.volume.array, other.volume.array)


REAL_FOLDER = Path(__file__).parents[4] / "shared" / "train"


@pytest.mark.skipif(not (REAL_FOLDER / "manifest.json").exists(), reason=f"no training set at {REAL_FOLDER}")
def test_the_training_set_gives_scenes_of_every_kind() -> None:
    source = SceneSource(REAL_FOLDER, repainted=0.15)
    rng = np.random.default_rng(0)
    kinds = {source.sample_scene(rng, step=0).kind for _ in range(25)}
    assert {"scan", "label map", "synthetic"} <= kinds
