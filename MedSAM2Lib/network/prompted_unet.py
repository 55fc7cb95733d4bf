"""A mask decoder of convolutions: a U-Net that sees the slice, its prompt and what memories say of it, at full resolution.

SAM 2 decodes masks by attention between prompt tokens and image features, on a grid of a quarter of the image's side. A small
network that sees 128 pixels has little to gain there: the grid has 32 cells, and convolutions that see the prompt beside the
pixels learn edges from far fewer examples. Ronneberger et al., arXiv 1505.04597.
"""

from __future__ import annotations

import math
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from MedSAM2Lib.frames import PIXEL_MEAN, PIXEL_STD
from MedSAM2Lib.network.grey import grey_profile, resemblance
from MedSAM2Lib.network.mask_decoder import DecodedMasks
from MedSAM2Lib.network.prompt_encoder import PointLabel
from MedSAM2Lib.network.residual import convolutions, residual_stage

__all__ = ["PromptedUNet", "slice_grey"]

_CHANNELS = (32, 64, 128, 192, 256)  # at strides 2, 4, 8, 16, 32
_CONDITIONED_LEVEL = 3  # the one of stride 16, where image features that have seen the memories join
_INPUTS = 8  # three channels of image, prompted mask, box, positive clicks, negative clicks, resemblance
_LOGIT_BOUND = 10.0  # masks enter as logits between + and - this, scaled to + and - 1
_BOX_DEPTH_BOUND = 16.0  # pixels: how deep in a box, or far from it, pixels are told apart
_MASK_FIGURES = 6  # of an answered mask, beside what the features under it say: see `_figures`
_CLICK_SIGMA = 2.5  # pixels: how far around its pixel a click speaks


class PromptedUNet(nn.Module):
    def __init__(self, dim: int) -> None:
        """dim: channels of the conditioned features, and of the token that the object pointer is made from."""
        super().__init__()
        finest, coarsest = _CHANNELS[0], _CHANNELS[-1]
        steps = list(pairwise(_CHANNELS))
        self.stem = convolutions(4 * _INPUTS, finest)
        self.down = nn.ModuleList(residual_stage(fine, coarse, stride=2) for fine, coarse in steps)
        self.up = nn.ModuleList(nn.Conv2d(coarse, fine, kernel_size=1) for fine, coarse in steps)
        self.merge = nn.ModuleList(convolutions(2 * fine, fine, fine) for fine, _ in steps)
        self.conditioned = nn.Conv2d(dim, _CHANNELS[_CONDITIONED_LEVEL], kernel_size=1)
        self.mask_head = nn.Conv2d(finest, 4, kernel_size=3, padding=1)
        self.summary = nn.Sequential(nn.Linear(2 * coarsest, dim), nn.ReLU())
        self.iou_head = nn.Linear(dim, 1)
        self.object_head = nn.Linear(dim, 1)
        # An object that ends fades or shrinks first, so whether it is there is asked once more of the mask that was answered.
        self.evidence = nn.Sequential(nn.Linear(dim + finest + _MASK_FIGURES, dim), nn.ReLU(), nn.Linear(dim, 2))

    def forward(self, image: Tensor, conditioned: Tensor, points: Tensor, labels: Tensor, mask: Tensor | None) -> DecodedMasks:
        """One mask per batch element, as logits (B, 1, S, S).

        image        (B, 3, S, S) normalised pixels; or with a fourth channel, -1 to 1, how much they resemble the object
        conditioned  (B, C, S / 16, S / 16): image features, conditioned on memory or not
        points       (B, N, 2) as (x, y) in pixels, labels (B, N) of PointLabel
        mask         (B, 1, h, w) logits: a rough mask, that of the slice before, or the answer that clicks correct; or None
        """
        side = image.shape[-1]
        box = _box_map(points, labels, side)
        # What is in the box and not around it is rather the object: until a slice is known, that is all there is to go by.
        alike = image[:, 3:] if image.shape[1] > 3 else _standing_out(image, box)
        before = _mask_map(mask, image, labels)
        maps = (image[:, :3], before, box, _click_maps(points, labels, side), alike)
        # Two by two pixels to one cell of stride 2: convolutions at full resolution would cost more than all others.
        x = self.stem(F.pixel_unshuffle(torch.cat([one.to(image.dtype) for one in maps], dim=1), 2))
        skipped = []
        for level, down in enumerate(self.down, start=1):
            skipped.append(x)
            x = down(x)
            if level == _CONDITIONED_LEVEL:
                x = x + self.conditioned(conditioned)
        summary = self.summary(torch.cat((x.mean((-2, -1)), x.amax((-2, -1))), dim=-1))
        for up, merge in zip(reversed(self.up), reversed(self.merge), strict=True):
            finer = F.interpolate(up(x), scale_factor=2.0, mode="nearest")
            x = merge(torch.cat((finer, skipped.pop()), dim=1))
        logits = F.pixel_shuffle(self.mask_head(x), 2)
        share = logits.detach().float().sigmoid()  # that a mask is there is no reason to change it
        under = F.avg_pool2d(share, 2)
        within = (x * under).sum((-2, -1)) / under.sum((-2, -1)).clamp(min=1)
        known = torch.cat((summary, within, _figures(share, before, alike)), dim=-1)
        object_evidence, iou_evidence = self.evidence(known.to(summary.dtype)).split(1, dim=-1)
        return DecodedMasks(
            logits=logits,
            iou=(self.iou_head(summary) + iou_evidence).sigmoid(),
            tokens=summary[:, None],
            object_score=self.object_head(summary) + object_evidence,
        )


