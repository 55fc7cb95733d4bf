"""Hiera, the image trunk of SAM 2: windowed attention at four strides, a few global blocks.

Ryali et al., arXiv 2306.00989, as SAM 2 uses it (Ravi et al., arXiv 2408.00714, appendix). Tokens stay on their grid,
(B, H, W, C).
"""

from __future__ import annotations

import math
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from MedSAM2Lib.network.config import TrunkConfig
from MedSAM2Lib.network.layers import MLP, OfWeights, attend, from_windows, in_parts, to_windows
from MedSAM2Lib.network.linear import Linear

__all__ = ["Hiera", "MultiScaleBlock"]

_LAYER_NORM_EPS = 1e-6


def _pool(x: Tensor) -> Tensor:
    """2 x 2 maximum of (B, H, W, C), contiguous. max_pool2d was wrong for strided views on MPS (torch 2.7)."""
    channels_first = x.contiguous().permute(0, 3, 1, 2)  # in its memory still channels last, so nothing is rearranged
    return F.max_pool2d(channels_first, 2).permute(0, 2, 3, 1)


def _spans(length: int, window: int) -> list[tuple[int, int, int]]:
    """(start, end, side of its windows) of the part that whole windows fill, and of what is left beyond it."""
    filled = length - length % window
    return [(start, end, side) for start, end, side in ((0, filled, window), (filled, length, length % window)) if start < end]


