"""Small parts that several others use."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from MedSAM2Lib.network.linear import Activation, Linear, linear, uses_onednn

__all__ = [
    "MANY_TOKENS", "MLP", "LayerNorm2d", "OfWeights", "attend", "attend_in_chunks", "from_windows", "in_parts", "to_windows",
]  # fmt: skip

MANY_TOKENS = 512  # of queries and keys, from which two products of matrices are faster than torch's fused attention on a CPU
_QUERIES_PER_THREAD = 256  # so that their scores stay in a core's cache
_LARGEST_RESULT = 2**25  # bytes: glibc asks the system anew for every block beyond, which takes longer than to fill it


def attend(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None) -> Tensor:
    """Scaled dot-product attention; (..., Nq, C), (..., Nk, C), (..., Nk, D) to (..., Nq, D). The mask is added to the scores."""
    if q.device.type == "cpu" and q.dtype == torch.bfloat16:
        # Training in bfloat16: on few tokens the fused kernel is three to ten times slower than this (torch 2.13, Zen 5).
        every, keys = q.flatten(0, -3), k.flatten(0, -3).transpose(-2, -1)
        scores = torch.baddbmm(q.new_empty(()), every, keys, beta=0, alpha=q.shape[-1] ** -0.5).unflatten(0, q.shape[:-2])
        attended: Tensor = (scores if mask is None else scores + mask).softmax(-1).to(v.dtype) @ v
        return attended
    if mask is None and min(q.shape[-2], k.shape[-2]) >= MANY_TOKENS and uses_onednn(q):
        heads = zip(q.flatten(0, -3), k.flatten(0, -3), v.flatten(0, -3), strict=True)
        return torch.stack([attend_in_chunks(*head) for head in heads]).reshape(*q.shape[:-1], v.shape[-1])
    return F.scaled_dot_product_attention(q, k, v, attn_mask=mask)


def attend_in_chunks(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None) -> Tensor:
    """The same of one head, (Nq, C), (Nk, C), (Nk, D) to (Nq, D), by the products of `linear`. The mask is (Nk,)."""
    v = v.T.contiguous()
    chunks = (q * q.shape[-1] ** -0.5).split(_QUERIES_PER_THREAD * torch.get_num_threads())
    return torch.cat([linear(linear(chunk, k, mask).softmax(-1), v) for chunk in chunks])


def in_parts(layer: Callable[[Tensor], Tensor], x: Tensor, channels: int) -> Tensor:
    """layer(x), which treats each of the N in (N, ..., C) by itself; on a CPU in parts whose `channels` fit a block of memory."""
    size = x.numel() // x.shape[-1] * channels * x.element_size()
    if size <= _LARGEST_RESULT or not uses_onednn(x):
        return layer(x)
    return torch.cat([layer(part) for part in x.chunk(-(-size // _LARGEST_RESULT))])


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


class OfWeights:
    """What is computed of weights alone: kept while they stay as they are."""

    def __init__(self) -> None:
        self._kept: dict[tuple[Hashable, ...], Tensor] = {}

    def __call__(self, compute: Callable[[int, int], Tensor], weights: Sequence[Tensor], height: int, width: int) -> Tensor:
        """compute(height, width), made of these weights."""
        if torch.is_grad_enabled() or weights[0].is_inference():  # nothing to keep, or no version to tell changes by
            return compute(height, width)
        # Weights change under a cache: loaded, trained on, averaged, moved. Their storage and version then differ.
        key = (height, width, *(weight.data_ptr() for weight in weights), *(weight._version for weight in weights))
        if key not in self._kept:
            self._kept = {key: compute(height, width)}
        return self._kept[key]


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

    def __init__(self, *sizes: int, activation: Activation = "relu") -> None:
        super().__init__()
        self.layers = nn.ModuleList(Linear(a, b) for a, b in pairwise(sizes))
        self.activation: Activation = activation

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers[:-1]:
            x = layer(x, self.activation)
        out: Tensor = self.layers[-1](x)
        return out
