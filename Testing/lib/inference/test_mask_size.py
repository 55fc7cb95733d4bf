"""A mask is cut where it fills its box, if that was drawn around the object on that slice; and under a click, by an area."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from MedSAM2Lib.inference import segmenter
from MedSAM2Lib.inference.mask_size import fitted, piece_under
from MedSAM2Lib.prompts import Box3D, Points, Prompt, RecistLine
from MedSAM2Lib.volume import Volume
from Testing.lib.inference.support import PLAIN, Mask, SeesBright, box_around, loaded, opened

SIDE = 64
MIDDLE = 31.5


def hill(radius: float) -> Tensor:
    """(1, 1, SIDE, SIDE) logits that are 0 at a circle and fall by one in three cells."""
    away = torch.arange(SIDE) - MIDDLE
    return ((radius - torch.hypot(away[:, None], away[None])) / 3)[None, None]


def box(half: float, spare: float = 0.0) -> Tensor:
    half *= 1 + 2 * spare
    return torch.tensor([MIDDLE - half, MIDDLE - half, MIDDLE + half, MIDDLE + half])


def width(logits: Tensor) -> int:
    return int((logits[0, 0] > 0).any(0).sum())


@pytest.mark.parametrize("radius", [12, 16])
def test_a_mask_that_is_too_small_or_too_large_is_cut_at_the_box(radius: float) -> None:
    assert width(hill(radius)) == 2 * radius
    assert width(fitted(hill(radius), box(13.5))) == 28


def test_a_mask_that_fills_its_box_stays_as_it_is() -> None:
    assert torch.equal(fitted(hill(14), box(13.5)), hill(14))


@pytest.mark.parametrize("spare", [0.05, 0.1, 0.2])
def test_a_box_with_room_on_all_sides_changes_little(spare: float) -> None:
    assert width(fitted(hill(14), box(13.5, spare))) <= 30


def test_a_mask_does_not_grow_without_bounds() -> None:
    assert width(fitted(hill(5), box(25))) <= 2 * 5 + 4 * 3


def test_a_stray_does_not_matter() -> None:
    strayed = hill(14)
    strayed[..., 2:4, 60:62] = 0.3
    assert torch.equal(fitted(strayed, box(13.5)), strayed)


def test_an_empty_answer_stays_empty() -> None:
    nothing = torch.full((1, 1, SIDE, SIDE), -1024.0)
    assert not (fitted(nothing, box(13.5)) > 0).any()


def clicked(column: int) -> np.ndarray:
    where = np.zeros((SIDE, SIDE), dtype=bool)
    where[31, column] = True
    return where


def test_of_a_click_no_more_is_kept_than_may_be() -> None:
    logits = hill(20)[0, 0].numpy()
    cut, piece = piece_under(logits, clicked(31), most=300)
    assert cut > 0
    assert 200 < piece.sum() <= 300
    np.testing.assert_array_equal(piece, logits > cut)


def test_a_click_near_the_edge_is_not_lost() -> None:
    _, piece = piece_under(hill(20)[0, 0].numpy(), clicked(48), most=300)
    assert piece[31, 48]
    assert piece.sum() > 300


def test_beside_the_mask_a_click_finds_nothing() -> None:
    cut, piece = piece_under(hill(10)[0, 0].numpy(), clicked(60), most=300)
    assert cut == 0
    assert not piece.any()


class Fits(SeesBright):
    fits_boxes = True


def test_only_a_box_drawn_on_its_slice_is_fitted_and_only_where_that_helps(
    a_volume: Volume, the_truth: Mask, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(segmenter, "fitted", lambda logits, box: torch.full_like(logits, 5.0))
    drawn = box_around(the_truth[11], 11)

    def is_fitted(prompt: Prompt, kind: type[SeesBright] = Fits) -> bool:
        return bool(opened(loaded(kind), a_volume, PLAIN).add_prompt("ball", prompt).mask.all())

    assert is_fitted(drawn)
    assert not is_fitted(drawn, SeesBright)
    assert not is_fitted(Box3D(10, 12, drawn.x0, drawn.y0, drawn.x1, drawn.y1))
    assert not is_fitted(RecistLine(11, drawn.x0, drawn.y0, drawn.x1, drawn.y1))
    assert not is_fitted(Points(11, (24.0,), (24.0,), (True,)))
