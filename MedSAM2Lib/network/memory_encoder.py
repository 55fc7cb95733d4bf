"""A slice's features and its mask to a memory map that later slices attend to."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from MedSAM2Lib.network.layers import LayerNorm2d
from MedSAM2Lib.network.linear import Linear

__all__ = ["MemoryEncoder"]


class MaskDownsampler(nn.Module):
    """(B, 1, S, S) to (B, dim, S / 16, S / 16) in four halvings."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for channels in (1, 4, 16, 64):
            layers += [nn.Conv2d(channels, channels * 4, 3, stride=2, padding=1), LayerNorm2d(channels * 4), nn.GELU()]
        self.encoder = nn.Sequential(*layers, nn.Conv2d(256, dim, kernel_size=1))

    def forward(self, mask: Tensor) -> Tensor:
        out: Tensor = self.encoder(mask)
        return out


class ConvNextBlock(nn.Module):
    """Liu et al., arXiv 2201.03545, with layer scale."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.full((dim,), 1e-6))
        self.dwconv = nn.Conv2d(dim, dim, kernel_size=7, padding=3, groups=dim)
        self.norm = LayerNorm2d(dim)
        self.pwconv1 = Linear(dim, 4 * dim)
        self.pwconv2 = Linear(4 * dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.norm(self.dwconv(x)).permute(0, 2, 3, 1)  # (B, H, W, C)
        y = self.gamma * self.pwconv2(self.pwconv1(y, "gelu"))
        return x + y.permute(0, 3, 1, 2)


class Fuser(nn.Module):
    def __init__(self, dim: int, depth: int = 2) -> None:
        super().__init__()
        self.layers = nn.ModuleList(ConvNextBlock(dim) for _ in range(depth))

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            x = layer(x)
        return x


class MemoryEncoder(nn.Module):
    def __init__(self, dim: int, memory_dim: int) -> None:
        super().__init__()
        self.mask_downsampler = MaskDownsampler(dim)
        self.pix_feat_proj = nn.Conv2d(dim, dim, kernel_size=1)
        self.fuser = Fuser(dim)
        self.out_proj = nn.Conv2d(dim, memory_dim, kernel_size=1)

    def forward(self, features: Tensor, mask: Tensor) -> Tensor:
        """features (B, C, S / 16, S / 16), scaled mask (B, 1, S, S), to (B, memory_dim, S / 16, S / 16)."""
        memory: Tensor = self.out_proj(self.fuser(self.pix_feat_proj(features) + self.mask_downsampler(mask)))
        return memory
