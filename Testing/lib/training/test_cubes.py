"""Cubes to train drafts on: what is shown, what is told of it, and that a batch depends on its seed and step alone."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from MedSAM2Lib.training.cubes import Cube, CubeBatch, CubeSource, make_cube
from MedSAM2Lib.training.sources import SourceOptions
from MedSAM2Lib.training.volumes import TrainingVolume, label_targets

SIDE = 32
SYNTHETIC_SHAPE = (12, 32, 32)


def a_volume(spacing: tuple[float, float, float] = (1.0, 1.0, 1.0), slices: int = 40) -> TrainingVolume:
    """A bright ball in the middle, 1 mm voxels if the slices are; a slice is as many voxels of the ball as it is thick."""
    k, j, i = np.ogrid[:slices, :40, :40]
    ball = ((k - slices / 2) * spacing[0]) ** 2 + (j - 20) ** 2 + (i - 20) ** 2 <= 10**2
    noise = np.random.default_rng(0).normal(0, 5, ball.shape)
    image = np.clip(np.where(ball, 200, 60) + noise, 1, 255).astype(np.uint8)
    return TrainingVolume("ball", spacing, image, ball.astype(np.uint8))


def cubes_of(volume: TrainingVolume, count: int = 8) -> list[Cube]:
    (target,) = label_targets(volume, "ball", [1], split=False)
    drawn = (make_cube(np.random.default_rng(seed), volume, target, "scan", SIDE, 8, axis=0) for seed in range(4 * count))
    return [cube for cube in drawn if cube is not None][:count]


@pytest.fixture(scope="module")
def some_cubes() -> list[Cube]:
    return cubes_of(a_volume())


def test_the_object_is_what_is_bright(some_cubes: list[Cube]) -> None:
    assert len(some_cubes) == 8
    contrasts = [abs(cube.grey[cube.mask].mean() - cube.grey[cube.inside][~cube.mask[cube.inside]].mean()) for cube in some_cubes]
    assert np.median(contrasts) > 0.15


def test_masks_are_told_on_known_planes_only(some_cubes: list[Cube]) -> None:
    for cube in some_cubes:
        assert cube.known.any()
        assert cube.told[cube.known].any()
        assert not cube.told[~cube.known].any()


def test_some_masks_are_exact_and_some_have_gone_astray(some_cubes: list[Cube]) -> None:
    exact = [bool((cube.told[cube.known] == cube.mask[cube.known]).all()) for cube in cubes_of(a_volume(), 24)]
    assert 0 < sum(exact) < len(exact)


def test_thick_slices_get_a_plane_each() -> None:
    cubes = cubes_of(a_volume((4.0, 1.0, 1.0), slices=12))
    assert all(cube.depth > 2 for cube in cubes)
    assert all(8 <= cube.inside.sum() <= 18 for cube in cubes)  # 12 slices, 0.8 to 1.4 of them to a plane


def test_beyond_the_volume_there_is_nothing() -> None:
    for cube in cubes_of(a_volume(slices=14)):
        assert not cube.inside.all()
        assert not cube.mask[~cube.inside].any()
        assert not cube.known[~cube.inside].any()


def test_objects_of_a_few_voxels_are_passed_over() -> None:
    label = np.zeros((8, 40, 40), np.uint8)
    label[4, 20:22, 20:22] = 1
    volume = TrainingVolume("speck", (1.0, 1.0, 1.0), np.full(label.shape, 90, np.uint8), label)
    assert not cubes_of(volume)


def a_source() -> CubeSource:
    return CubeSource(None, SourceOptions(synthetic_shape=SYNTHETIC_SHAPE))


def test_a_batch_follows_from_its_seed_and_step() -> None:
    def batch(source: CubeSource, step: int) -> CubeBatch:
        return source.sample_batch(np.random.default_rng(3), 2, SIDE, step=step)

    source = a_source()
    first = batch(source, 1)
    batch(source, 5)  # fills caches
    assert all(torch.equal(one, other) for one, other in zip(first, batch(source, 1), strict=True))
    assert all(torch.equal(one, other) for one, other in zip(first, batch(a_source(), 1), strict=True))
    assert not torch.equal(first.grey, batch(source, 2).grey)
    assert first.grey.shape == first.told.shape == first.mask.shape == (2, SIDE, SIDE, SIDE)
    assert first.known.shape == first.inside.shape == (2, SIDE)


REAL_FOLDER = Path(__file__).parents[4] / "shared" / "train"


@pytest.mark.skipif(not (REAL_FOLDER / "manifest.json").exists(), reason=f"no training set at {REAL_FOLDER}")
def test_the_training_set_gives_cubes_of_every_kind() -> None:
    source = CubeSource(REAL_FOLDER)
    rng = np.random.default_rng(0)
    kinds = {source.sample(rng, SIDE, 8, step=0).kind for _ in range(25)}
    assert {"scan", "label map", "synthetic"} <= kinds


