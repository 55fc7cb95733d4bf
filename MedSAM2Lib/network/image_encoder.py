"""Trunk and neck: an image becomes three feature maps that every object and prompt shares."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from MedSAM2Lib.network.config import TrunkConfig
from MedSAM2Lib.network.hiera import Hiera
from MedSAM2Lib.network.linear import linear

__all__ = ["ImageEncoder"]


class LateralConv(nn.Module):
    """1 x 1 convolution from a stage's channels to the neck's; a module of its own because the checkpoints name it so."""

    def __init__(self, channels_in: int, channels_out: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels_in, channels_out, kernel_size=1)

    def forward(self, x: Tensor, then: nn.Conv2d | None = None) -> Tensor:
        """(B, C, H, W) to (B, C', H, W), channels last in memory, as the trunk's stages are.

        then  a second 1 x 1 convolution. Two in a row are one whose matrix is the product: the wide map between them, most
              of the work on the finest maps, is never made
        """
        weight, bias = self.conv.weight.flatten(1), self.conv.bias
        assert bias is not None
        if then is not None:
            second = then.weight.flatten(1)
            weight = (second @ weight.to(second.dtype)).to(x.dtype)
            bias = F.linear(bias.to(second.dtype), second, then.bias).to(x.dtype)
        return linear(x.permute(0, 2, 3, 1), weight, bias).permute(0, 3, 1, 2)


class FpnNeck(nn.Module):
    """Feature pyramid (Lin et al. 2017) with a top-down path only from stride 32 into stride 16."""

    def __init__(self, channel_list: list[int], dim: int) -> None:
        super().__init__()
        self.convs = nn.ModuleList(LateralConv(channels, dim) for channels in channel_list)  # coarsest first

    def forward(self, stages: list[Tensor], after_stride4: nn.Conv2d, after_stride8: nn.Conv2d) -> tuple[Tensor, Tensor, Tensor]:
        """Four stages, finest first, to maps of stride 4, 8 and 16; the first two taken through the 1 x 1 convolution that
        reads them, the last (B, dim, H, W)."""
        stride32, stride16, stride8, stride4 = self.convs
        coarse = F.interpolate(stride32(stages[3]), scale_factor=2.0, mode="nearest")
        return stride4(stages[0], after_stride4), stride8(stages[1], after_stride8), stride16(stages[2]) + coarse


class ImageEncoder(nn.Module):
    def __init__(self, trunk: TrunkConfig, dim: int) -> None:
        super().__init__()
        self.trunk = Hiera(trunk)
        self.neck = FpnNeck(self.trunk.channel_list, dim)

    def forward(self, images: Tensor, after_stride4: nn.Conv2d, after_stride8: nn.Conv2d) -> tuple[Tensor, Tensor, Tensor]:
        """(B, 3, S, S) to maps (B, C, S / stride, S / stride) of stride 4, 8 and 16, as `FpnNeck.forward` gives them."""
        maps: tuple[Tensor, Tensor, Tensor] = self.neck(self.trunk(images), after_stride4, after_stride8)
        return maps
