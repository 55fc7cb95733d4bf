"""Attention with separate projections, plain and rotary."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from MedSAM2Lib.network.layers import MANY_TOKENS, attend, attend_in_chunks
from MedSAM2Lib.network.linear import Linear, linear, uses_onednn
from MedSAM2Lib.network.positions import axial_phases, rotate_pairs

__all__ = ["Attention", "RotaryAttention"]


class Attention(nn.Module):
    """Multi-head attention; `internal_dim` may be narrower than the tokens (the mask decoder halves it)."""

    def __init__(self, dim: int, heads: int, internal_dim: int | None = None, key_value_dim: int | None = None) -> None:
        super().__init__()
        self.heads = heads
        internal_dim = internal_dim or dim
        key_value_dim = key_value_dim or dim
        self.q_proj = Linear(dim, internal_dim)
        self.k_proj = Linear(key_value_dim, internal_dim)
        self.v_proj = Linear(key_value_dim, internal_dim)
        self.out_proj = Linear(internal_dim, dim)

    def _split(self, x: Tensor) -> Tensor:
        batch, tokens, _ = x.shape
        return x.reshape(batch, tokens, self.heads, -1).transpose(1, 2)  # (B, N, C) -> (B, heads, N, C / heads)

    def forward(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """(B, Nq, C), (B, Nk, Ck), (B, Nk, Ck) to (B, Nq, C)."""
        many_to_few = query.shape[1] >= MANY_TOKENS and self.heads * key.shape[1] < self.q_proj.out_features
        if many_to_few and uses_onednn(query):
            return torch.stack([self._attend_to_few(*row) for row in zip(query, key, value, strict=True)])
        attended = attend(self._split(self.q_proj(query)), self._split(self.k_proj(key)), self._split(self.v_proj(value)))
        out: Tensor = self.out_proj(attended.transpose(1, 2).flatten(2))
        return out

    def _attend_to_few(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """The same of one batch element, (Nq, C), (Nk, Ck), (Nk, Ck) to (Nq, C), in two products with the queries.

        A score is (W query + b) . k = query . (W' k) + b . k, and the result a sum of projected values: where keys are few, it
        is less work to project them all the way than to project every query there and every result back.
        """
        by_head = (self.heads, -1)
        k, v = (self._split(tokens[None])[0].transpose(0, 1)[:, :, None] for tokens in (self.k_proj(key), self.v_proj(value)))
        k = k * k.shape[-1] ** -0.5  # (Nk, heads, 1, C / heads)
        asked = (k @ self.q_proj.weight.unflatten(0, by_head)).flatten(0, 2)  # (Nk * heads, C)
        offset = (k @ self.q_proj.bias.unflatten(0, (*by_head, 1))).flatten()
        answers = (v @ self.out_proj.weight.T.unflatten(0, by_head)).flatten(0, 2)  # (Nk * heads, C)
        weights = linear(query, asked, offset).unflatten(-1, (-1, self.heads)).softmax(-2).flatten(1)
        return linear(weights, answers.T, self.out_proj.bias)


class RotaryAttention(Attention):
    """Single-head attention between tokens of square grids, with axial rotary positions (Su et al. 2021).

    Keys may hold several grids one after another (memory maps); all turn by the same phases, and the last
    `unrotated_keys` (object pointers, which have no place in the grid) do not turn at all.

    pooled  where there are several grids, each 2 x 2 of their tokens are one, with the mean of their keys and values. Its score
            is the mean of theirs, and counts four times. So EfficientTAM has it (Xiong et al., arXiv 2411.18933)
    """

    def __init__(self, dim: int, key_value_dim: int | None = None, *, pooled: bool = False) -> None:
        super().__init__(dim, heads=1, key_value_dim=key_value_dim)
        self.pooled = pooled
        self._phase_cache: dict[tuple[int, torch.device], Tensor] = {}

    def _phases(self, tokens: int, device: torch.device) -> Tensor:
        if (tokens, device) not in self._phase_cache:
            with torch.inference_mode(False):  # training may come after
                self._phase_cache[tokens, device] = axial_phases(self.q_proj.out_features, round(tokens**0.5), device)
        return self._phase_cache[tokens, device]

    def forward(self, query: Tensor, key: Tensor, value: Tensor, unrotated_keys: int = 0) -> Tensor:
        """(B, N, C), (B, M * N + unrotated_keys, Ck) twice, to (B, N, C); N is the number of tokens of a grid."""
        tokens, dtype = query.shape[1], value.dtype
        phases = self._phases(tokens, query.device)
        q, k = rotate_pairs(self.q_proj(query), phases).to(dtype), self.k_proj(key)
        in_grid = k.shape[1] - unrotated_keys
        pools = self.pooled and in_grid > tokens

        def turned(grid: Tensor) -> Tensor:
            grid = rotate_pairs(grid, phases).to(dtype)
            return _pooled(grid) if pools else grid

        grids = k[:, :in_grid].split(tokens, dim=1)  # one by one, so that what lies between fits a core's cache
        k = torch.cat((*map(turned, grids), k[:, in_grid:].to(dtype)), dim=1)
        counts = None  # logarithms of how many keys each one stands for
        if pools:
            value = torch.cat((*map(_pooled, value[:, :in_grid].split(tokens, dim=1)), value[:, in_grid:]), dim=1)
            counts = k.new_zeros(k.shape[1])
            counts[: in_grid // _POOLED] = math.log(_POOLED)
        if value.shape[-1] < q.shape[-1] and uses_onednn(q):
            # Attention to values that are not projected yet. Its weights sum to 1, so projecting the result is the same as
            # projecting every value, with bias and all; and where values are narrow (64 channels against 256 for memories)
            # it is a third less work, which on a CPU outweighs what a fused kernel saves in traffic.
            attended = self.v_proj(torch.stack([attend_in_chunks(*row, counts) for row in zip(q, k, value, strict=True)]))
        else:
            v = self.v_proj(value)
            mask = None if counts is None else counts.to(v.dtype).expand(1, -1)
            attended = attend(q.to(v.dtype)[:, None], k.to(v.dtype)[:, None], v[:, None], mask)[:, 0]
        out: Tensor = self.out_proj(attended)
        return out


_POOLED = 4  # tokens that become one


def _pooled(grid: Tensor) -> Tensor:
    """(B, N, C) to (B, N / 4, C): 2 x 2 tokens of a square grid become their mean."""
    side = round(grid.shape[1] ** 0.5)
    channels_first = grid.contiguous().unflatten(1, (side, side)).permute(0, 3, 1, 2)  # in memory still last
    return F.avg_pool2d(channels_first, 2).permute(0, 2, 3, 1).flatten(1, 2)  # a mean in strides takes fifty times as long
