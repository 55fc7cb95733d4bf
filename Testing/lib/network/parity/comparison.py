"""When two implementations agree."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from MedSAM2Lib.network.sam2 import NO_OBJECT_LOGIT, SAM2
from Testing.lib.network.parity.drivers import Driver, Ours
from Testing.lib.network.parity.weights import random_slices

__all__ = ["TOLERANCE", "Story", "assert_agree", "assert_same_story", "relative_error"]

TOLERANCE = 1e-4  # in float32; what is measured is some 2e-6

Story = Callable[[Driver], dict[int, Tensor]]
"""Prompts and passes, and the answers that they end with, by slice; answers on the way have negative numbers."""


def relative_error(ours: Tensor, theirs: Tensor) -> float:
    """The largest difference, in units of the largest value."""
    assert ours.shape == theirs.shape
    return float((ours.float() - theirs.float()).abs().max() / theirs.float().abs().max())


def assert_agree(ours: Tensor, theirs: Tensor) -> None:
    error = relative_error(ours, theirs)
    assert error <= TOLERANCE, f"they differ by {error:.1e} of the largest value, and {TOLERANCE:.0e} is allowed"


def assert_same_story(
    reference: Callable[[SAM2, Tensor, torch.dtype], Driver],
    network: SAM2,
    story: Story,
    *,
    count: int = 12,
    memory_dtype: torch.dtype = torch.float32,
    tolerance: float = TOLERANCE,
) -> None:
    """Tells a story of a random volume of `count` slices to ours and to a reference; their answers are the same.

    Prompted masks are binarised before they are remembered. In a few of a thousand, rounding puts some pixel's logit on
    either side of 0, and later slices move by 1e-4 and more. So a story that differs is told once more, of another volume.
    """
    for seed in (0, 1):
        slices = random_slices(count, network.config, seed)
        ours = story(Ours(network, slices, memory_dtype))
        theirs = story(reference(network, slices, memory_dtype))
        errors = _errors(ours, theirs)
        if max(errors.values()) <= tolerance:
            return
    listed = ", ".join(f"{index}: {error:.1e}" for index, error in errors.items())
    raise AssertionError(f"answers differ by more than {tolerance:.0e} of a slice's largest logit; by slice: {listed}")


def _errors(ours: Mapping[int, Tensor], theirs: Mapping[int, Tensor]) -> dict[int, float]:
    """By slice, each in units of its own largest logit: a slice without the object must not hide the others' errors."""
    assert list(ours) == list(theirs)
    for index, logits in theirs.items():
        share = float((logits > 0).float().mean())
        absent = bool((logits == NO_OBJECT_LOGIT).all())
        assert absent or 0.02 < share < 0.98, f"the mask of slice {index} covers {share:.0%} of it, which proves little"
    return {index: relative_error(ours[index], theirs[index]) for index in theirs}
