"""How far an object is expected to reach through the slices, before anything is seen of them. No torch here.

Most things a person draws a box around are about as deep as they are wide; a cord or a vessel is not, and shows it: deep in,
its cross-section is still what it was. A large network sees where an object ends; a small one that hardly knows is helped by
this expectation. It only shifts the network's own object score, so what is plainly still there goes on.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

__all__ = ["DepthPrior"]

_HELD_SHARE = 0.7  # a cross-section that has kept this much has not begun to end: the figure for 1 would be endless
# What has grown has rather taken in a neighbour than turned out to be deep: from the first of these it counts for less and less.
_GROWN_SHARES = (1.25, 1.5)


@dataclass(frozen=True)
class DepthPrior:
    """Presence as a logit that falls with the logarithm of depth, so that it means the same at every size.

    bias   how much the network overrates presence: subtracted from every tracked slice's object score
    slope  doubt per factor e of depth over expected depth; at that there is only the bias
    """

    bias: float
    slope: float

    def doubt(self, depth_mm: float, radius_mm: float, seen_mm: float = 0.0, share: float = 0.0) -> float:
        """What to subtract from the object score of a slice.

        depth_mm   distance to the prompted slice, above 0
        radius_mm  half the mean side of the object's box there, above 0
        seen_mm    how deep the last slice lies on which the object was seen
        share      area of the object's cross-section there over that on the prompted slice
        """
        return self.bias + self.slope * math.log(depth_mm / _expected_depth(radius_mm, seen_mm, share))


def _expected_depth(radius_mm: float, seen_mm: float, share: float) -> float:
    """How deep an ellipsoid is, from its middle, that has this share of its widest cross-section left at a depth; at least as
    deep as wide, and no more than that where hardly anything is left."""
    kept = min(share, _HELD_SHARE)
    deep = max(radius_mm, seen_mm / math.sqrt(1 - kept))
    first, last = _GROWN_SHARES
    trust = kept / _HELD_SHARE * min(1.0, max(0.0, (last - share) / (last - first)))
    return radius_mm * math.pow(deep / radius_mm, trust)
