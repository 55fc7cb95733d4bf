"""Masks of the slice before, as they are when a pass has gone astray: what a network must not follow blindly."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from MedSAM2Lib.inference.tracker import ROUGH_MASK_BOUND
from MedSAM2Lib.training.prompting import object_radius

__all__ = ["astray"]

_SHIFT, _SCALE, _BEND = 0.15, 0.12, 0.3  # the most, in radii of the object
_WAVES = 5  # nodes of the bend across the image
_BLUR = 5  # pixels across; cut at another level than a half, by up to _GROWTH, the mask grows or shrinks
_GROWTH = 0.3
_LEAST_LOGITS = (1.5, 4.0)  # inside and outside a mask, amounts


def astray(masks: Tensor, generator: torch.Generator) -> Tensor:
    """Masks (B, S, S) bool, moved, scaled, bent, grown or shrunk, as logits (B, 1, S, S). `generator` is of the CPU."""
    count, side = len(masks), masks.shape[-1]

    def draw(*shape: int) -> Tensor:
        return (torch.rand(count, *shape, generator=generator) * 2 - 1).to(masks.device)

    reach = (2 / side * object_radius(masks))[:, None, None, None]  # in grid_sample's units
    ticks = (torch.arange(side, device=masks.device) + 0.5) * (2 / side) - 1
    grid = torch.stack(torch.meshgrid(ticks, ticks, indexing="xy"), dim=-1)  # (S, S, 2) as (x, y)
    bend = F.interpolate(draw(2, _WAVES, _WAVES), size=(side, side), mode="bicubic", align_corners=True).movedim(1, -1)
    bend = bend * _BEND * draw(1, 1, 1).abs()
    middle = _centres(masks)[:, None, None]
    grid = middle + (grid - middle) * torch.exp(_SCALE * draw(1, 1, 2)) + reach * (_SHIFT * draw(1, 1, 2) + bend)
    moved = F.grid_sample(masks[:, None].float(), grid, align_corners=False)
    soft = F.avg_pool2d(moved, _BLUR, stride=1, padding=_BLUR // 2)
    edge = ((soft - 0.5 - _GROWTH * draw(1, 1, 1)) * _BLUR).clamp(-1, 1)
    # As sure as networks are, of objects less than of what is around them; or they would know these masks by their logits.
    inside, outside = ((1 + draw(1, 1, 1)) / 2 * (ROUGH_MASK_BOUND - least) + least for least in _LEAST_LOGITS)
    return edge * torch.where(edge > 0, inside, outside)


def _centres(masks: Tensor) -> Tensor:
    """(B, 2) as (x, y) in grid_sample's units; 0 where a mask is empty."""
    ticks = (torch.arange(masks.shape[-1], device=masks.device) + 0.5) * (2 / masks.shape[-1]) - 1
    pixels = masks.flatten(1).sum(1).clamp(min=1)
    return torch.stack(((masks.sum(1) * ticks).sum(1) / pixels, (masks.sum(2) * ticks).sum(1) / pixels), dim=-1)
