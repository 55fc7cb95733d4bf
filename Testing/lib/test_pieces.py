from __future__ import annotations

import numpy as np
import pytest

from MedSAM2Lib import pieces as module
from MedSAM2Lib.pieces import Pieces, connected_pieces


def noise(*shape: int, share: float, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).random(shape) < share


@pytest.mark.parametrize("share", [0.05, 0.15, 0.4])
@pytest.mark.parametrize("shape", [(9, 11, 13), (40, 30)])
@pytest.mark.parametrize("thickness", [1, 2, 4, 100])
def test_slab_by_slab_they_are_those_of_the_whole(
    shape: tuple[int, ...], share: float, thickness: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    mask = noise(*shape, share=share)
    labels, sizes = connected_pieces(mask)
    monkeypatch.setattr(module, "_SLAB_VOXELS", thickness * mask[0].size)
    pieces = Pieces(mask)
    np.testing.assert_array_equal(pieces.sizes, sizes)
    for index in (5, 0, len(mask) - 1):
        np.testing.assert_array_equal(pieces.on(index), labels[index])


def test_those_that_are_not_kept_leave_the_mask(monkeypatch: pytest.MonkeyPatch) -> None:
    mask = noise(12, 20, 20, share=0.1, seed=1)
    labels, sizes = connected_pieces(mask)
    kept = np.arange(len(sizes)) % 3 == 1
    monkeypatch.setattr(module, "_SLAB_VOXELS", 5 * 400)
    Pieces(mask).keep(kept)
    np.testing.assert_array_equal(mask, kept[labels])


def test_a_snake_through_all_slabs_is_one_piece(monkeypatch: pytest.MonkeyPatch) -> None:
    mask = np.zeros((6, 1, 7), bool)
    mask[:, 0, [0, 2, 4, 6]] = True  # four bars, joined at the far ends in turns
    mask[5, 0, 1] = mask[0, 0, 3] = mask[5, 0, 5] = True
    monkeypatch.setattr(module, "_SLAB_VOXELS", 7)
    assert Pieces(mask).sizes.tolist() == [mask.size - 27, 27]


def test_nothing_has_no_pieces() -> None:
    assert Pieces(np.zeros((3, 4, 5), bool)).sizes.tolist() == [60]
