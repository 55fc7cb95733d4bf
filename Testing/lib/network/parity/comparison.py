"""When two implementations agree."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

__all__ = ["TOLERANCE", "assert_agree", "assert_same_story", "relative_error"]

TOLERANCE = 1e-4  # in float32; what is measured is some 2e-6


def relative_error(ours: Tensor, theirs: Tensor) -> float:
    """The largest difference, in units of the largest value."""
    assert ours.shape == theirs.shape
    return float((ours.float() - theirs.float()).abs().max() / theirs.float().abs().max())


def assert_agree(ours: Tensor, theirs: Tensor, tolerance: float = TOLERANCE) -> None:
    error = relative_error(ours, theirs)
    assert error <= tolerance, f"they differ by {error:.1e} of the largest value, and {tolerance:.0e} is allowed"


def assert_same_story(ours: Mapping[int, Tensor], theirs: Mapping[int, Tensor], tolerance: float = TOLERANCE) -> None:
    """Logits by slice, each compared alone, and none of them a mask without an edge (which would prove little)."""
    assert list(ours) == list(theirs)
    for index, logits in theirs.items():
        share = float((logits > 0).float().mean())
        assert 0.02 < share < 0.98, f"the mask of slice {index} covers {share:.0%} of it; take other random weights"
        error = relative_error(ours[index], logits)
        assert error <= tolerance, f"slice {index} differs by {error:.1e} of its largest logit; {tolerance:.0e} is allowed"
