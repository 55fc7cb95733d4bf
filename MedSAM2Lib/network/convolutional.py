"""SAM 2's memory around convolutions: what nano is.

Memory attention, memory encoder and object pointers are SAM 2's. The image encoder is a few convolutions, because all that
memories need of a slice of 128 pixels is a grid of 8 x 8; masks are the business of a U-Net that sees the prompt beside the
slice.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from MedSAM2Lib.network.config import NetworkConfig
from MedSAM2Lib.network.grey import grey_profile, resemblance
from MedSAM2Lib.network.layers import MLP
from MedSAM2Lib.network.mask_decoder import DecodedMasks
from MedSAM2Lib.network.mirroring import mean_of_mirrors
from MedSAM2Lib.network.prompt_encoder import PointLabel
from MedSAM2Lib.network.prompted_unet import PromptedUNet, slice_grey
from MedSAM2Lib.network.residual import residual_stage
from MedSAM2Lib.network.sam2 import MASK_PROMPT_LOGIT, SAM2, ImageFeatures, PointTensors, SliceDepth, padding, unread
from MedSAM2Lib.network.volume_unet import VolumeUNet

__all__ = ["ConvolutionalSAM2"]

_LEAST_SCORE = 0.5  # logit of an object that a person says is there
_DEPTH_FIGURES, _DEPTH_HIDDEN = 6, 64
_LEAST_RADIUS = 1.0  # pixels
_DEPTH_RANGE = (0.01, 20.0)  # radii of the object, or sides of the image: beyond, depths are not told apart
_ENCODER_CHANNELS = (64, 96)  # at strides 4 and 8; that of stride 16 is the network's width


class ConvolutionalEncoder(nn.Module):
    def __init__(self, dim: int) -> None:
        super().__init__()
        stride4, stride8 = _ENCODER_CHANNELS
        self.stages = nn.Sequential(
            residual_stage(3 * 4**2, stride4), residual_stage(stride4, stride8, stride=2), residual_stage(stride8, dim, stride=2)
        )
        self.projection = nn.Conv2d(dim, dim, kernel_size=1)

    def forward(self, images: Tensor) -> Tensor:
        """(B, 3, S, S) to (B, C, S / 16, S / 16)."""
        out: Tensor = self.projection(self.stages(F.pixel_unshuffle(images, 4)))
        return out


class ConvolutionalSAM2(SAM2):
    """Masks are answered at full resolution, one for every prompt: three candidates and an expected IoU to choose between
    them do a network this small no good."""

    knows_depth = True

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__(config)
        self.depth_embedding = MLP(_DEPTH_FIGURES, _DEPTH_HIDDEN, _DEPTH_HIDDEN, config.hidden_dim)
        if config.drafts_volume:
            self.volume_draft = VolumeUNet()

    def _add_image_encoder(self, config: NetworkConfig) -> None:
        self.image_encoder = ConvolutionalEncoder(config.hidden_dim)

    def _add_mask_decoder(self, config: NetworkConfig) -> None:
        self.sam_mask_decoder = PromptedUNet(config.hidden_dim)
        self.prompted_mask_decoder = PromptedUNet(config.hidden_dim)

    @property
    def costly_parts(self) -> tuple[nn.Module, ...]:
        drafts = () if self.volume_draft is None else (self.volume_draft,)
        return *super().costly_parts, self.sam_mask_decoder, self.prompted_mask_decoder, *drafts

    def encode_image(self, images: Tensor) -> ImageFeatures:
        pixels = self._to_encoder(images)
        return ImageFeatures(self.image_encoder(pixels), unread(pixels), unread(pixels), pixels)

    def at_depth(self, conditioned: Tensor, depth: SliceDepth) -> Tensor:
        radius = depth.radius.clamp(min=_LEAST_RADIUS)
        figures = (depth.distance / radius, depth.step / radius, depth.distance / self.config.image_size)
        bounded = depth.ahead > 0
        logs = [torch.log(one.clamp(*_DEPTH_RANGE)) for one in (*figures, depth.ahead / radius)]
        logs[-1] = logs[-1] * bounded
        known = torch.stack((*logs, bounded.to(radius.dtype), (bounded & depth.ahead_shows).to(radius.dtype)), dim=-1)
        embedding: Tensor = self.depth_embedding(known) * (depth.radius > 0)[:, None]
        return conditioned + embedding[:, :, None, None].to(conditioned.dtype)

    def grey_profile(self, features: ImageFeatures, logits: Tensor) -> Tensor:
        return grey_profile(slice_grey(features.pixels), logits.detach()[:, 0].sigmoid())

    def recognised(self, features: ImageFeatures, profile: Tensor) -> ImageFeatures:
        pixels = features.pixels[:, :3]
        alike = resemblance(slice_grey(pixels), profile)[:, None]
        return features._replace(pixels=torch.cat((pixels, alike.to(pixels.dtype)), dim=1))

    def _decode(
        self, conditioned: Tensor, features: ImageFeatures, points: PointTensors | None, mask: Tensor | None, multimask: bool
    ) -> DecodedMasks:
        pixels = features.pixels
        conditioned = conditioned.to(pixels.dtype)
        if points is None:
            points = padding(conditioned)
            decoded = self.sam_mask_decoder(pixels, conditioned, *points, mask)
        elif self.training:
            decoded = self.prompted_mask_decoder(pixels, conditioned, *points, mask)
        else:  # a person looks at this one, and all others follow it: it may take a little longer
            decoded = mean_of_mirrors(self.prompted_mask_decoder, pixels, conditioned, *points, mask)
        decoded = DecodedMasks(*map(self._full_precision, decoded))
        return decoded._replace(object_score=_believing(points.labels, decoded.object_score))

    def _mask_prompt(self, mask: Tensor) -> Tensor:
        return (2 * mask.float() - 1) * MASK_PROMPT_LOGIT


def _believing(labels: Tensor, object_score: Tensor) -> Tensor:
    """(B, 1) object scores, above 0 where a person drew a box or clicked on the object: who does that need not be asked."""
    said = ((labels == PointLabel.BOX_TOP_LEFT) | (labels == PointLabel.POSITIVE)).any(1, keepdim=True)
    return torch.where(said, object_score.clamp(min=_LEAST_SCORE), object_score)
