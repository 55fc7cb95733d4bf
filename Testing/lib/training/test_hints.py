"""Masks that have gone astray are still near the object, but not on it."""

from __future__ import annotations

import torch

from MedSAM2Lib.training.clip import ClipBatch
from MedSAM2Lib.training.hints import Hints, astray

SIDE = 64


def discs(radius: int, count: int = 30) -> torch.Tensor:
    ticks = torch.arange(SIDE)
    disc = (ticks - 24) ** 2 + (ticks[:, None] - 36) ** 2 <= radius**2
    return disc.expand(count, -1, -1)


def overlap_with_astray(radius: int) -> torch.Tensor:
    """(B,) Dice of discs and what became of them."""
    masks = discs(radius)
    led = astray(masks, torch.Generator().manual_seed(0))[:, 0] > 0
    return 2 * (led & masks).flatten(1).sum(1) / (led.flatten(1).sum(1) + masks.flatten(1).sum(1))


def test_masks_are_led_astray_by_a_share_of_their_size() -> None:
    for radius in (5, 18):
        overlap = overlap_with_astray(radius)
        assert 0.75 < overlap.mean() < 0.95
        assert overlap.min() > 0.4
        assert overlap.std() > 0.02


def test_they_are_logits_as_a_network_answers_them() -> None:
    logits = astray(discs(18), torch.Generator().manual_seed(0))
    assert logits.shape == (30, 1, SIDE, SIDE)
    assert logits.abs().max() <= 10.0
    assert (logits[:, 0, 36, 24] >= 1.5).all()
    assert (logits[:, 0, 0, 0] <= -4.0).all()


def test_an_empty_mask_stays_empty() -> None:
    assert (astray(discs(18)[:2] & False, torch.Generator()) < 0).all()


def test_it_follows_from_the_generator() -> None:
    first, again = (astray(discs(9), torch.Generator().manual_seed(7)) for _ in range(2))
    assert torch.equal(first, again)


def a_clip(*present: bool, gap: float = 2.0) -> ClipBatch:
    """A disc, on some of the slices; they are 2 pixels apart, the first two further."""
    masks = torch.stack([discs(12, 1)[0] & shown for shown in present])[None]
    distances = torch.cat((torch.zeros(1), gap + 2.0 * torch.arange(len(present) - 1)))[None]
    return ClipBatch(torch.zeros(1, len(present), 3, SIDE, SIDE), masks, distances, torch.tensor([2.0]))


ANSWER = torch.full((1, 1, SIDE, SIDE), -7.0)


def test_a_slice_is_told_what_the_network_answered() -> None:
    hints = Hints(a_clip(True, True, True), 0.0, torch.Generator())
    assert hints(1, ANSWER) is hints(2, ANSWER) is ANSWER


def test_after_slices_that_were_left_out_a_mask_gone_astray_stands_in() -> None:
    hints = Hints(a_clip(True, True, True, gap=20.0), 0.0, torch.Generator().manual_seed(0))
    assert ((hints(1, ANSWER) > 0) & discs(12, 1)).sum() > 0.5 * discs(12, 1).sum()
    assert hints(2, ANSWER) is ANSWER


def test_beyond_the_objects_end_masks_gone_astray_are_those_of_its_last_slice() -> None:
    hints = Hints(a_clip(True, True, False, False), 1.0, torch.Generator().manual_seed(0))
    assert all((hints(index, ANSWER) > 0).any() for index in (1, 2, 3))
