"""Slices of a volume along its axes and along any direction, there and back."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from MedSAM2Lib.errors import OptionError
from MedSAM2Lib.geometry import Geometry
from MedSAM2Lib.slice_stack import SliceStack, resample
from MedSAM2Lib.volume import Volume

SHAPE = (9, 12, 15)
GRID = Geometry(SHAPE, (0.8, 1.1, 2.0), (-20.0, 30.0, 5.0))
ANGLE = np.deg2rad(28)
RIGHT, DOWN = (np.cos(ANGLE), 0.0, np.sin(ANGLE)), (0.0, 1.0, 0.0)
OBLIQUE = SliceStack.oblique(GRID, RIGHT, DOWN, GRID.index_to_world((7, 6, 4)))
BALL = sum((x - m) ** 2 for x, m in zip(np.ogrid[:9, :12, :15], (4, 6, 7), strict=True)) <= 3.5**2


def put_together(stack: SliceStack, slices: Any) -> np.ndarray:
    """The volume of which these are the slices; every voxel is spoken of once."""
    mask, times = np.zeros(SHAPE, dtype=bool), np.zeros(SHAPE, dtype=int)
    whole = tuple(slice(0, size) for size in SHAPE)
    for index, one in enumerate(slices):
        for region in stack.regions(index, one, whole):
            mask[region.box] |= region.mask
            times[region.box] += region.governed
    assert (times == 1).all()
    return mask


@pytest.mark.parametrize("axis", range(3))
def test_slices_along_an_axis_are_planes_of_the_array(axis: int) -> None:
    stack = SliceStack.along(GRID, axis)
    assert (stack.slice_count, stack.is_oblique) == (SHAPE[axis], False)
    assert stack.slice_shape == tuple(size for one, size in enumerate(SHAPE) if one != axis)
    slices = [stack.cut(BALL, index) for index in range(stack.slice_count)]
    np.testing.assert_array_equal(slices[4], np.take(BALL, 4, axis))
    np.testing.assert_array_equal(put_together(stack, slices), BALL)


@pytest.mark.parametrize("stack", [SliceStack.along(GRID, 0), SliceStack.along(GRID, 1), SliceStack.along(GRID, 2), OBLIQUE])
def test_points_go_to_the_slices_and_back(stack: SliceStack) -> None:
    points = np.random.default_rng(0).uniform(-5, 30, (10, 3))
    np.testing.assert_allclose(stack.to_world(stack.from_world(points)), points)


def test_x_is_the_column_and_y_the_row() -> None:
    world = GRID.index_to_world((3, 5, 7))  # i, j, k
    places = [SliceStack.along(GRID, axis).from_world(world).round(9).tolist() for axis in range(3)]
    assert places == [[3, 5, 7], [3, 7, 5], [5, 7, 3]]


def test_an_oblique_stack_goes_through_its_point_and_covers_the_volume() -> None:
    x, y, index = OBLIQUE.from_world(GRID.index_to_world((7, 6, 4)))
    np.testing.assert_allclose((x, y, index), np.round((x, y, index)), atol=1e-9)
    corners = OBLIQUE.from_world(GRID.index_to_world([(0, 0, 0), (14, 0, 0), (0, 11, 8), (14, 11, 8)]))
    size = (*OBLIQUE.slice_shape[::-1], OBLIQUE.slice_count)
    assert ((corners > -0.5) & (corners < np.array(size) - 0.5)).all()


def test_every_voxel_belongs_to_one_oblique_slice() -> None:
    everything = np.ones(OBLIQUE.slice_shape, dtype=bool)
    assert put_together(OBLIQUE, [everything] * OBLIQUE.slice_count).all()


def test_a_mask_survives_the_way_to_oblique_slices_and_back() -> None:
    back = put_together(OBLIQUE, [OBLIQUE.cut(BALL, index) for index in range(OBLIQUE.slice_count)])
    # Each way takes the nearest voxel, and most of so small a ball is surface.
    assert 2 * (back & BALL).sum() / (back.sum() + BALL.sum()) > 0.9


def test_a_stack_goes_back_to_the_grid_as_its_slices_do() -> None:
    slices = np.random.default_rng(0).random(OBLIQUE.geometry.shape) > 0.5
    np.testing.assert_array_equal(OBLIQUE.on_grid(slices), put_together(OBLIQUE, slices))
    numbers = np.broadcast_to(np.arange(OBLIQUE.slice_count, dtype=np.float32)[:, None, None], OBLIQUE.geometry.shape)
    world = GRID.index_to_world((7, 6, 4))
    assert OBLIQUE.on_grid(numbers)[4, 6, 7] == OBLIQUE.from_world(world)[2]
    assert SliceStack.along(GRID, 1).on_grid(BALL) is BALL


def test_slices_that_are_those_of_the_array_are_as_many() -> None:
    """However the directions are rounded."""
    for right in ((1, 0, 0), (1, 1e-12, 0), (1, -1e-12, 0)):
        stack = SliceStack.oblique(GRID, right, (0, 1, 0), GRID.index_to_world((7, 6, 4)))
        assert stack.slice_count == SHAPE[0]


def test_a_region_reaches_just_around_its_mask() -> None:
    mask = np.zeros(OBLIQUE.slice_shape, dtype=bool)
    assert OBLIQUE.regions(5, mask) == []
    mask[4:7, 6:9] = True
    (region,) = OBLIQUE.regions(5, mask)
    assert 0 < region.mask.sum() <= region.governed.sum() < region.governed.size < np.prod(SHAPE)
    assert not (region.mask & ~region.governed).any()


def test_an_oblique_slice_of_a_wide_volume_is_put_in_by_parts_that_are_mostly_slice() -> None:
    grid = Geometry((80, 10, 300), (1.0, 1.0, 1.0))
    stack = SliceStack.oblique(grid, (np.cos(0.2), 0, np.sin(0.2)), (0, 1, 0), (150, 5, 40))
    index = int(np.rint(stack.from_world((150, 5, 40))[2]))
    regions = stack.regions(index, np.ones(stack.slice_shape, dtype=bool), tuple(slice(0, size) for size in grid.shape))
    assert len(regions) > 2
    assert sum(region.governed.size for region in regions) < np.prod(grid.shape) * 0.6
    governed = np.zeros(grid.shape, dtype=int)
    for region in regions:
        governed[region.box] += region.governed
    k, j, i = np.meshgrid(*map(np.arange, grid.shape), indexing="ij")
    nearest = np.floor(stack.from_world(np.stack((i, j, k), axis=-1))[..., 2] + 0.5) == index
    np.testing.assert_array_equal(governed, nearest)


def test_an_oblique_volume_shows_what_lies_there() -> None:
    k, j, i = np.meshgrid(*(np.arange(size) for size in SHAPE), indexing="ij")
    world = GRID.index_to_world(np.stack((i, j, k), axis=-1))
    slope = np.array([1.0, -2.0, 0.5])
    stack = resample(Volume(world @ slope, GRID), OBLIQUE.geometry)
    x, y, z = np.meshgrid(*(np.arange(size) for size in OBLIQUE.geometry.shape[::-1]), indexing="ij")
    places = OBLIQUE.to_world(np.stack((x, y, z), axis=-1)).transpose(2, 1, 0, 3)
    index = GRID.world_to_index(places)
    inside = ((index > 0) & (index < np.array(SHAPE[::-1]) - 1)).all(-1)
    np.testing.assert_allclose(stack.array[inside], (places @ slope)[inside], atol=1e-6)


def test_directions_must_be_at_right_angles() -> None:
    with pytest.raises(OptionError, match="right angles"):
        SliceStack.oblique(GRID, (1, 0, 0), (1, 1, 0), (0, 0, 0))
    with pytest.raises(OptionError, match="length"):
        SliceStack.oblique(GRID, (0, 0, 0), (0, 1, 0), (0, 0, 0))
