"""Grey values that speak for an object: on the slice they were learned on, and on others."""

from __future__ import annotations

import torch

from MedSAM2Lib.network.grey import grey_profile, resemblance

SIDE = 32
SQUARE = torch.zeros(1, SIDE, SIDE, dtype=torch.bool)
SQUARE[:, 8:20, 8:20] = True


def a_slice(inside: float, outside: float, noise: float = 0.01) -> torch.Tensor:
    return torch.where(SQUARE, inside, outside) + noise * torch.randn(SQUARE.shape, generator=torch.Generator().manual_seed(0))


def test_an_objects_grey_speaks_for_it_and_others_against() -> None:
    grey = a_slice(0.6, 0.3)
    alike = resemblance(grey, grey_profile(grey, SQUARE))
    assert alike[SQUARE].min() > 0.5
    assert alike[~SQUARE].max() < -0.5
    assert alike.abs().max() <= 1


def test_what_was_learned_on_one_slice_holds_on_another() -> None:
    profile = grey_profile(a_slice(0.6, 0.3), SQUARE)
    other = a_slice(0.3, 0.6)  # the object all around a hole
    alike = resemblance(other, profile)
    assert alike[~SQUARE].mean() > 0.7
    assert alike[SQUARE].mean() < -0.7


def test_grey_that_was_not_seen_is_no_proof() -> None:
    profile = grey_profile(a_slice(0.6, 0.3), SQUARE)
    assert resemblance(torch.full((1, SIDE, SIDE), 0.95), profile).abs().max() < 0.1


def test_where_object_and_surroundings_look_alike_nothing_is_said() -> None:
    grey = a_slice(0.5, 0.5, noise=0.1)
    assert resemblance(grey, grey_profile(grey, SQUARE)).abs().mean() < 0.15


def test_of_no_object_nothing_is_learned() -> None:
    for share in (torch.zeros(1, SIDE, SIDE), torch.ones(1, SIDE, SIDE)):
        assert not grey_profile(a_slice(0.6, 0.3), share).any()


def test_a_profile_does_not_depend_on_how_many_pixels_there_are() -> None:
    fine, coarse = a_slice(0.6, 0.3), a_slice(0.6, 0.3)[:, ::2, ::2]
    difference = grey_profile(fine, SQUARE) - grey_profile(coarse, SQUARE[:, ::2, ::2])
    assert difference.abs().mean() < 0.05


def test_values_outside_0_to_1_count_as_black_and_white() -> None:
    grey = a_slice(1.5, -0.5)
    assert torch.equal(grey_profile(grey, SQUARE), grey_profile(grey.clamp(0, 1), SQUARE))
