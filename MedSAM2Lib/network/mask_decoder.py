"""Image features and prompt tokens to masks, their expected IoU, and whether the object is there at all."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from MedSAM2Lib.network.layers import MLP, LayerNorm2d
from MedSAM2Lib.network.linear import linear
from MedSAM2Lib.network.two_way import TwoWayTransformer

__all__ = ["DecodedMasks", "MaskDecoder"]

_MASK_TOKENS = 4  # one for the unambiguous answer, three for an ambiguous prompt
# A single mask counts as stable when shifting its threshold by this logit keeps this share of its area (SAM 2's
# dynamic multimask setting).
_STABILITY_DELTA = 0.05
_STABILITY_THRESHOLD = 0.98


class DecodedMasks(NamedTuple):
    """M is 3 for a multimask answer, 1 for a single mask."""

    logits: Tensor  # (B, M, L, L) with L = `NetworkConfig.logits_size`
    iou: Tensor  # (B, M), expected IoU 0..1
    tokens: Tensor  # (B, M, C), from which object pointers are made
    object_score: Tensor  # (B, 1), logit: the object is on this slice


class MaskDecoder(nn.Module):
    """`picks_up_detail`: finer features enter on the way to the masks, as in SAM 2; else stride 16 is all that it reads."""

    def __init__(self, dim: int, feedforward_dim: int, *, picks_up_detail: bool = True) -> None:
        super().__init__()
        self.picks_up_detail = picks_up_detail
        self.transformer = TwoWayTransformer(dim, feedforward_dim)
        self.iou_token = nn.Embedding(1, dim)
        self.mask_tokens = nn.Embedding(_MASK_TOKENS, dim)
        self.obj_score_token = nn.Embedding(1, dim)
        self.output_upscaling = nn.Sequential(
            nn.ConvTranspose2d(dim, dim // 4, kernel_size=2, stride=2),
            LayerNorm2d(dim // 4),
            nn.GELU(),
            nn.ConvTranspose2d(dim // 4, dim // 8, kernel_size=2, stride=2),
            nn.GELU(),
        )
        if picks_up_detail:
            self.conv_s0 = nn.Conv2d(dim, dim // 8, kernel_size=1)
            self.conv_s1 = nn.Conv2d(dim, dim // 4, kernel_size=1)
        self.output_hypernetworks_mlps = nn.ModuleList(MLP(dim, dim, dim, dim // 8) for _ in range(_MASK_TOKENS))
        self.iou_prediction_head = MLP(dim, dim, dim, _MASK_TOKENS)
        self.pred_obj_score_head = MLP(dim, dim, dim, 1)

    def forward(
        self,
        image: Tensor,
        image_pos: Tensor,
        sparse: Tensor,
        dense: Tensor,
        stride8: Tensor,
        stride4: Tensor,
        multimask: bool,
    ) -> DecodedMasks:
        """Masks for one prompt per batch element.

        image      (B, C, h, w) stride-16 features, conditioned on memory or not
        image_pos  (C, h, w)
        sparse     (B, N, C), dense (B, C, h, w): from the prompt encoder
        stride8    (B, C / 4, 2h, 2w), stride4 (B, C / 8, 4h, 4w): high-resolution features, where it picks them up
        multimask  answer with three candidates instead of one
        """
        logits, iou, tokens, object_score = self._decode_all(image, image_pos, sparse, dense, stride8, stride4)
        if multimask:
            return DecodedMasks(logits[:, 1:], iou[:, 1:], tokens[:, 1:], object_score)
        if not self.training:
            chosen_logits, chosen_iou = _stable_or_best(logits, iou)
            return DecodedMasks(chosen_logits, chosen_iou, tokens[:, :1], object_score)
        return DecodedMasks(logits[:, :1], iou[:, :1], tokens[:, :1], object_score)

    def _decode_all(
        self, image: Tensor, image_pos: Tensor, sparse: Tensor, dense: Tensor, stride8: Tensor, stride4: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        batch, _, height, width = image.shape
        own = torch.cat((self.obj_score_token.weight, self.iou_token.weight, self.mask_tokens.weight))
        tokens = torch.cat((own.expand(batch, -1, -1), sparse), dim=1)  # (B, 6 + N, C)
        flat = (image + dense).flatten(2).transpose(1, 2)  # (B, hw, C)
        flat_pos = image_pos.flatten(1).T.contiguous().expand(batch, -1, -1)
        tokens, flat = self.transformer(tokens, flat, flat_pos)

        mask_tokens = tokens[:, 2 : 2 + _MASK_TOKENS]
        upscaled = self._upscale(flat.transpose(1, 2).unflatten(2, (height, width)), stride8, stride4)
        weights = torch.stack([mlp(mask_tokens[:, n]) for n, mlp in enumerate(self.output_hypernetworks_mlps)], dim=1)
        logits = torch.einsum("bmc,bchw->bmhw", weights, upscaled)
        iou = self.iou_prediction_head(tokens[:, 1]).sigmoid()
        return logits, iou, mask_tokens, self.pred_obj_score_head(tokens[:, 0])

    def _upscale(self, x: Tensor, stride8: Tensor, stride4: Tensor) -> Tensor:
        """(B, C, h, w) to (B, C / 8, 4h, 4w), picking up the finer features on the way where there are any."""
        deconvolve1, norm, activate1, deconvolve2, activate2 = self.output_upscaling
        x = _doubled(x, deconvolve1)
        x = activate1(norm(x + stride8 if self.picks_up_detail else x))
        x = _doubled(x, deconvolve2)
        out: Tensor = activate2(x + stride4 if self.picks_up_detail else x)
        return out


def _doubled(x: Tensor, deconvolution: nn.Module) -> Tensor:
    """A 2 x 2 transposed convolution with stride 2: each pixel becomes four, by one product of matrices.

    (B, C, h, w) to (B, C', 2h, 2w), channels last in memory.
    """
    assert isinstance(deconvolution, nn.ConvTranspose2d)
    assert deconvolution.bias is not None
    weight = deconvolution.weight.permute(2, 3, 1, 0)  # (2, 2, C', C)
    four = linear(x.permute(0, 2, 3, 1), weight.flatten(0, 2), deconvolution.bias.repeat(4))
    rows_apart: Tensor = four.unflatten(-1, weight.shape[:3]).transpose(2, 3)  # (B, h, 2, w, 2, C')
    return rows_apart.flatten(3, 4).flatten(1, 2).permute(0, 3, 1, 2)


def _stable_or_best(logits: Tensor, iou: Tensor) -> tuple[Tensor, Tensor]:
    """The single mask where it is stable, otherwise the candidate with the best expected IoU.

    logits (B, 4, H, W), iou (B, 4) to (B, 1, H, W), (B, 1).
    """
    single = logits[:, 0].flatten(1)
    inner = (single > _STABILITY_DELTA).sum(-1).float()
    outer = (single > -_STABILITY_DELTA).sum(-1).float()
    stable = torch.where(outer > 0, inner / outer.clamp(min=1), 1.0) >= _STABILITY_THRESHOLD
    best = 1 + iou[:, 1:].argmax(-1)
    choice = torch.where(stable, 0, best)
    row = torch.arange(len(choice), device=choice.device)
    return logits[row, choice][:, None], iou[row, choice][:, None]
