"""How a position becomes numbers: sine maps, random Fourier features, rotary phases.

Every function is pure; the callers cache what does not change between slices.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

__all__ = ["RandomFourierEncoding", "axial_phases", "rotate_pairs", "sine_encoding_1d", "sine_encoding_2d"]

_TEMPERATURE = 10_000.0  # Vaswani et al. 2017; for the rotary phases Su et al. 2021 call it theta


def _frequencies(count: int, device: torch.device | None) -> Tensor:
    """(count,) wavelengths; neighbours 2n and 2n+1 share one, for a sine and a cosine."""
    pair = torch.arange(count, dtype=torch.float32, device=device) // 2
    wavelengths: Tensor = _TEMPERATURE ** (2 * pair / count)
    return wavelengths


def sine_encoding_2d(channels: int, height: int, width: int, device: torch.device | None = None) -> Tensor:
    """(channels, height, width): the first half encodes the row, the second the column.

    Positions count from 1 and are scaled to (0, 2 pi], as in DETR (Carion et al. 2020) and SAM 2.
    """
    wavelengths = _frequencies(channels // 2, device)

    def encode(size: int) -> Tensor:  # (size, channels // 2), sine and cosine interleaved
        position = torch.arange(1, size + 1, dtype=torch.float32, device=device)
        phase = (position / (size + 1e-6) * (2 * math.pi))[:, None] / wavelengths
        return torch.stack((phase[:, 0::2].sin(), phase[:, 1::2].cos()), dim=-1).flatten(1)

    rows = encode(height).T[:, :, None].expand(-1, height, width)
    columns = encode(width).T[:, None, :].expand(-1, height, width)
    return torch.cat((rows, columns))


def sine_encoding_1d(position: Tensor, channels: int) -> Tensor:
    """(N,) numbers to (N, channels): a block of sines, then a block of cosines."""
    phase = position[:, None] / _frequencies(channels // 2, position.device)
    return torch.cat((phase.sin(), phase.cos()), dim=-1)


def axial_phases(channels: int, side: int, device: torch.device | None = None) -> Tensor:
    """Cosine and sine of the rotary phases of a square grid, (side * side, channels // 2, 2).

    The first half of the channel pairs turns with the column, the second with the row; tokens are row-major.
    """
    exponent = torch.arange(0, channels, 4, dtype=torch.float32, device=device)[: channels // 4] / channels
    frequency = _TEMPERATURE**-exponent  # (channels // 4,)
    token = torch.arange(side * side, device=device)
    column, row = (token % side).float(), torch.div(token, side, rounding_mode="floor").float()
    phase = torch.cat((torch.outer(column, frequency), torch.outer(row, frequency)), dim=-1)
    return torch.stack((phase.cos(), phase.sin()), dim=-1)


def rotate_pairs(x: Tensor, phases: Tensor) -> Tensor:
    """Turns each pair of adjacent channels of (..., tokens, C) by the phases (tokens, C // 2, 2); float32."""
    if x.device.type != "mps":  # which does not multiply complex numbers everywhere
        pairs = torch.view_as_complex(x.float().unflatten(-1, (-1, 2)))  # 40 times faster than real numbers in strides
        return torch.view_as_real(pairs * torch.view_as_complex(phases)).flatten(-2)
    even, odd = x[..., 0::2], x[..., 1::2]
    cosine, sine = phases.unbind(-1)
    return torch.stack((even * cosine - odd * sine, even * sine + odd * cosine), dim=-1).flatten(-2)


class RandomFourierEncoding(nn.Module):
    """Random Fourier features of 2D positions (Tancik et al. 2020). The directions come with the weights."""

    positional_encoding_gaussian_matrix: Tensor  # (2, channels // 2)

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.register_buffer("positional_encoding_gaussian_matrix", torch.randn(2, channels // 2))

    def forward(self, position: Tensor) -> Tensor:
        """(..., 2) positions (x, y) in 0..1 of the image side, to (..., channels)."""
        phase = (2 * position - 1) @ self.positional_encoding_gaussian_matrix.float() * (2 * math.pi)
        return torch.cat((phase.sin(), phase.cos()), dim=-1)

    def grid(self, height: int, width: int) -> Tensor:
        """(channels, height, width): the encoding of every cell's centre."""
        device = self.positional_encoding_gaussian_matrix.device
        y = (torch.arange(height, device=device) + 0.5) / height
        x = (torch.arange(width, device=device) + 0.5) / width
        centres = torch.stack((x.expand(height, width), y[:, None].expand(height, width)), dim=-1)
        encoded: Tensor = self(centres)
        return encoded.permute(2, 0, 1)
