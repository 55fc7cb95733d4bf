"""A mask fills the box that was drawn around it; of one under a click no more is kept than may be."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
import torch
from torch import Tensor

from MedSAM2Lib.inference.mask_size import cut_to_box, piece_under
from MedSAM2Lib.network.sam2 import ImageFeatures, MaskPrediction, PointTensors
from MedSAM2Lib.prompts import Box, Box3D, Prompt, RecistLine
from Testing.lib.inference.support import SHAPE, SeesBright, ellipsoid, loaded, opened, volume_of

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


def around(radius: float) -> tuple[float, float, float, float]:
    """The box of a disc in the middle."""
    first = (SIDE - 1) / 2 - radius
    return first, first, SIDE - 1 - first, SIDE - 1 - first


def test_a_mask_that_spills_over_its_box_is_cut_higher_and_one_that_does_not_fill_it_lower() -> None:
    assert cut_to_box(hill(20), around(18)) > 0 > cut_to_box(hill(20), around(22))


def test_a_mask_that_fills_its_box_stays_as_it_is() -> None:
    assert cut_to_box(hill(20), around(19.5)) == 0


def test_a_box_that_has_little_to_do_with_its_mask_changes_it_by_a_logit_at_most() -> None:
    assert abs(cut_to_box(hill(20), around(4))) <= 1
    assert abs(cut_to_box(hill(4), around(28))) <= 1


def test_where_there_is_no_mask_nothing_is_cut() -> None:
    assert cut_to_box(np.full((SIDE, SIDE), -30, np.float32), around(10)) == 0


class Hilly(SeesBright):
    """Answers any prompt by a hill in the middle of the slice."""

    def predict(
        self,
        conditioned: Tensor,
        features: ImageFeatures,
        points: PointTensors | None = None,
        mask: Tensor | None = None,
        doubt: float = 0.0,
    ) -> MaskPrediction:
        answer = super().predict(conditioned, features, points, mask, doubt)
        side = answer.logits.shape[-1]
        away = torch.arange(side) - (side - 1) / 2
        return answer._replace(logits=(side / 3 - torch.hypot(away[:, None], away[None]))[None, None])


class HillyAhead(Hilly):
    knows_depth = True


MIDDLE = SHAPE[0] // 2
X, Y = (SHAPE[2] - 1) / 2, (SHAPE[1] - 1) / 2
WIDE, NARROW = 0.45, 0.2  # of the slice, to either side


def box(share: float) -> Box:
    return Box(MIDDLE, X - share * SHAPE[2], Y - share * SHAPE[1], X + share * SHAPE[2], Y + share * SHAPE[1])


def area(kind: type[SeesBright], prompt: Prompt) -> int:
    session = opened(loaded(kind), volume_of(ellipsoid()))
    return int(session.add_prompt("hill", prompt).mask.sum())


def test_a_drawn_box_says_how_large_the_mask_is() -> None:
    assert area(HillyAhead, box(NARROW)) < area(Hilly, box(NARROW)) == area(Hilly, box(WIDE)) < area(HillyAhead, box(WIDE))


@pytest.mark.parametrize(
    "prompt",
    [
        RecistLine(MIDDLE, X - WIDE * SHAPE[2], Y, X + WIDE * SHAPE[2], Y),
        Box3D(MIDDLE - 2, MIDDLE + 2, *(getattr(box(WIDE), corner) for corner in ("x0", "y0", "x1", "y1"))),
    ],
    ids=["line", "3D box"],
)
def test_a_line_or_a_box_around_a_volume_does_not(prompt: Prompt) -> None:
    assert area(HillyAhead, prompt) == area(Hilly, prompt)
