"""SAM (2023), the network of MedSAM (2024): one image, one prompt, one mask; no memory. Without any state.

Kirillov et al., arXiv 2304.02643; MedSAM: Ma et al., Nature Communications 15, 654 (2024), doi 10.1038/s41467-024-44824-z.

Legend for shapes: B batch, S image side, C hidden width, h = w = S / 16, M masks.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from MedSAM2Lib.network.config import SAMConfig
from MedSAM2Lib.network.layers import MLP, LayerNorm2d
from MedSAM2Lib.network.prompt_encoder import PointLabel, PromptEncoder
from MedSAM2Lib.network.sam2 import PointTensors
from MedSAM2Lib.network.two_way import TwoWayTransformer
from MedSAM2Lib.network.vit import Perceptron, ViT

__all__ = ["SAM"]

_MASK_TOKENS = 4  # one for the unambiguous answer, three for an ambiguous prompt


class SAMPromptEncoder(PromptEncoder):
    """SAM pads clicks, but no box; SAM 2 pads whatever comes."""

    def _padded(self, points: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        return (points, labels) if PointLabel.BOX_TOP_LEFT in labels else super()._padded(points, labels)


class SAMMaskDecoder(nn.Module):
    """SAM 2's without finer features, object score, sigmoid of the expected IoU and choice between candidates."""

    def __init__(self, dim: int, feedforward_dim: int) -> None:
        super().__init__()
        self.transformer = TwoWayTransformer(dim, feedforward_dim, perceptron=Perceptron)
        self.iou_token = nn.Embedding(1, dim)
        self.mask_tokens = nn.Embedding(_MASK_TOKENS, dim)
        self.output_upscaling = nn.Sequential(
            nn.ConvTranspose2d(dim, dim // 4, kernel_size=2, stride=2),
            LayerNorm2d(dim // 4),
            nn.GELU(),
            nn.ConvTranspose2d(dim // 4, dim // 8, kernel_size=2, stride=2),
            nn.GELU(),
        )
        self.output_hypernetworks_mlps = nn.ModuleList(MLP(dim, dim, dim, dim // 8) for _ in range(_MASK_TOKENS))
        self.iou_prediction_head = MLP(dim, dim, dim, _MASK_TOKENS)

    def forward(self, image: Tensor, image_pos: Tensor, sparse: Tensor, dense: Tensor) -> tuple[Tensor, Tensor]:
        """Logits (B, 4, S / 4, S / 4) and expected IoU (B, 4): first the single answer, then three candidates.

        image   (B, C, h, w) features; image_pos (C, h, w)
        sparse  (B, N, C), dense (B, C, h, w): from the prompt encoder
        """
        batch, _, height, width = image.shape
        own = torch.cat((self.iou_token.weight, self.mask_tokens.weight))
        tokens = torch.cat((own.expand(batch, -1, -1), sparse), dim=1)  # (B, 5 + N, C)
        flat = (image + dense).flatten(2).transpose(1, 2)  # (B, hw, C)
        tokens, flat = self.transformer(tokens, flat, image_pos.flatten(1).T.expand(batch, -1, -1))

        mask_tokens = tokens[:, 1 : 1 + _MASK_TOKENS]
        upscaled = self.output_upscaling(flat.transpose(1, 2).unflatten(2, (height, width)))  # (B, C / 8, 4h, 4w)
        weights = torch.stack([mlp(mask_tokens[:, n]) for n, mlp in enumerate(self.output_hypernetworks_mlps)], dim=1)
        return torch.einsum("bmc,bchw->bmhw", weights, upscaled), self.iou_prediction_head(tokens[:, 0])


class SAM(nn.Module):
    """The whole network. Attribute names are the published checkpoints' key names."""

    def __init__(self, config: SAMConfig) -> None:
        super().__init__()
        self.config = config
        self.image_encoder = ViT(config)
        self.prompt_encoder = SAMPromptEncoder(config.hidden_dim, config.image_size)
        self.mask_decoder = SAMMaskDecoder(config.hidden_dim, config.feedforward_dim)

    @property
    def device(self) -> torch.device:
        return self.image_encoder.pos_embed.device

    def encode_image(self, images: Tensor) -> Tensor:
        """(B, 3, S, S) pixels, 0..1 for MedSAM, to features (B, C, h, w)."""
        features: Tensor = self.image_encoder(images)
        return features

    def predict(self, features: Tensor, points: PointTensors) -> tuple[Tensor, Tensor]:
        """Logits (B, 1, S / 4, S / 4) and expected IoU (B,) of the single answer, as MedSAM was trained to give it."""
        prompt = self.prompt_encoder(points.coordinates, points.labels, None)
        logits, iou = self.mask_decoder(features, self.prompt_encoder.grid_encoding(), prompt.sparse, prompt.dense)
        return logits[:, :1], iou[:, 0]
