"""One training step: a batch of clips is prompted on its first slice, tracked through the others, corrected on some.

The tracker is the one that inference uses, so that what is trained is what runs.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from MedSAM2Lib.frames import normalise
from MedSAM2Lib.inference.tracker import Tracker
from MedSAM2Lib.memory.bank import RecentBank
from MedSAM2Lib.memory.options import SelfSorting
from MedSAM2Lib.memory.self_sorting import SelfSortingBank
from MedSAM2Lib.network.sam2 import SAM2, ImageFeatures, MaskPrediction, PointTensors
from MedSAM2Lib.training.losses import LossWeights, slice_loss
from MedSAM2Lib.training.prompting import append_points, box_prompt, click_prompt, correction_prompt

__all__ = ["PAPER_MIX", "ClipOptions", "PromptMix", "clip_loss", "track_clip"]


@dataclass(frozen=True)
class PromptMix:
    """How often a clip starts with which prompt, and how often it is corrected.

    The rest, 1 - box - click, starts with the reference mask. Medical SAM 2 draws mask 50 %, click 25 %, box 25 %; nano
    has little time to learn, and what it is asked for is a box.
    """

    box: float = 0.75
    click: float = 0.1
    correction: float = 0.2  # probability that a clip gets corrective clicks
    most_corrected: int = 1  # slices of a clip that get some
    most_clicks: int = 1  # one after the other, on each of them
    unfollowed: float = 0.0  # probability that a clip is tracked without the mask of the slice before, from memory alone
    alone: float = 0.1  # probability that a network with neighbours as channels does not see a clip's
    pointer_span: int = 64  # slices a clip pretends to be cut from, so that pointer positions match whole volumes


# Appendix of Ravi et al., arXiv 2408.00714, which Medical SAM 2 follows.
PAPER_MIX = PromptMix(box=0.25, click=0.25, correction=0.5, most_corrected=2)


@dataclass(frozen=True)
class ClipOptions:
    """How a clip is tracked."""

    # None: SAM 2's own memory. Else the memories that a slice sees are chosen by worth, for each clip of the batch by itself.
    memory: SelfSorting | None = None
    checkpoints: bool = False  # encode slice by slice and once more for the gradients: less memory, more time


_PLAIN = ClipOptions()


def clip_loss(
    network: SAM2,
    images: Tensor,
    masks: Tensor,
    mix: PromptMix,
    weights: LossWeights,
    generator: torch.Generator,
    options: ClipOptions = _PLAIN,
) -> Tensor:
    """Mean loss over the slices (and corrections) of a batch of clips.

    images  (B, T + 2, S, S), 0..1: the slices between the one before and the one after them
    masks   (B, T, S, S) bool
    """
    losses: list[Tensor] = []

    def add_loss(prediction: MaskPrediction, wanted: Tensor, index: int) -> None:
        losses.append(slice_loss(prediction, wanted, weights))

    track_clip(network, images, masks, mix, generator, add_loss, options)
    return torch.stack(losses).mean()


def track_clip(
    network: SAM2,
    images: Tensor,
    masks: Tensor,
    mix: PromptMix,
    generator: torch.Generator,
    on_prediction: Callable[[MaskPrediction, Tensor, int], None],
    options: ClipOptions = _PLAIN,
) -> None:
    """Runs a batch of clips (as in `clip_loss`) through prompt, corrections and tracking; reports every prediction with
    the masks (B, S, S) that were wanted and its slice index, with a self-sorting memory clip by clip (B = 1)."""
    length = masks.shape[1]
    channels = _with_neighbours(images, mix, generator) if network.config.neighbour_channels else images[:, 1:-1, None]
    features = _encode(network, normalise(channels.flatten(0, 1)), length, options.checkpoints)
    recent = RecentBank(network.config.memory_slots, network.config.max_object_pointers)
    if options.memory is None:
        _track(Tracker(network, recent, mix.pointer_span, memory_dtype=None), features, masks, mix, generator, on_prediction)
        return
    for clip in range(len(masks)):  # a memory by worth is that of one object
        tracker = Tracker(network, SelfSortingBank(recent.copy(), options.memory), mix.pointer_span, memory_dtype=None)
        own = [slice_features.row(clip) for slice_features in features]
        _track(tracker, own, masks[clip : clip + 1], mix, generator, on_prediction)


def _track(
    tracker: Tracker,
    features: Sequence[ImageFeatures],
    masks: Tensor,
    mix: PromptMix,
    generator: torch.Generator,
    on_prediction: Callable[[MaskPrediction, Tensor, int], None],
) -> None:
    length = masks.shape[1]
    draw = torch.rand(2, generator=generator)
    if length == 1:
        draw[0] *= mix.box + mix.click  # a reference mask as prompt leaves nothing to learn on its own slice
    corrected = _corrected_slices(length, mix, generator) if draw[1] < mix.correction else []
    clicks = int(torch.randint(1, mix.most_clicks + 1, (1,), generator=generator))
    followed = bool(torch.rand(1, generator=generator) >= mix.unfollowed)

    for index in range(length):
        points: PointTensors | None = None
        if index == 0:
            prediction, points = _first_prompt(tracker, features[0], masks[:, 0], mix, float(draw[0]), generator)
        else:
            prediction = tracker.track(index, features[index], 1, prediction.logits.detach() if followed else None)
        on_prediction(prediction, masks[:, index], index)
        for _ in range(clicks if index in corrected else 0):
            predicted = _upscaled(prediction.logits, masks.shape[-1]) > 0
            points = append_points(points, correction_prompt(predicted[:, 0], masks[:, index], generator))
            prediction = tracker.prompt(index, features[index], points, prediction.logits.detach())
            on_prediction(prediction, masks[:, index], index)


def _corrected_slices(length: int, mix: PromptMix, generator: torch.Generator) -> list[int]:
    """Half of the time the last slice is among them: there a pass has gone astray most, or beyond the object's end."""
    count = int(torch.randint(1, mix.most_corrected + 1, (1,), generator=generator))
    order = torch.randperm(length, generator=generator).tolist()
    if torch.rand(1, generator=generator) < 0.5:
        order.sort(key=lambda index: index != length - 1)
    return order[:count]


