from __future__ import annotations

import numpy as np

from MedSAM2Lib.masks import bounding_box


def test_the_box_holds_every_voxel_and_no_more() -> None:
    mask = np.zeros((5, 6, 7), bool)
    mask[1, 2, 6] = mask[3, 2, 0] = True
    assert bounding_box(mask) == (slice(1, 4), slice(2, 3), slice(0, 7))


def test_a_full_mask_is_its_own_box() -> None:
    mask = np.ones((2, 3), bool)
    assert mask[bounding_box(mask)].shape == (2, 3)


def test_an_empty_mask_has_no_box() -> None:
    assert bounding_box(np.zeros((2, 3, 4), bool)) is None
