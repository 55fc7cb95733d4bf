"""Of a mask under a click no more is kept than may be."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from MedSAM2Lib.inference.mask_size import piece_under

SIDE = 64


def hill(radius: float) -> npt.NDArray[np.float32]:
    """(SIDE, SIDE) logits that are 0 at a circle and fall by one in three cells."""
    away = np.arange(SIDE) - (SIDE - 1) / 2
    return np.asarray((radius - np.hypot(away[:, None], away[None])) / 3, np.float32)


def clicked(column: int) -> npt.NDArray[np.bool_]:
    where = np.zeros((SIDE, SIDE), dtype=bool)
    where[31, column] = True
    return where


def test_a_mask_that_is_too_large_is_cut_higher() -> None:
    cut, piece = piece_under(hill(20), clicked(31), most=300)
    assert cut > 0
    assert 200 < piece.sum() <= 300
    np.testing.assert_array_equal(piece, hill(20) > cut)


def test_a_mask_that_is_small_enough_stays_as_it_is() -> None:
    cut, piece = piece_under(hill(8), clicked(31), most=300)
    assert cut == 0
    np.testing.assert_array_equal(piece, hill(8) > 0)


def test_what_is_not_clicked_on_is_dropped() -> None:
    strayed = hill(8)
    strayed[2:4, 60:62] = 9.0
    assert not piece_under(strayed, clicked(31), most=300)[1][2:4, 60:62].any()


def test_a_click_near_the_edge_is_not_lost() -> None:
    _, piece = piece_under(hill(20), clicked(48), most=300)
    assert piece[31, 48]
    assert piece.sum() > 300


def test_beside_the_mask_a_click_finds_nothing() -> None:
    cut, piece = piece_under(hill(10), clicked(60), most=300)
    assert cut == 0
    assert not piece.any()
