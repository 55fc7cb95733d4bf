"""Prompts drawn from reference masks, as a hurried person would give them.

Masks are (B, S, S) bool; coordinates are pixels of the network's image. Everything random comes from one generator, of the
CPU, so that a training step is repeatable, and the same on whatever device the masks are.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from MedSAM2Lib.network.prompt_encoder import PointLabel
from MedSAM2Lib.network.sam2 import PointTensors

__all__ = ["append_points", "box_or_clicks", "box_prompt", "click_prompt", "correction_prompt", "object_radius"]

BOX_JITTER = 0.1  # standard deviation of a corner of the loosest boxes, in box sides (SAM: Kirillov et al., arXiv 2304.02643)
BOX_JITTER_BOUND = 0.04  # of the image side: 20 pixels at 512, as in SAM 2's training


def box_prompt(masks: Tensor, generator: torch.Generator, jitter: float = BOX_JITTER) -> PointTensors:
    """A box around each mask, drawn more or less loosely, rather less; every mask must have a pixel.

    jitter  the loosest: standard deviation of a corner, in box sides
    """
    side = masks.shape[-1]
    corners = _bounding_boxes(masks)
    sides = (corners[:, 2:] - corners[:, :2] + 1).repeat(1, 2)
    looseness = jitter * torch.rand(len(corners), 1, generator=generator).square()
    noise = (torch.randn(corners.shape, generator=generator) * looseness).to(masks.device) * sides
    corners = (corners + noise.clamp(-BOX_JITTER_BOUND * side, BOX_JITTER_BOUND * side)).clamp(0, side - 1)
    labels = torch.tensor([PointLabel.BOX_TOP_LEFT, PointLabel.BOX_BOTTOM_RIGHT], device=masks.device).expand(len(masks), 2)
    return PointTensors(corners.view(-1, 2, 2), labels)


def box_or_clicks(masks: Tensor, clicks: PointTensors, generator: torch.Generator) -> tuple[PointTensors, Tensor]:
    """A box around each mask that has a pixel, the one click (B, 1) instead where it has none; and which of them have one."""
    there = masks.flatten(1).any(1)
    box = box_prompt(masks, generator)
    beside = F.pad(clicks.labels, (0, 1), value=int(PointLabel.PADDING))
    at = F.pad(clicks.coordinates, (0, 0, 0, 1))
    return PointTensors(
        torch.where(there[:, None, None], box.coordinates, at), torch.where(there[:, None], box.labels, beside)
    ), there


def object_radius(masks: Tensor) -> Tensor:
    """(B,) half the mean side of each mask's bounding box, pixels; 0 where there is nothing."""
    corners = _bounding_boxes(masks)
    return (corners[:, 2:] - corners[:, :2] + 1).mean(1) / 2 * masks.flatten(1).any(1)


def _bounding_boxes(masks: Tensor) -> Tensor:
    """(B, 4) as (x0, y0, x1, y1), the outermost pixels of each mask."""
    side = masks.shape[-1]
    columns, rows = masks.any(1), masks.any(2)
    x0, x1 = _first(columns), side - 1 - _first(columns.flip(-1))
    y0, y1 = _first(rows), side - 1 - _first(rows.flip(-1))
    return torch.stack((x0, y0, x1, y1), dim=-1).float()


def _first(flags: Tensor) -> Tensor:
    return flags.float().argmax(-1)


def click_prompt(masks: Tensor, generator: torch.Generator) -> PointTensors:
    """One positive click anywhere in each mask; padding where a mask is empty."""
    points, found = _random_pixel(masks, generator)
    labels = torch.where(found, int(PointLabel.POSITIVE), int(PointLabel.PADDING))
    return PointTensors(points[:, None], labels[:, None])


def correction_prompt(predicted: Tensor, masks: Tensor, generator: torch.Generator) -> PointTensors:
    """One click per mask in what is wrong: positive where something is missing, negative where too much is marked.

    Where nothing is wrong, the click confirms a pixel of the mask.
    """
    wrong = predicted ^ masks
    candidates = torch.where(wrong.flatten(1).any(-1)[:, None, None], wrong, masks)
    points, found = _random_pixel(candidates, generator)
    x, y = points.long().unbind(-1)
    inside = masks[torch.arange(len(masks), device=masks.device), y, x]
    label = torch.where(inside, int(PointLabel.POSITIVE), int(PointLabel.NEGATIVE))
    return PointTensors(points[:, None], torch.where(found, label, int(PointLabel.PADDING))[:, None])


def append_points(first: PointTensors | None, more: PointTensors) -> PointTensors:
    """Clicks accumulate on a slice."""
    if first is None:
        return more
    return PointTensors(torch.cat((first.coordinates, more.coordinates), dim=1), torch.cat((first.labels, more.labels), dim=1))


def _random_pixel(masks: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """(B, 2) as (x, y) of a uniformly drawn pixel of each mask, and (B,) whether the mask has one."""
    side = masks.shape[-1]
    score = torch.rand(masks.shape, generator=generator).to(masks.device) * masks
    best, index = score.flatten(1).max(-1)
    return torch.stack((index % side, torch.div(index, side, rounding_mode="floor")), dim=-1).float(), best > 0
