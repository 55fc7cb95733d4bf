"""A slice seen in four mirror images at once: what is right of the object in one is left of it in another, so errors average out.

Averaging answers over mirrored views is common practice in segmentation (Isensee et al., Nature Methods 2021).
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from MedSAM2Lib.network.mask_decoder import DecodedMasks
from MedSAM2Lib.network.prompt_encoder import PointLabel

__all__ = ["mean_of_mirrors"]

_AXES: tuple[tuple[int, ...], ...] = ((), (-1,), (-2,), (-2, -1))
_Decoder = Callable[[Tensor, Tensor, Tensor, Tensor, Tensor | None], DecodedMasks]


def mean_of_mirrors(
    decoder: _Decoder, image: Tensor, conditioned: Tensor, points: Tensor, labels: Tensor, mask: Tensor | None
) -> DecodedMasks:
    """What `decoder` answers, but with logits that are the mean over the slice and its mirror images.

    Arguments as `PromptedUNet.forward` has them, B slices of S x S pixels.
    """
    side = image.shape[-1]

    def mirrored(maps: Tensor) -> Tensor:
        return torch.cat([maps.flip(axes) for axes in _AXES])

    decoded = decoder(
        mirrored(image),
        mirrored(conditioned),
        torch.cat([_mirrored_points(points, labels, axes, side) for axes in _AXES]),
        labels.repeat(len(_AXES), 1),
        None if mask is None else mirrored(mask),
    )
    views = zip(decoded.logits.chunk(len(_AXES)), _AXES, strict=True)
    logits = torch.stack([view.flip(axes) for view, axes in views]).mean(0)
    own = DecodedMasks(*(part[: len(image)] for part in decoded))
    return own._replace(logits=logits)


def _mirrored_points(points: Tensor, labels: Tensor, axes: tuple[int, ...], side: int) -> Tensor:
    """Points (B, N, 2) as (x, y) in a mirror image; the first corner of a box stays the one with the smaller coordinates."""
    mirrored = points.clone()
    for axis in axes:
        coordinate = -1 - axis  # the last axis is x
        mirrored[..., coordinate] = side - 1 - points[..., coordinate]
    if labels.shape[1] < 2:
        return mirrored
    corners = mirrored[:, :2].sort(dim=1).values
    has_box = (labels[:, 0] == PointLabel.BOX_TOP_LEFT)[:, None, None]
    return torch.cat((torch.where(has_box, corners, mirrored[:, :2]), mirrored[:, 2:]), dim=1)
