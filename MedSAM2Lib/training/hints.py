"""What a slice is told of the mask before it: mostly what the network answered, sometimes a mask that has gone astray.

A network must not follow it blindly: in a real pass errors add up.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from MedSAM2Lib.inference.tracker import ROUGH_MASK_BOUND
from MedSAM2Lib.training.clip import ClipBatch
from MedSAM2Lib.training.prompting import object_radius

__all__ = ["Hints", "astray", "drawn"]

_SHIFT, _SCALE, _BEND = 0.15, 0.12, 0.3  # the most, in radii of the object
_WAVES = 5  # nodes of the bend across the image
_BLUR = 5  # pixels across; cut at another level than a half, by up to _GROWTH, the mask grows or shrinks
_GROWTH = 0.3
_GAP = 1.5  # steps from one slice to the next, from which on some were left out
_LEAST_LOGITS = (1.5, 4.0)  # inside and outside a mask, as absolute values


class Hints:
    """The masks that the slices of a batch of clips are told, in their order.

    share  of the network's answers that give way to the reference's mask of the slice before, led astray. Where the object
           has ended, that is the last one it had: a pass does not know yet that it is over
    """

    def __init__(self, batch: ClipBatch, share: float, generator: torch.Generator) -> None:
        self._masks, self._share, self._generator = batch.masks, share, generator
        gaps = batch.distances.diff(dim=1, prepend=batch.distances[:, :1])
        self._far = gaps > _GAP * batch.steps[:, None]  # (B, T): slices before it were left out
        self._last = batch.masks[:, 0]  # the last mask of each clip that shows the object

    def __call__(self, index: int, answered: Tensor) -> Tensor:
        """Logits (B, 1, L, L) for slice `index`, of which `answered` is what the network said of the slice before."""
        # After slices that were left out there is no answer to go on from: the slice's own mask stands in for it.
        far = self._far[:, index]
        before = torch.where(far[:, None, None], self._masks[:, index], self._masks[:, index - 1])
        self._last = torch.where(before.flatten(1).any(1)[:, None, None], before, self._last)
        replaced = far | drawn(len(answered), self._share, self._generator).to(answered.device)
        if not replaced.any():
            return answered
        led = F.interpolate(astray(self._last, self._generator), size=answered.shape[-2:], mode="bilinear", align_corners=False)
        return torch.where(replaced[:, None, None, None], led, answered)


def drawn(count: int, share: float, generator: torch.Generator) -> Tensor:
    """(count,) bool, each with this chance; where there is none, the generator is left alone."""
    return torch.rand(count, generator=generator) < share if share else torch.zeros(count, dtype=torch.bool)


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
