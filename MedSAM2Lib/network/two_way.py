"""The two-way transformer of the mask decoder: tokens look at the image, the image looks back at the tokens.

Kirillov et al., arXiv 2304.02643, appendix A.
"""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn

from MedSAM2Lib.network.attention import Attention
from MedSAM2Lib.network.layers import MLP

__all__ = ["TwoWayTransformer"]

_HEADS = 8


class TwoWayBlock(nn.Module):
    def __init__(self, dim: int, mlp: nn.Module, is_first: bool) -> None:
        super().__init__()
        self.is_first = is_first
        self.self_attn = Attention(dim, _HEADS)
        self.norm1 = nn.LayerNorm(dim)
        self.cross_attn_token_to_image = Attention(dim, _HEADS, internal_dim=dim // 2)
        self.norm2 = nn.LayerNorm(dim)
        self.mlp = mlp
        self.norm3 = nn.LayerNorm(dim)
        self.norm4 = nn.LayerNorm(dim)
        self.cross_attn_image_to_token = Attention(dim, _HEADS, internal_dim=dim // 2)

    def forward(self, tokens: Tensor, image: Tensor, token_pos: Tensor, image_pos: Tensor) -> tuple[Tensor, Tensor]:
        """tokens (B, N, C), image (B, HW, C); returns both updated."""
        if self.is_first:  # the tokens equal their positions here: no position added, no residual
            tokens = self.self_attn(tokens, tokens, tokens)
        else:
            query = tokens + token_pos
            tokens = tokens + self.self_attn(query, query, tokens)
        tokens = self.norm1(tokens)
        tokens = self.norm2(tokens + self.cross_attn_token_to_image(tokens + token_pos, image + image_pos, image))
        tokens = self.norm3(tokens + self.mlp(tokens))
        image = self.norm4(image + self.cross_attn_image_to_token(image + image_pos, tokens + token_pos, tokens))
        return tokens, image


class TwoWayTransformer(nn.Module):
    """`perceptron` makes the feed-forward part from its widths: checkpoints of SAM and of SAM 2 name its layers differently."""

    def __init__(
        self, dim: int, feedforward_dim: int, depth: int = 2, perceptron: Callable[[int, int, int], nn.Module] = MLP
    ) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            TwoWayBlock(dim, perceptron(dim, feedforward_dim, dim), is_first=index == 0) for index in range(depth)
        )
        self.final_attn_token_to_image = Attention(dim, _HEADS, internal_dim=dim // 2)
        self.norm_final_attn = nn.LayerNorm(dim)

    def forward(self, tokens: Tensor, image: Tensor, image_pos: Tensor) -> tuple[Tensor, Tensor]:
        """tokens (B, N, C), image and its positions (B, HW, C); returns both updated."""
        token_pos = tokens
        for layer in self.layers:
            tokens, image = layer(tokens, image, token_pos, image_pos)
        attended = self.final_attn_token_to_image(tokens + token_pos, image + image_pos, image)
        return self.norm_final_attn(tokens + attended), image