def _figures(share: Tensor, before: Tensor, alike: Tensor) -> Tensor:
    """(B, 6) of a mask (`share` of each pixel, 0..1): its size, how sure it is on the whole and at its surest, how much it
    resembles the object, and, where a mask was given (`before`, -1 to 1), how much it has grown and kept of that.

    All are (B, 1, S, S).
    """
    share, before, alike = (one.float().flatten(1) for one in (share, before, alike))
    given = before.clamp(min=0)
    area, area_before = share.sum(1), given.sum(1)
    followed = (before != 0).any(1)
    figures = (
        torch.log1p(area) - math.log(share.shape[1]) / 2,
        share.square().sum(1) / area.clamp(min=1),
        share.amax(1),
        (alike * share).sum(1) / area.clamp(min=1),
        (torch.log1p(area) - torch.log1p(area_before)) * followed,
        2 * (share * given).sum(1) / (area + area_before).clamp(min=1),
    )
    return torch.stack(figures, dim=-1)


def slice_grey(image: Tensor) -> Tensor:
    """(B, S, S), 0..1: the slice itself, the middle one of normalised channels (B, 3 or more, S, S); of colours, green."""
    return image[:, 1].float() * PIXEL_STD[1] + PIXEL_MEAN[1]


def _standing_out(image: Tensor, box: Tensor) -> Tensor:
    """(B, 1, S, S): which grey values there are in the box rather than around it; 0 everywhere where there is no box."""
    grey = slice_grey(image)
    return resemblance(grey, grey_profile(grey, box[:, 0] > 0))[:, None]


def _mask_map(mask: Tensor | None, image: Tensor, labels: Tensor) -> Tensor:
    """(B, 1, S, S), -1 to 1; 0 everywhere where there is no mask.

    Nor is there one where an empty mask is corrected by a click on the object: what was not found is no hint where it is.
    """
    if mask is None:
        return torch.zeros_like(image[:, :1])
    mask = mask.to(image.dtype)
    if mask.shape[-2:] != image.shape[-2:]:
        mask = F.interpolate(mask, size=image.shape[-2:], mode="bilinear", align_corners=False)
    missed = (mask <= 0).flatten(1).all(1) & (labels == PointLabel.POSITIVE).any(1)
    return mask.clamp(-_LOGIT_BOUND, _LOGIT_BOUND) / _LOGIT_BOUND * ~missed[:, None, None, None]


def _box_map(points: Tensor, labels: Tensor, side: int) -> Tensor:
    """(B, 1, side, side): how deep a pixel lies in the box, -1 to 1, negative outside; 0 everywhere where there is none."""
    if labels.shape[1] < 2:  # a box is two corners
        return points.new_zeros(len(points), 1, side, side)
    pixel = torch.arange(side, device=points.device)
    x0, y0, x1, y1 = (edge[:, None] for edge in points[:, :2].flatten(1).unbind(1))
    columns = torch.minimum(pixel - x0, x1 - pixel)  # (B, side)
    rows = torch.minimum(pixel - y0, y1 - pixel)
    depth = torch.minimum(rows[:, :, None], columns[:, None, :]).clamp(-_BOX_DEPTH_BOUND, _BOX_DEPTH_BOUND) / _BOX_DEPTH_BOUND
    has_box = labels[:, 0] == PointLabel.BOX_TOP_LEFT
    return (depth * has_box[:, None, None])[:, None]


def _click_maps(points: Tensor, labels: Tensor, side: int) -> Tensor:
    """(B, 2, side, side): a spot of height 1 around every positive, and around every negative click."""
    pixel = torch.arange(side, device=points.device)
    across = torch.exp(-((pixel - points[..., :1]) ** 2) / (2 * _CLICK_SIGMA**2))  # (B, N, side)
    down = torch.exp(-((pixel - points[..., 1:]) ** 2) / (2 * _CLICK_SIGMA**2))
    spots = down[..., :, None] * across[..., None, :]  # (B, N, side, side)
    kinds = [(labels == kind)[..., None, None] for kind in (PointLabel.POSITIVE, PointLabel.NEGATIVE)]
    return torch.stack([(spots * kind).amax(1) for kind in kinds], dim=1)