class MultiScaleAttention(nn.Module):
    """Attention inside a window; with `pool_queries` the result has half the window's sides."""

    def __init__(self, dim_in: int, dim_out: int, heads: int, pool_queries: bool) -> None:
        super().__init__()
        self.heads = heads
        self.pool_queries = pool_queries
        self.qkv = Linear(dim_in, 3 * dim_out)
        self.proj = Linear(dim_out, dim_out)

    def forward(self, x: Tensor, padding: int = 0) -> Tensor:
        """(B, h, w, dim_in) to (B, h', w', dim_out).

        padding  tokens of zeros that belong to the window as well. They are *not* masked: the published weights were
                 trained with them. Their keys and values are the projection's bias, all the same, so one of them stands
                 for all when its score is raised by the logarithm of their number
        """
        batch, height, width, _ = x.shape
        q, k, v = self.qkv(x).chunk(3, dim=-1)  # each (B, h, w, dim_out)
        if self.pool_queries:
            q = _pool(q)
            height, width = q.shape[1:3]
        k, v = k.flatten(1, 2), v.flatten(1, 2)
        mask = None
        if padding:
            _, padded_k, padded_v = self.qkv.bias.to(k.dtype).expand(batch, 1, -1).chunk(3, dim=-1)
            k, v = torch.cat((k, padded_k), dim=1), torch.cat((v, padded_v), dim=1)
            mask = k.new_zeros(1, 1, 1, k.shape[1])
            mask[..., -1] = math.log(padding)

        def split(t: Tensor) -> Tensor:  # (B, heads, tokens, dim_out / heads)
            return t.reshape(batch, -1, self.heads, t.shape[-1] // self.heads).transpose(1, 2)

        attended = attend(split(q), split(k), split(v), mask)
        out: Tensor = self.proj(attended.transpose(1, 2).reshape(batch, height, width, -1))
        return out


class MultiScaleBlock(nn.Module):
    """A transformer block. The first block of stages 2 to 4 doubles the channels and halves the grid.

    `window` is the side of its attention window in tokens of its input, 0 for global attention.
    """

    def __init__(self, dim_in: int, dim_out: int, heads: int, window: int, pools: bool) -> None:
        super().__init__()
        self.window = window
        self.pools = pools
        self.norm1 = nn.LayerNorm(dim_in, eps=_LAYER_NORM_EPS)
        self.attn = MultiScaleAttention(dim_in, dim_out, heads, pool_queries=pools)
        self.norm2 = nn.LayerNorm(dim_out, eps=_LAYER_NORM_EPS)
        self.mlp = MLP(dim_out, 4 * dim_out, dim_out, activation="gelu")
        if dim_in != dim_out:
            self.proj = Linear(dim_in, dim_out)

    def forward(self, x: Tensor) -> Tensor:
        """(B, H, W, dim_in) to (B, H, W, dim_out), or (B, H / 2, W / 2, dim_out) where it pools."""
        normed = self.norm1(x)
        shortcut = _pool(self.proj(normed)) if self.pools else x
        x = shortcut + self._attend(normed)
        by_row = self.norm2(x).flatten(0, 1)  # (B * H, W, dim_out)
        out: Tensor = x + in_parts(self.mlp, by_row, 4 * x.shape[-1]).reshape(x.shape)
        return out

    def _attend(self, x: Tensor) -> Tensor:
        """Inside windows that start at the top left. Where they do not fill the grid, those at the bottom and the right
        are completed by tokens of zeros, which are counted, not computed."""
        if self.window == 0:
            attended: Tensor = self.attn(x)
            return attended
        rows = [
            _joined([self._attend_in_windows(x[:, top:bottom, left:right], height, width)
                     for left, right, width in _spans(x.shape[2], self.window)], dim=2)
            for top, bottom, height in _spans(x.shape[1], self.window)
        ]  # fmt: skip
        return _joined(rows, dim=1)

    def _attend_in_windows(self, x: Tensor, height: int, width: int) -> Tensor:
        """Windows of height x width tokens that fill x; the rest of a whole window is padding."""
        attend_inside = partial(self.attn, padding=self.window**2 - height * width)
        attended = in_parts(attend_inside, to_windows(x, height, width), self.attn.qkv.out_features)
        shrink = 2 if self.pools else 1
        return from_windows(attended, x.shape[1] // shrink, x.shape[2] // shrink)


def _joined(parts: list[Tensor], dim: int) -> Tensor:
    return parts[0] if len(parts) == 1 else torch.cat(parts, dim)


class PatchEmbed(nn.Module):
    """7 x 7 convolution with stride 4: (B, 3, S, S) to (B, S / 4, S / 4, C)."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(3, dim, kernel_size=7, stride=4, padding=3)

    def forward(self, x: Tensor) -> Tensor:
        embedded: Tensor = self.proj(x.contiguous(memory_format=torch.channels_last))  # so that the result is, too
        return embedded.permute(0, 2, 3, 1).contiguous()  # once here, or every block works on strided memory


class Hiera(nn.Module):
    """The trunk. `channel_list` names the outputs' channels from the coarsest stage to the finest, as the neck reads them."""

    def __init__(self, config: TrunkConfig) -> None:
        super().__init__()
        self.patch_embed = PatchEmbed(config.embed_dim)
        self.pos_embed = nn.Parameter(torch.zeros(1, config.embed_dim, *config.background_size))
        self.pos_embed_window = nn.Parameter(torch.zeros(1, config.embed_dim, config.windows[0], config.windows[0]))
        self._positions = OfWeights()

        self.blocks = nn.ModuleList()
        self.stage_ends: list[int] = []
        dim, heads = config.embed_dim, config.num_heads
        for stage, depth in enumerate(config.stages):
            for position in range(depth):
                index = len(self.blocks)
                pools = stage > 0 and position == 0
                # A pooling block still sees its input's grid, so it keeps the window of the stage before.
                window = 0 if index in config.global_attention_blocks else config.windows[stage - 1 if pools else stage]
                dim_out = 2 * dim if pools else dim
                heads = 2 * heads if pools else heads
                self.blocks.append(MultiScaleBlock(dim, dim_out, heads, window, pools))
                dim = dim_out
            self.stage_ends.append(len(self.blocks) - 1)
        self.channel_list = [config.embed_dim * 2**stage for stage in reversed(range(len(config.stages)))]

    def forward(self, images: Tensor) -> list[Tensor]:
        """(B, 3, S, S) to four maps (B, C, H, W), finest first: strides 4, 8, 16, 32."""
        x = self.patch_embed(images)
        x = x + self._position_embedding(x.shape[1], x.shape[2]).to(x.dtype)
        outputs = []
        for index, block in enumerate(self.blocks):
            x = block(x)
            if index in self.stage_ends:
                outputs.append(x.permute(0, 3, 1, 2))
        return outputs

    def _position_embedding(self, height: int, width: int) -> Tensor:
        """(1, H, W, C): a background resized to the grid plus a window pattern repeated over it."""
        return self._positions(self._compute_position_embedding, (self.pos_embed, self.pos_embed_window), height, width)

    def _compute_position_embedding(self, height: int, width: int) -> Tensor:
        background = F.interpolate(self.pos_embed, size=(height, width), mode="bicubic", align_corners=False)
        window = self.pos_embed_window.shape[-1]
        repeats = (1, 1, -(-height // window), -(-width // window))
        tiled = self.pos_embed_window.tile(repeats)[:, :, :height, :width]
        return (background + tiled).permute(0, 2, 3, 1)
