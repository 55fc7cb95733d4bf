from __future__ import annotations

import numpy as np
import pytest

from MedSAM2Lib.pieces import connected_pieces
from MedSAM2Lib.postprocess import depths, fill_holes, largest_component, pieces_touching


def picture(*rows: str) -> np.ndarray:
    return np.array([[character == "#" for character in row] for row in rows])


RING = picture(
    ".........",
    ".#######.",
    ".#.##..#.",
    ".#######.",
    ".........",
)


def test_small_holes_are_filled() -> None:
    filled = fill_holes(RING, 2)
    assert filled[2, 2]
    assert filled[2, 5:7].all()


def test_larger_ones_stay() -> None:
    filled = fill_holes(RING, 1)
    assert filled[2, 2]
    assert not filled[2, 5:7].any()


def test_background_that_touches_by_a_corner_is_one_piece() -> None:
    mask = picture("####", "#.##", "##.#", "####")
    np.testing.assert_array_equal(fill_holes(mask, 1), mask)
    assert fill_holes(mask, 2).all()


@pytest.mark.parametrize("mask", [np.zeros((4, 5), bool), np.ones((4, 5), bool)])
def test_without_holes_nothing_changes(mask: np.ndarray) -> None:
    np.testing.assert_array_equal(fill_holes(mask, 8), mask)


@pytest.mark.parametrize("seed", range(40))
def test_holes_are_filled_as_if_the_whole_picture_was_searched(seed: int) -> None:
    generator = np.random.default_rng(seed)
    mask = np.zeros((20, 24), dtype=bool)
    top, left, height, width = generator.integers(0, (18, 22, 20, 24))
    mask[top : top + height + 1, left : left + width + 1] = (
        generator.random(mask[top : top + height + 1, left : left + width + 1].shape) < 0.8
    )
    max_area = int(generator.integers(1, 60))
    background, sizes = connected_pieces(~mask)
    small = np.concatenate(([False], sizes[1:] <= max_area))
    np.testing.assert_array_equal(fill_holes(mask, max_area), mask | small[background])


def test_the_mask_given_stays_as_it_was() -> None:
    mask = RING.copy()
    mask.flags.writeable = False
    fill_holes(mask, 8)
    largest_component(mask[np.newaxis])[:] = True
    np.testing.assert_array_equal(mask, RING)


def test_a_mask_that_is_not_contiguous_is_filled_alike() -> None:
    np.testing.assert_array_equal(fill_holes(RING.T, 2), fill_holes(RING, 2).T)


def test_only_the_largest_piece_is_kept() -> None:
    mask = np.zeros((5, 6, 7), bool)
    mask[0, 0, :3] = True
    mask[3:5, 2:5, 2:5] = True
    kept = largest_component(mask)
    assert kept.sum() == 18
    assert not kept[0].any()


def test_voxels_that_touch_by_a_corner_are_one_piece() -> None:
    mask = np.zeros((3, 3, 3), bool)
    mask[0, 0, 0] = mask[1, 1, 1] = mask[2, 2, 2] = True
    np.testing.assert_array_equal(largest_component(mask), mask)


def test_of_equal_pieces_the_first_is_kept() -> None:
    mask = np.zeros((1, 1, 5), bool)
    mask[0, 0, [1, 3]] = True
    assert largest_component(mask)[0, 0].tolist() == [False, True, False, False, False]


def test_an_empty_mask_stays_empty_and_a_full_one_full() -> None:
    assert not largest_component(np.zeros((2, 3, 4), bool)).any()
    assert largest_component(np.ones((2, 3, 4), bool)).all()


def test_one_slice_is_a_volume_too() -> None:
    kept = largest_component(picture("#..", "..#", "..#")[np.newaxis])
    assert kept[0].tolist() == picture("...", "..#", "..#").tolist()


def test_only_pieces_that_touch_the_other_mask_are_kept() -> None:
    mask = np.zeros((6, 6), dtype=bool)
    mask[0, 0] = mask[4:, 4:] = True
    other = np.zeros_like(mask)
    other[5, 5] = True
    kept = pieces_touching(mask, other)
    assert kept[4:, 4:].all()
    assert not kept[0, 0]


def test_no_piece_is_kept_where_nothing_touches() -> None:
    mask = np.eye(4, dtype=bool)
    assert not pieces_touching(mask, np.zeros_like(mask)).any()


def test_depth_counts_from_the_edge_inwards() -> None:
    mask = np.zeros((7, 9), dtype=bool)
    mask[1:6, 2:7] = True
    assert depths(mask)[3].tolist() == [-2, -1, 0, 1, 2, 1, 0, -1, -2]
    assert depths(mask, (0.5, 1.0))[3, 4] == 1.0  # columns are half a millimetre apart
    assert depths(np.ones((3, 3), dtype=bool))[1, 1] == 1  # the slice's border is an edge
