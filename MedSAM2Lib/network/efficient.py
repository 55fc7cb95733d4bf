"""EfficientTAM: SAM 2's memory behind a plain vision transformer, whose one map of features is all that masks are made from.

Xiong et al., arXiv 2411.18933. Its blocks are Hiera's, of one width and without pooling.
"""

from __future__ import annotations

from collections import OrderedDict

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from MedSAM2Lib.network.config import NetworkConfig, ViTConfig
from MedSAM2Lib.network.hiera import MultiScaleBlock
from MedSAM2Lib.network.layers import LayerNorm2d
from MedSAM2Lib.network.mask_decoder import MaskDecoder
from MedSAM2Lib.network.prompt_encoder import PromptEncoder
from MedSAM2Lib.network.sam2 import SAM2, ImageFeatures, unread
from MedSAM2Lib.network.vit import PatchEmbed

__all__ = ["EfficientSAM2"]

_PRETRAINED_SIDE = 14  # tokens: positions were learned on images of 224 pixels


class PlainTrunk(nn.Module):
    def __init__(self, config: ViTConfig) -> None:
        super().__init__()
        dim = config.embed_dim
        self.patch_embed = PatchEmbed(dim, config.patch_size)
        self.pos_embed = nn.Parameter(torch.zeros(1, 1 + _PRETRAINED_SIDE**2, dim))  # the first is a class token's, unused
        windows = [0 if index in config.global_attention_blocks else config.window for index in range(config.depth)]
        self.blocks = nn.ModuleList(MultiScaleBlock(dim, dim, config.num_heads, window, pools=False) for window in windows)

    def forward(self, images: Tensor) -> Tensor:
        """(B, 3, S, S) to (B, C, S / 16, S / 16)."""
        x: Tensor = self.patch_embed(images)
        x = x + self._position_embedding(x.shape[1]).to(x.dtype)
        for block in self.blocks:
            x = block(x)
        return x.permute(0, 3, 1, 2)

    def _position_embedding(self, side: int) -> Tensor:
        """(1, side, side, C)."""
        learned = self.pos_embed[:, 1:].unflatten(1, (_PRETRAINED_SIDE, _PRETRAINED_SIDE)).permute(0, 3, 1, 2)
        resized = F.interpolate(learned, size=(side, side), mode="bicubic", align_corners=False)
        return resized.permute(0, 2, 3, 1)


class PlainNeck(nn.Module):
    """From the trunk's channels to the network's; one level, under the names that the checkpoints give its parts."""

    def __init__(self, channels: int, dim: int) -> None:
        super().__init__()
        level = OrderedDict[str, nn.Module](
            conv_1x1=nn.Conv2d(channels, dim, kernel_size=1, bias=False),
            norm_0=LayerNorm2d(dim),
            conv_3x3=nn.Conv2d(dim, dim, kernel_size=3, padding=1, bias=False),
            norm_1=LayerNorm2d(dim),
        )
        self.convs = nn.ModuleList([nn.Sequential(level)])

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, h, w) to (B, dim, h, w)."""
        out: Tensor = self.convs[0](x)
        return out


class PlainEncoder(nn.Module):
    def __init__(self, trunk: ViTConfig, dim: int) -> None:
        super().__init__()
        self.trunk = PlainTrunk(trunk)
        self.neck = PlainNeck(trunk.embed_dim, dim)

    def forward(self, images: Tensor) -> Tensor:
        """(B, 3, S, S) to (B, dim, S / 16, S / 16)."""
        out: Tensor = self.neck(self.trunk(images))
        return out


class EfficientSAM2(SAM2):
    """The whole network. Attribute names are the published checkpoints' key names."""

    def _add_image_encoder(self, config: NetworkConfig) -> None:
        assert isinstance(config.trunk, ViTConfig), "build_network gives other networks to their own classes"
        self.image_encoder = PlainEncoder(config.trunk, config.hidden_dim)
        self.mask_downsample = nn.Conv2d(1, 1, kernel_size=4, stride=4)

    def _add_mask_decoder(self, config: NetworkConfig) -> None:
        self.sam_prompt_encoder = PromptEncoder(config.hidden_dim, config.image_size)
        self.sam_mask_decoder = MaskDecoder(config.hidden_dim, config.feedforward_dim, picks_up_detail=False)

    def encode_image(self, images: Tensor) -> ImageFeatures:
        nothing = unread(images)
        return ImageFeatures(self.image_encoder(self._to_encoder(images)), nothing, nothing, nothing)
