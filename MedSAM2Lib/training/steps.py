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
from MedSAM2Lib.network.prompt_encoder import PointLabel
from MedSAM2Lib.network.sam2 import NO_OBJECT_LOGIT, SAM2, ImageFeatures, MaskPrediction, PointTensors, SliceDepth
from MedSAM2Lib.training.clip import ClipBatch
from MedSAM2Lib.training.hints import Hints, drawn
from MedSAM2Lib.training.losses import LossWeights, slice_loss
from MedSAM2Lib.training.prompting import append_points, box_or_clicks, box_prompt, click_prompt, correction_prompt, object_radius

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
    boxed: float = 0.0  # share of corrections that begin with a box around the object, which looks at the slice anew
    missed: float = 0.0  # probability that what is corrected is not the answer but an empty mask, as if nothing was found
    most_corrected: int = 1  # slices of a clip that get some
    most_clicks: int = 1  # one after the other, on each of them
    unfollowed: float = 0.0  # probability that a clip is tracked without the mask of the slice before, from memory alone
    astray: float = 0.0  # share of the masks of slices before that are not the network's own but the reference's, led astray
    unplaced: float = 0.1  # probability that a network that knows how deep slices lie is not told so of a clip's
    bounded: float = 0.0  # probability that a person has spoken on a clip's last slice, too, before it is tracked
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
    batch: ClipBatch,
    mix: PromptMix,
    weights: LossWeights,
    generator: torch.Generator,
    options: ClipOptions = _PLAIN,
) -> Tensor:
    """Mean loss over the slices (and corrections) of a batch of clips."""
    losses: list[Tensor] = []

    def add_loss(prediction: MaskPrediction, wanted: Tensor, index: int) -> None:
        losses.append(slice_loss(prediction, wanted, weights))

    track_clip(network, batch, mix, generator, add_loss, options)
    return torch.stack(losses).mean()


def track_clip(
    network: SAM2,
    batch: ClipBatch,
    mix: PromptMix,
    generator: torch.Generator,
    on_prediction: Callable[[MaskPrediction, Tensor, int], None],
    options: ClipOptions = _PLAIN,
) -> None:
    """Runs a batch of clips through prompt, corrections and tracking; reports every prediction with the masks (B, S, S)
    that were wanted and its slice's place in the clip, with a self-sorting memory clip by clip (B = 1)."""
    length = batch.masks.shape[1]
    images = batch.images
    channels = _with_neighbours(images, mix, generator) if network.config.neighbour_channels else images[:, :, 1:2]
    features = _encode(network, normalise(channels.flatten(0, 1)), length, options.checkpoints)
    recent = RecentBank(network.config.memory_slots, network.config.max_object_pointers)
    if options.memory is None:
        _track(Tracker(network, recent, mix.pointer_span, memory_dtype=None), features, batch, mix, generator, on_prediction)
        return
    for clip in range(len(images)):  # a memory by worth is that of one object
        tracker = Tracker(network, SelfSortingBank(recent.copy(), options.memory), mix.pointer_span, memory_dtype=None)
        own = [slice_features.row(clip) for slice_features in features]
        _track(tracker, own, batch.clip(clip), mix, generator, on_prediction)