def _encode(network: SAM2, pixels: Tensor, length: int, checkpoints: bool) -> list[ImageFeatures]:
    """(B * T, 3, S, S) to the features of T slices of each of B clips."""
    if not checkpoints:
        return _split_slices(network.encode_image(pixels), length)
    slices = pixels.unflatten(0, (-1, length)).unbind(1)
    return [checkpoint(network.encode_image, one, use_reentrant=False) for one in slices]


def _first_prompt(
    tracker: Tracker, features: ImageFeatures, masks: Tensor, mix: PromptMix, draw: float, generator: torch.Generator
) -> tuple[MaskPrediction, PointTensors | None]:
    if draw >= mix.box + mix.click:
        return tracker.adopt_mask(0, features, masks[:, None]), None
    points = box_prompt(masks, generator) if draw < mix.box else click_prompt(masks, generator)
    return tracker.prompt(0, features, points), points


def _with_neighbours(images: Tensor, mix: PromptMix, generator: torch.Generator) -> Tensor:
    """(B, T + 2, S, S) to (B, T, 3, S, S): each slice between the one before and the one after it.

    Some clips lack neighbours, as single images do. The prompted slice may be seen from either side, because a session
    sees it once for both directions.
    """
    channels = torch.stack((images[:, :-2], images[:, 1:-1], images[:, 2:]), dim=2)
    alone, turned = torch.rand(2, len(images), generator=generator)
    channels[alone < mix.alone] = images[alone < mix.alone, 1:-1, None]
    turned = turned < 0.5
    channels[turned, 0] = channels[turned, 0].flip(1)
    return channels


def _split_slices(features: ImageFeatures, length: int) -> list[ImageFeatures]:
    """Features of B * T slices to T features of B slices."""
    levels = [level.unflatten(0, (-1, length)).unbind(1) for level in features]
    return [ImageFeatures(*slice_levels) for slice_levels in zip(*levels, strict=True)]


def _upscaled(logits: Tensor, side: int) -> Tensor:
    return F.interpolate(logits, size=(side, side), mode="bilinear", align_corners=False)
