"""SAM's image encoder: a plain vision transformer with windowed attention and decomposed relative positions.

Kirillov et al., arXiv 2304.02643, after Li et al., arXiv 2203.16527. Tokens stay on their grid, (B, H, W, C).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from MedSAM2Lib.network.config import SAMConfig
from MedSAM2Lib.network.layers import LayerNorm2d, attend, from_windows, to_windows
from MedSAM2Lib.network.linear import Activation, Linear

__all__ = ["PatchEmbed", "Perceptron", "ViT"]

_LAYER_NORM_EPS = 1e-6
_BIAS_ELEMENTS = 2**24  # of position scores that exist at a time, 64 MB; all of a global block would be 0.8 GB at 1024 pixels


class Perceptron(nn.Module):
    """Two linear layers under the names that SAM's checkpoints give them."""

    def __init__(self, dim_in: int, hidden_dim: int, dim_out: int, activation: Activation = "relu") -> None:
        super().__init__()
        self.lin1 = Linear(dim_in, hidden_dim)
        self.lin2 = Linear(hidden_dim, dim_out)
        self.activation: Activation = activation

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.lin2(self.lin1(x, self.activation))
        return out


class RelativeAttention(nn.Module):
    """Attention between the tokens of a square grid. A key's score also depends on how many rows and how many columns it is
    away from the query: q . R_h[rows] + q . R_w[columns], with unscaled q."""

    def __init__(self, dim: int, heads: int, side: int) -> None:
        super().__init__()
        self.heads = heads
        self.side = side
        self.qkv = Linear(dim, 3 * dim)
        self.proj = Linear(dim, dim)
        self.rel_pos_h = nn.Parameter(torch.zeros(2 * side - 1, dim // heads))  # from side - 1 rows below to as many above
        self.rel_pos_w = nn.Parameter(torch.zeros(2 * side - 1, dim // heads))

    def forward(self, x: Tensor) -> Tensor:
        """(B, side, side, C) to the same shape."""
        batch, rows, columns, _ = x.shape
        qkv = self.qkv(x).reshape(batch, rows * columns, 3, self.heads, -1)
        q, k, v = qkv.permute(2, 0, 3, 1, 4).unbind(0)  # each (B, heads, N, C / heads)
        grid = q.unflatten(2, (rows, columns))
        by_row = torch.einsum("bnhwd,hkd->bnhwk", grid, self._table(self.rel_pos_h))  # (B, heads, H, W, H)
        by_column = torch.einsum("bnhwd,wkd->bnhwk", grid, self._table(self.rel_pos_w))  # (B, heads, H, W, W)
        at_once = max(1, _BIAS_ELEMENTS // (batch * self.heads * columns * rows * columns))
        attended = []
        for top in range(0, rows, at_once):
            queries = slice(top, top + at_once)
            bias = by_row[:, :, queries, :, :, None] + by_column[:, :, queries, :, None, :]
            attended.append(attend(grid[:, :, queries].flatten(2, 3), k, v, bias.flatten(4).flatten(2, 3)))
        out: Tensor = self.proj(torch.cat(attended, dim=2).transpose(1, 2).reshape(x.shape))
        return out

    def _table(self, relative: Tensor) -> Tensor:
        """(2 * side - 1, d) by distance to (side, side, d) by query and key."""
        place = torch.arange(self.side, device=relative.device)
        return relative[place[:, None] - place[None, :] + self.side - 1]


class ViTBlock(nn.Module):
    """`window` is the side of its attention window in tokens, 0 for attention over the whole grid of side `grid`."""

    def __init__(self, dim: int, heads: int, window: int, grid: int) -> None:
        super().__init__()
        self.window = window
        self.norm1 = nn.LayerNorm(dim, eps=_LAYER_NORM_EPS)
        self.attn = RelativeAttention(dim, heads, window or grid)
        self.norm2 = nn.LayerNorm(dim, eps=_LAYER_NORM_EPS)
        self.mlp = Perceptron(dim, 4 * dim, dim, activation="gelu")

    def forward(self, x: Tensor) -> Tensor:
        """(B, H, W, C) to the same shape."""
        x = x + self._attend(self.norm1(x))
        out: Tensor = x + self.mlp(self.norm2(x))
        return out

    def _attend(self, x: Tensor) -> Tensor:
        if self.window == 0:
            attended: Tensor = self.attn(x)
            return attended
        rows, columns = x.shape[1:3]
        # Windows start at the top left; zeros complete those at the bottom and the right. They are not masked: the
        # published weights were trained with them.
        padded = F.pad(x, (0, 0, 0, -columns % self.window, 0, -rows % self.window))
        attended = self.attn(to_windows(padded, self.window, self.window))
        return from_windows(attended, padded.shape[1], padded.shape[2])[:, :rows, :columns]


class PatchEmbed(nn.Module):
    """Patches that do not overlap: (B, 3, S, S) to (B, S / 16, S / 16, C)."""

    def __init__(self, dim: int, patch: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(3, dim, kernel_size=patch, stride=patch)

    def forward(self, x: Tensor) -> Tensor:
        embedded: Tensor = self.proj(x)
        return embedded.permute(0, 2, 3, 1).contiguous()


class ViT(nn.Module):
    def __init__(self, config: SAMConfig) -> None:
        super().__init__()
        dim, side = config.embed_dim, config.feature_size
        self.patch_embed = PatchEmbed(dim, config.patch_size)
        self.pos_embed = nn.Parameter(torch.zeros(1, side, side, dim))
        self.blocks = nn.ModuleList(
            ViTBlock(dim, config.num_heads, 0 if index in config.global_attention_blocks else config.window, side)
            for index in range(config.depth)
        )
        self.neck = nn.Sequential(
            nn.Conv2d(dim, config.hidden_dim, kernel_size=1, bias=False),
            LayerNorm2d(config.hidden_dim),
            nn.Conv2d(config.hidden_dim, config.hidden_dim, kernel_size=3, padding=1, bias=False),
            LayerNorm2d(config.hidden_dim),
        )

    def forward(self, images: Tensor) -> Tensor:
        """(B, 3, S, S) to (B, hidden_dim, S / 16, S / 16)."""
        x = self.patch_embed(images) + self.pos_embed
        for block in self.blocks:
            x = block(x)
        out: Tensor = self.neck(x.permute(0, 3, 1, 2))
        return out
