"""A slice's features look at the memories of other slices."""

from __future__ import annotations

from torch import Tensor, nn

from MedSAM2Lib.network.attention import RotaryAttention
from MedSAM2Lib.network.linear import Linear

__all__ = ["MemoryAttention"]

_POSITION_WEIGHT = 0.1  # of the sine encoding added to the features at the input (SAM 2)


class MemoryAttentionLayer(nn.Module):
    def __init__(self, dim: int, memory_dim: int, feedforward_dim: int, pooled: bool) -> None:
        super().__init__()
        self.self_attn = RotaryAttention(dim)
        self.cross_attn_image = RotaryAttention(dim, key_value_dim=memory_dim, pooled=pooled)
        self.linear1 = Linear(dim, feedforward_dim)
        self.linear2 = Linear(feedforward_dim, dim)
        self.norm1 = nn.LayerNorm(dim)
        self.norm2 = nn.LayerNorm(dim)
        self.norm3 = nn.LayerNorm(dim)

    def forward(self, x: Tensor, memory_key: Tensor, memory: Tensor, pointer_tokens: int) -> Tensor:
        normed = self.norm1(x)
        x = x + self.self_attn(normed, normed, normed)
        x = x + self.cross_attn_image(self.norm2(x), memory_key, memory, unrotated_keys=pointer_tokens)
        out: Tensor = x + self.linear2(self.linear1(self.norm3(x), "relu"))
        return out


class MemoryAttention(nn.Module):
    """`pooled`: several memory maps are looked at in a quarter of their tokens (`RotaryAttention`)."""

    def __init__(self, dim: int, memory_dim: int, feedforward_dim: int, depth: int, *, pooled: bool = False) -> None:
        super().__init__()
        self.layers = nn.ModuleList(MemoryAttentionLayer(dim, memory_dim, feedforward_dim, pooled) for _ in range(depth))
        self.norm = nn.LayerNorm(dim)

    def forward(self, features: Tensor, position: Tensor, memory: Tensor, memory_pos: Tensor, pointer_tokens: int) -> Tensor:
        """Conditioned features, (B, C, h, w).

        features        (B, C, h, w) of the slice, position (C, h, w)
        memory          (B, M * hw + pointer_tokens, memory_dim): maps first, object pointers last
        memory_pos      same shape: where and when each token is from
        """
        height, width = features.shape[-2:]
        x = (features + (_POSITION_WEIGHT * position).to(features.dtype)).flatten(2).transpose(1, 2)  # (B, hw, C)
        memory_key = memory + memory_pos
        for layer in self.layers:
            x = layer(x, memory_key, memory, pointer_tokens)
        normed: Tensor = self.norm(x)
        return normed.transpose(1, 2).reshape(*features.shape[:2], height, width)
