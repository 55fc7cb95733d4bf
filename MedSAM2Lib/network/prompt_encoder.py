"""Prompts to tokens: points and box corners are sparse, masks are dense. Kirillov et al., arXiv 2304.02643."""

from __future__ import annotations

from enum import IntEnum
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from MedSAM2Lib.network.layers import LayerNorm2d
from MedSAM2Lib.network.positions import RandomFourierEncoding

__all__ = ["EncodedPrompt", "PointLabel", "PromptEncoder"]


class PointLabel(IntEnum):
    """What a point means; a box travels as its two corners."""

    PADDING = -1
    NEGATIVE = 0
    POSITIVE = 1
    BOX_TOP_LEFT = 2
    BOX_BOTTOM_RIGHT = 3


class EncodedPrompt(NamedTuple):
    sparse: Tensor  # (B, N + 1, C)
    dense: Tensor  # (B, C, S / 16, S / 16)
    fine: tuple[Tensor, Tensor] | None = None  # a mask at (B, C / 4, S / 8, S / 8) and (B, C / 8, S / 4, S / 4)


class FineMask(nn.Module):
    """A mask prompt for the finer features of the mask decoder, which in SAM 2 see it only through the coarse map.

    Says nothing before it is trained, so that it can join a trained network.
    """

    def __init__(self, dim: int, channels: int = 8) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(1, channels, kernel_size=3, padding=1), LayerNorm2d(channels), nn.GELU())
        self.to_stride8 = nn.Conv2d(channels, dim // 4, kernel_size=2, stride=2)
        self.to_stride4 = nn.Conv2d(channels, dim // 8, kernel_size=3, padding=1)
        for layer in (self.to_stride8, self.to_stride4):
            for parameter in layer.parameters():
                nn.init.zeros_(parameter)

    def forward(self, mask: Tensor) -> tuple[Tensor, Tensor]:
        """(B, 1, S / 4, S / 4) logits to (B, C / 4, S / 8, S / 8) and (B, C / 8, S / 4, S / 4)."""
        x = self.stem(mask)
        return self.to_stride8(x), self.to_stride4(x)


_BOX_LOGIT_BOUND = 10.0  # like the logits of a mask that a person gave


class PromptEncoder(nn.Module):
    def __init__(
        self, dim: int, image_size: int, box_as_mask: bool = False, fine_mask: bool = False, mask_channels: int = 16
    ) -> None:
        super().__init__()
        self.image_size = image_size
        self.box_as_mask = box_as_mask
        self.pe_layer = RandomFourierEncoding(dim)
        self.point_embeddings = nn.ModuleList(nn.Embedding(1, dim) for _ in range(4))
        self.not_a_point_embed = nn.Embedding(1, dim)
        self.mask_downscaling = nn.Sequential(
            nn.Conv2d(1, mask_channels // 4, kernel_size=2, stride=2),
            LayerNorm2d(mask_channels // 4),
            nn.GELU(),
            nn.Conv2d(mask_channels // 4, mask_channels, kernel_size=2, stride=2),
            LayerNorm2d(mask_channels),
            nn.GELU(),
            nn.Conv2d(mask_channels, dim, kernel_size=1),
        )
        self.no_mask_embed = nn.Embedding(1, dim)
        self.fine_mask = FineMask(dim) if fine_mask else None

    @property
    def mask_size(self) -> int:
        """Side of a mask prompt: a quarter of the image."""
        return self.image_size // 4

    def forward(self, points: Tensor, labels: Tensor, mask: Tensor | None) -> EncodedPrompt:
        """
        points  (B, N, 2) as (x, y) in pixels of the network's image, pixel centres at integers
        labels  (B, N) of `PointLabel`
        mask    (B, 1, h, w) logits, resized to `mask_size` where they have another size; None for no mask
        """
        if mask is None and self.box_as_mask and PointLabel.BOX_TOP_LEFT in labels:
            mask = self._box_logits(points[:, :2])
        if mask is None:
            return EncodedPrompt(self._embed_points(points, labels), self._no_mask(batch=points.shape[0]))
        mask = self._resized(mask)
        fine = None if self.fine_mask is None else self.fine_mask(mask)
        return EncodedPrompt(self._embed_points(points, labels), self.mask_downscaling(mask), fine)

    def _padded(self, points: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """One padding token always ends the sequence."""
        return F.pad(points, (0, 0, 0, 1)), F.pad(labels, (0, 1), value=PointLabel.PADDING)

    def _embed_points(self, points: Tensor, labels: Tensor) -> Tensor:
        points, labels = self._padded(points, labels)
        encoded: Tensor = self.pe_layer((points + 0.5) / self.image_size)  # (B, N + 1, C)
        table = torch.cat([self.not_a_point_embed.weight, *self.point_embeddings.parameters()])
        return encoded * (labels >= 0)[..., None] + table[labels.long() + 1]

    def _no_mask(self, batch: int) -> Tensor:
        side = self.image_size // 16
        return self.no_mask_embed.weight[:, :, None, None].expand(batch, -1, side, side)

    def _resized(self, mask: Tensor) -> Tensor:
        size = (self.mask_size, self.mask_size)
        if mask.shape[-2:] == size:
            return mask
        return F.interpolate(mask.float(), size=size, mode="bilinear", align_corners=False, antialias=True)

    def _box_logits(self, corners: Tensor) -> Tensor:
        """(B, 2, 2) corner pixels to (B, 1, S / 4, S / 4): the depth of each cell inside the box, in cells, negative outside."""
        cell = self.image_size / self.mask_size
        centre = (torch.arange(self.mask_size, device=corners.device) + 0.5) * cell - 0.5  # pixel coordinates
        x0, y0, x1, y1 = ((edge / cell)[:, None] for edge in corners.flatten(1).unbind(1))
        columns = torch.minimum(centre / cell - x0, x1 - centre / cell)  # (B, S / 4)
        rows = torch.minimum(centre / cell - y0, y1 - centre / cell)
        return torch.minimum(rows[:, :, None], columns[:, None, :]).clamp(-_BOX_LOGIT_BOUND, _BOX_LOGIT_BOUND)[:, None]

    def grid_encoding(self) -> Tensor:
        """(C, S / 16, S / 16) positions of the image tokens."""
        side = self.image_size // 16
        return self.pe_layer.grid(side, side)