def _track(
    tracker: Tracker,
    features: Sequence[ImageFeatures],
    batch: ClipBatch,
    mix: PromptMix,
    generator: torch.Generator,
    on_prediction: Callable[[MaskPrediction, Tensor, int], None],
) -> None:
    masks = batch.masks
    length = masks.shape[1]
    draw = torch.rand(2, generator=generator)
    if length == 1:
        draw[0] *= mix.box + mix.click  # a reference mask as prompt leaves nothing to learn on its own slice
    bounded = length > 2 and bool(drawn(1, mix.bounded, generator))
    tracked = length - 1 if bounded else length
    corrected = _corrected_slices(tracked, mix, generator) if draw[1] < mix.correction else []
    clicks = int(torch.randint(1, mix.most_clicks + 1, (1,), generator=generator))
    missed = bool(drawn(1, mix.missed, generator))
    boxed = bool(drawn(1, mix.boxed, generator))
    followed = bool(torch.rand(1, generator=generator) >= mix.unfollowed)
    hints = Hints(batch, mix.astray, generator)
    if bounded:
        tracker.adopt_mask(length - 1, features[-1], masks[:, -1:])
    places = _Places(batch, mix.unplaced, bounded, generator)

    for index in range(tracked):
        points: PointTensors | None = None
        if index == 0:
            prediction, points = _first_prompt(tracker, features[0], masks[:, 0], mix, float(draw[0]), generator)
        else:
            hint = hints(index, prediction.logits.detach()) if followed else None
            prediction = tracker.track(index, features[index], 1, hint, depth=places(index))
        on_prediction(prediction, masks[:, index], index)
        answered = prediction.logits.detach()
        if missed and index > 0:
            answered = torch.full_like(answered, NO_OBJECT_LOGIT)
        for click in range(clicks if index in corrected else 0):
            predicted = _upscaled(answered, masks.shape[-1]) > 0
            clicked = correction_prompt(predicted[:, 0], masks[:, index], generator)
            if boxed and click == 0 and index > 0:
                points, there = box_or_clicks(masks[:, index], clicked, generator)
                answered = answered.masked_fill(there[:, None, None, None], 0.0)
            else:
                points = append_points(points, clicked)
            prediction = tracker.prompt(index, features[index], points, answered)
            answered = prediction.logits.detach()
            on_prediction(prediction, masks[:, index], index)
        if index in corrected:
            assert points is not None
            places.corrected(index, points)


class _Places:
    """How deep slices lie behind the last one that was prompted and has the object, and before the end of a bounded clip."""

    def __init__(self, batch: ClipBatch, unplaced: float, bounded: bool, generator: torch.Generator) -> None:
        self._batch = batch
        self._bounded = bounded
        unknown = drawn(len(batch.steps), unplaced, generator).to(batch.steps.device)
        self._radius = object_radius(batch.masks[:, 0]) * ~unknown
        self._from = batch.distances[:, 0]
        self._ahead_shows = batch.masks[:, -1].flatten(1).any(1)

    def corrected(self, index: int, points: PointTensors) -> None:
        """Clicks beside the object alone say nothing of where it is."""
        located = (points.labels != PointLabel.NEGATIVE).any(1)
        radius = object_radius(self._batch.masks[:, index])
        moved = located & (radius > 0) & (self._radius > 0)
        self._radius = torch.where(moved, radius, self._radius)
        self._from = torch.where(moved, self._batch.distances[:, index], self._from)

    def __call__(self, index: int) -> SliceDepth:
        distances = self._batch.distances
        ahead = (distances[:, -1] - distances[:, index]) * self._bounded
        return SliceDepth(distances[:, index] - self._from, self._batch.steps, self._radius, ahead, self._ahead_shows)


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
    """Slices between their neighbours, (B, T, 3, S, S), as a network is to see them.

    Some clips lack neighbours, as single images do. The prompted slice may be seen from either side, because a session
    sees it once for both directions.
    """
    channels = images.clone()
    alone, turned = torch.rand(2, len(images), generator=generator)
    channels[alone < mix.alone] = images[alone < mix.alone, :, 1:2]
    turned = turned < 0.5
    channels[turned, 0] = channels[turned, 0].flip(1)
    return channels


def _split_slices(features: ImageFeatures, length: int) -> list[ImageFeatures]:
    """Features of B * T slices to T features of B slices."""
    levels = [level.unflatten(0, (-1, length)).unbind(1) for level in features]
    return [ImageFeatures(*slice_levels) for slice_levels in zip(*levels, strict=True)]


def _upscaled(logits: Tensor, side: int) -> Tensor:
    return F.interpolate(logits, size=(side, side), mode="bilinear", align_corners=False)
