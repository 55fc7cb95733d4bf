"""Stages of convolutions with residual connections (He et al., arXiv 1512.03385), normalised in groups; of images or volumes.

Normalisation by groups (Wu & He, arXiv 1803.08494) does not depend on the other slices of a batch: training tracks few clips
at a time, fine-tuning perhaps one.
"""

from __future__ import annotations

from itertools import pairwise

from torch import Tensor, nn
from torch.nn import functional as F

__all__ = ["Convolution", "ResidualBlock", "convolutions", "residual_stage"]

Convolution = type[nn.Conv2d] | type[nn.Conv3d]

_GROUPS = 8


def convolutions(*channels: int, stride: int = 1, kind: Convolution = nn.Conv2d) -> nn.Sequential:
    """Convolutions, 3 across, from each number of channels to the next; the first has the stride."""
    layers: list[nn.Module] = []
    for before, after in pairwise(channels):
        layers += [_convolution(before, after, stride, kind), nn.GroupNorm(_GROUPS, after), nn.ReLU()]
        stride = 1
    return nn.Sequential(*layers)


def residual_stage(before: int, after: int, stride: int = 1, kind: Convolution = nn.Conv2d) -> nn.Sequential:
    """(B, before, H, W) to (B, after, H / stride, W / stride), or the same with D of volumes."""
    return nn.Sequential(convolutions(before, after, stride=stride, kind=kind), ResidualBlock(after, kind))


class ResidualBlock(nn.Module):
    """(B, C, H, W) or (B, C, D, H, W) to the same; begins as the identity."""

    def __init__(self, channels: int, kind: Convolution = nn.Conv2d) -> None:
        super().__init__()
        self.first = convolutions(channels, channels, kind=kind)
        self.second = _convolution(channels, channels, stride=1, kind=kind)
        self.norm = nn.GroupNorm(_GROUPS, channels)
        nn.init.zeros_(self.norm.weight)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(x + self.norm(self.second(self.first(x))))


def _convolution(before: int, after: int, stride: int, kind: Convolution) -> nn.Module:
    return kind(before, after, kernel_size=3, stride=stride, padding=1, bias=False)
