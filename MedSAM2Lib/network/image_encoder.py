"""Trunk and neck: an image becomes three feature maps that every object and prompt shares."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from MedSAM2Lib.network.config import TrunkConfig
from MedSAM2Lib.network.hiera import Hiera

__all__ = ["ImageEncoder"]


class LateralConv(nn.Module):
    """1 x 1 convolution from a stage's channels to the neck's; a module of its own because the checkpoints name it so."""

    def __init__(self, channels_in: int, channels_out: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels_in, channels_out, kernel_size=1)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.conv(x)
        return out


class FpnNeck(nn.Module):
    """Feature pyramid (Lin et al. 2017) with a top-down path only from stride 32 into stride 16."""

    def __init__(self, channel_list: list[int], dim: int) -> None:
        super().__init__()
        self.convs = nn.ModuleList(LateralConv(channels, dim) for channels in channel_list)  # coarsest first

    def forward(self, stages: list[Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        """Four stages, finest first, to maps of stride 4, 8 and 16, each (B, dim, H, W)."""
        stride4, stride8, stride16, stride32 = (
            conv(stage) for conv, stage in zip(reversed(self.convs), stages, strict=True)
        )
        return stride4, stride8, stride16 + F.interpolate(stride32, scale_factor=2.0, mode="nearest")


class ImageEncoder(nn.Module):
    def __init__(self, trunk: TrunkConfig, dim: int) -> None:
        super().__init__()
        self.trunk = Hiera(trunk)
        self.neck = FpnNeck(self.trunk.channel_list, dim)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(B, 3, S, S) to maps (B, dim, S / stride, S / stride) of stride 4, 8 and 16."""
        maps: tuple[Tensor, Tensor, Tensor] = self.neck(self.trunk(images))
        return maps
