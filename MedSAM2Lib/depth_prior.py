"""How far an object is expected to reach through the slices, before anything is seen of them. No torch here.

Most things a person draws a box around are about as deep as they are wide. A large network sees where an object ends; a
small one that hardly knows is helped by this expectation. It only shifts the network's own object score, so a vessel
that is plainly still there goes on.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

__all__ = ["DepthPrior"]


@dataclass(frozen=True)
class DepthPrior:
    """Presence as a logit that falls with the logarithm of depth, so that it means the same at every size.

    bias   how much the network overrates presence: subtracted from every tracked slice's object score
    slope  doubt per factor e of depth over radius; at a depth of one radius there is only the bias
    """

    bias: float
    slope: float

    def doubt(self, depth_mm: float, radius_mm: float) -> float:
        """What to subtract from the object score of a slice.

        depth_mm   distance to the prompted slice, above 0
        radius_mm  half the mean side of the object's box there, above 0
        """
        return self.bias + self.slope * math.log(depth_mm / radius_mm)
