"""Prompts to tokens: points and box corners are sparse, masks are dense. Kirillov et al., arXiv 2304.02643."""

from __future__ import annotations

from enum import IntEnum

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from MedSAM2Lib.network.layers import LayerNorm2d
from MedSAM2Lib.network.positions import RandomFourierEncoding

__all__ = ["PointLabel", "PromptEncoder"]


class PointLabel(IntEnum):
    """What a point means; a box travels as its two corners."""

    PADDING = -1
    NEGATIVE = 0
    POSITIVE = 1
    BOX_TOP_LEFT = 2
    BOX_BOTTOM_RIGHT = 3


_BOX_LOGIT_BOUND = 10.0  # like the logits of a mask that a person gave


class PromptEncoder(nn.Module):
    def __init__(self, dim: int, image_size: int, box_as_mask: bool = False, mask_channels: int = 16) -> None:
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

    @property
    def mask_size(self) -> int:
        """Side of a mask prompt: a quarter of the image."""
        return self.image_size // 4

    def forward(self, points: Tensor, labels: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor]:
        """Sparse tokens (B, N + 1, C) and a dense map (B, C, S / 16, S / 16).

        points  (B, N, 2) as (x, y) in pixels of the network's image, pixel centres at integers
        labels  (B, N) of `PointLabel`
        mask    (B, 1, h, w) logits, resized to `mask_size` where they have another size; None for no mask
        """
        if mask is None and self.box_as_mask and PointLabel.BOX_TOP_LEFT in labels:
            mask = self._box_logits(points[:, :2])
        return self._embed_points(points, labels), self._embed_mask(mask, batch=points.shape[0])

    def _embed_points(self, points: Tensor, labels: Tensor) -> Tensor:
        # One padding token always ends the sequence: where SAM had boxes, SAM 2 sends corners as points and pads.
        points = F.pad(points, (0, 0, 0, 1))
        labels = F.pad(labels, (0, 1), value=PointLabel.PADDING)
        encoded: Tensor = self.pe_layer((points + 0.5) / self.image_size)  # (B, N + 1, C)
        table = torch.cat([self.not_a_point_embed.weight, *self.point_embeddings.parameters()])
        return encoded * (labels >= 0)[..., None] + table[labels.long() + 1]

    def _embed_mask(self, mask: Tensor | None, batch: int) -> Tensor:
        side = self.image_size // 16
        if mask is None:
            return self.no_mask_embed.weight[:, :, None, None].expand(batch, -1, side, side)
        if mask.shape[-1] != self.mask_size or mask.shape[-2] != self.mask_size:
            mask = F.interpolate(
                mask.float(), size=(self.mask_size, self.mask_size), mode="bilinear", align_corners=False, antialias=True
            )
        embedded: Tensor = self.mask_downscaling(mask)
        return embedded

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
