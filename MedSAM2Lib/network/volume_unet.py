"""A U-Net that sees a cube of the volume and the slices of it that are known, and drafts the object in all of them at once.

What goes from slice to slice adds up its errors; what sees the whole object need not. Cicek et al., 3D U-Net, arXiv 1606.06650.

Legend for shapes: B batch, S cells along each side of a cube, the first of which goes through the slices.
"""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from MedSAM2Lib.network.grey import grey_profile, resemblance
from MedSAM2Lib.network.residual import ResidualBlock, convolutions, residual_stage

__all__ = ["CUBE_SIDE", "VolumeUNet"]

CUBE_SIDE = 64  # cells; any multiple of 16 can be seen
_CHANNELS = (32, 64, 128, 192)  # at strides 2, 4, 8, 16
_INPUTS = 5  # see `_channels`
_CELL = 2  # two by two by two cells enter as one, of stride 2: convolutions of all cells would cost more than all others


class VolumeUNet(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        steps = list(pairwise(_CHANNELS))
        finest, volume = _CHANNELS[0], nn.Conv3d
        self.stem = residual_stage(_INPUTS * _CELL**3, finest, kind=volume)
        self.down = nn.ModuleList(residual_stage(fine, coarse, stride=2, kind=volume) for fine, coarse in steps)
        self.deepest = ResidualBlock(_CHANNELS[-1], volume)
        self.up = nn.ModuleList(nn.Conv3d(coarse, fine, kernel_size=1) for fine, coarse in steps)
        self.merge = nn.ModuleList(
            convolutions(2 * fine, fine, fine, kind=volume) if fine == finest else residual_stage(2 * fine, fine, kind=volume)
            for fine, _ in steps
        )
        self.mask_head = nn.Conv3d(finest, _CELL**3, kernel_size=3, padding=1)

    @property
    def device(self) -> torch.device:
        return self.mask_head.weight.device

    def forward(self, grey: Tensor, known: Tensor, told: Tensor, depth: Tensor) -> Tensor:
        """The object's logits, (B, S, S, S).

        grey   (B, S, S, S), 0..1; 0 outside the volume
        known  (B, S) bool: planes of which a person said or approved what is on them, at least one
        told   (B, S, S, S), 0..1: the object on known planes, 0 on others
        depth  (B,) from one plane to the next, in cells of a plane
        """
        x = torch.stack([_channels(*cube) for cube in zip(grey, known, told, depth, strict=True)])
        x = _cells_to_channels(x).to(self.mask_head.weight.dtype).contiguous(memory_format=torch.channels_last_3d)
        x = self.stem(x)
        skipped = []
        for down in self.down:
            skipped.append(x)
            x = down(x)
        x = self.deepest(x)
        for up, merge in zip(reversed(self.up), reversed(self.merge), strict=True):
            finer = F.interpolate(up(x), scale_factor=2.0, mode="nearest")
            x = merge(torch.cat((finer, skipped.pop()), dim=1))
        return _channels_to_cells(self.mask_head(x)).float()


def _channels(grey: Tensor, known: Tensor, told: Tensor, depth: Tensor) -> Tensor:
    """(5, S, S, S) of one cube: grey, likeness to the object, what is known, the nearest known mask, and how far that is."""
    side = len(known)
    planes = known.nonzero()[:, 0]
    inside = told[planes] >= 0.5
    profile = grey_profile(grey[planes].reshape(1, -1, side), inside.reshape(1, -1, side))
    alike = resemblance(grey.reshape(1, -1, side), profile).view_as(grey)
    shown = planes[inside.flatten(1).any(1)]
    sources = shown if len(shown) else planes
    plane = torch.arange(side, device=known.device)
    nearest = sources[(plane[:, None] - sources).abs().argmin(1)]
    away = torch.log1p((plane - nearest).abs() * (depth / side))[:, None, None].expand_as(grey)
    return torch.stack((grey - 0.5, alike, (2 * told - 1) * known[:, None, None], told[nearest], away))


def _cells_to_channels(x: Tensor) -> Tensor:
    """(B, C, D, H, W) to (B, 8 C, D / 2, H / 2, W / 2): `pixel_unshuffle` in three dimensions."""
    batch, channels, depth, height, width = x.shape
    split = x.view(batch, channels, depth // _CELL, _CELL, height // _CELL, _CELL, width // _CELL, _CELL)
    return split.permute(0, 1, 3, 5, 7, 2, 4, 6).flatten(1, 4)


def _channels_to_cells(x: Tensor) -> Tensor:
    """(B, 8, D, H, W) to (B, 2 D, 2 H, 2 W)."""
    batch, _, depth, height, width = x.shape
    split = x.reshape(batch, _CELL, _CELL, _CELL, depth, height, width)
    return split.permute(0, 4, 1, 5, 2, 6, 3).reshape(batch, depth * _CELL, height * _CELL, width * _CELL)
