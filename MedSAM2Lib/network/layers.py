"""Small parts that several others use."""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

__all__ = ["MLP", "LayerNorm2d", "attend", "from_windows", "to_windows"]


def attend(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None) -> Tensor:
    """Scaled dot-product attention; (..., Nq, C), (..., Nk, C), (..., Nk, D) to (..., Nq, D). The mask is added to the scores."""
    if q.device.type == "cpu" and q.dtype == torch.bfloat16:
        # Training in bfloat16: on few tokens the fused kernel is three to ten times slower than this (torch 2.13, Zen 5).
        scores = (q * q.shape[-1] ** -0.5) @ k.transpose(-2, -1)
        attended: Tensor = (scores if mask is None else scores + mask).softmax(-1).to(v.dtype) @ v
        return attended
    return F.scaled_dot_product_attention(q, k, v, attn_mask=mask)


def to_windows(x: Tensor, height: int, width: int) -> Tensor:
    """(B, H, W, C) to (B * windows, height, width, C); the windows fill the grid."""
    batch, rows, columns, channels = x.shape
    x = x.reshape(batch, rows // height, height, columns // width, width, channels).transpose(2, 3)
    return x.reshape(-1, height, width, channels).contiguous()  # a single window is a strided view still


def from_windows(x: Tensor, rows: int, columns: int) -> Tensor:
    """(B * windows, height, width, C) back to (B, rows, columns, C)."""
    height, width, channels = x.shape[1:]
    x = x.reshape(-1, rows // height, columns // width, height, width, channels).transpose(2, 3)
    return x.reshape(-1, rows, columns, channels)


class LayerNorm2d(nn.Module):
    """Layer normalisation over the channels of (B, C, H, W)."""

    def __init__(self, channels: int, eps: float = 1e-6) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        channels_last = x.permute(0, 2, 3, 1)  # (B, H, W, C)
        normed = F.layer_norm(channels_last, self.weight.shape, self.weight, self.bias, self.eps)
        return normed.permute(0, 3, 1, 2)


class MLP(nn.Module):
    """Linear layers with an activation between them. `sizes` lists the widths from input to output."""

    def __init__(self, *sizes: int, activation: type[nn.Module] = nn.ReLU) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(a, b) for a, b in pairwise(sizes))
        self.act = activation()

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers[:-1]:
            x = self.act(layer(x))
        out: Tensor = self.layers[-1](x)
        return out
