"""What an object looks like in grey values, beside what is around it: a cue that outlasts a mask gone astray.

The ratio of two histograms as evidence for each pixel is that of Boykov & Jolly's interactive graph cuts (ICCV 2001). Slices
of a volume share their grey values, so what was learned on a prompted slice holds on the others.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

__all__ = ["grey_profile", "resemblance"]

_BINS = 64
_KERNEL = (0.054, 0.244, 0.404, 0.244, 0.054)  # a Gaussian of one bin: a few hundred pixels leave gaps in a histogram
_FLOOR = 0.1 / _BINS  # share of pixels that any grey is granted, so that one that was not seen is no proof
_BOUND = 4.0  # of log ratios, which are scaled to + and - 1
_UNIT = 2**16  # shares of pixels are counted in whole parts: their sums are the same in every order, on a GPU too
_LEAST_PIXELS = 4.0  # inside and outside; of fewer nothing is learned


def grey_profile(grey: Tensor, share: Tensor) -> Tensor:
    """How much each grey value speaks for the object, (B, 64), -1 to 1; all 0 where there is none.

    grey   (B, S, S), 0..1
    share  (B, S, S), 0..1 or bool: how much of each pixel belongs to the object
    """
    share = share.float()
    weights = torch.stack((share, 1 - share), dim=1).flatten(2)  # (B, 2, S * S)
    low, fraction = _bins(grey.float().flatten(1))
    counts = torch.zeros(*weights.shape[:2], _BINS, dtype=torch.long, device=grey.device)
    for index, part in ((low, 1 - fraction), (low + 1, fraction)):
        counts.scatter_add_(2, index[:, None].expand_as(weights), (part[:, None] * weights * _UNIT).round().long())
    histograms = counts.float() / _UNIT
    kernel = torch.tensor(_KERNEL, device=grey.device).view(1, 1, -1)
    smooth = F.conv1d(histograms.flatten(0, 1)[:, None], kernel, padding=len(_KERNEL) // 2).view_as(histograms)
    pixels = weights.sum(-1)  # (B, 2)
    inside, outside = (smooth / pixels.clamp(min=1)[..., None]).unbind(1)
    ratio = torch.log((inside + _FLOOR) / (outside + _FLOOR)).clamp(-_BOUND, _BOUND) / _BOUND
    return ratio * (pixels >= _LEAST_PIXELS).all(1, keepdim=True)


def resemblance(grey: Tensor, profile: Tensor) -> Tensor:
    """(B, S, S), -1 to 1: what the grey value of each pixel says, by a profile (B, 64)."""
    low, fraction = _bins(grey.float().flatten(1))
    return torch.lerp(profile.gather(1, low), profile.gather(1, low + 1), fraction).view_as(grey)


def _bins(grey: Tensor) -> tuple[Tensor, Tensor]:
    """(B, N) the lower of the two bins that a grey value lies between, and how far it is from that."""
    place = grey.clamp(0, 1).nan_to_num() * (_BINS - 1)  # of a loss that is NaN the training loop tells
    low = place.floor().clamp(max=_BINS - 2)
    return low.long(), place - low
