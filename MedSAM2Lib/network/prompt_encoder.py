"""Prompts to tokens: points and box corners are sparse, masks are dense. Kirillov et al., arXiv 2304.02643."""

from __future__ import annotations

from enum import IntEnum
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from MedSAM2Lib.network.layers import LayerNorm2d, OfWeights
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


class PromptEncoder(nn.Module):
    def __init__(self, dim: int, image_size: int, mask_channels: int = 16) -> None:
        super().__init__()
        self.image_size = image_size
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
        self._grid = OfWeights()

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
        dense = self._no_mask(batch=points.shape[0]) if mask is None else self.mask_downscaling(self._resized(mask))
        return EncodedPrompt(self._embed_points(points, labels), dense)

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

    def grid_encoding(self) -> Tensor:
        """(C, S / 16, S / 16) positions of the image tokens."""
        side = self.image_size // 16
        return self._grid(self.pe_layer.grid, (self.pe_layer.positional_encoding_gaussian_matrix,), side, side)
