"""What a network is shown of a clip: every slice, and its neighbours where they are its channels."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from MedSAM2Lib.benchmark.subject import random_network
from MedSAM2Lib.frames import normalise
from MedSAM2Lib.network.config import NetworkConfig
from MedSAM2Lib.network.prompt_encoder import PointLabel
from MedSAM2Lib.network.sam2 import SAM2, ImageFeatures, MaskPrediction, PointTensors, SliceDepth
from MedSAM2Lib.training.clip import ClipBatch
from MedSAM2Lib.training.prompting import box_or_clicks
from MedSAM2Lib.training.steps import PromptMix, track_clip
from Testing.lib.network.parity.weights import SMALL

SIDE, CLIPS, LENGTH = 32, 40, 3
CONFIG = replace(SMALL, image_size=SIDE, neighbour_channels=True)
GREY = torch.arange(LENGTH + 2) / 10  # of the slice before, of three slices, of the slice after
BETWEEN = torch.stack((GREY[:-2], GREY[1:-1], GREY[2:]), dim=1)  # (slices, channels)
BLACK = torch.zeros(1, LENGTH, 3, SIDE, SIDE)
BOXES = PromptMix(box=1.0, click=0.0, correction=0.0, alone=0.0)


class Watched(SAM2):
    """Keeps what it was shown."""

    shown: Tensor

    def encode_image(self, images: Tensor) -> ImageFeatures:
        self.shown = images
        return super().encode_image(images)


def a_batch(images: Tensor) -> ClipBatch:
    """Clips of images (B, LENGTH, 3, SIDE, SIDE), each of an object that is a square."""
    masks = torch.zeros(len(images), LENGTH, SIDE, SIDE, dtype=torch.bool)
    masks[..., 8:20, 8:20] = True
    return ClipBatch(images, masks, 2.0 * torch.arange(LENGTH).expand(len(images), -1), torch.full((len(images),), 2.0))


def shown_of_clips(config: NetworkConfig, mix: PromptMix) -> Tensor:
    """(clips, slices, channels) grey that a network saw of clips whose slices are of one grey each."""
    network = Watched(config).eval()
    network.load_state_dict(random_network(config).state_dict())
    images = BETWEEN[None, ..., None, None].expand(CLIPS, -1, -1, SIDE, SIDE)
    told: list[int] = []
    with torch.no_grad():
        track_clip(network, a_batch(images), mix, torch.Generator().manual_seed(0), lambda _, __, index: told.append(index))
    assert told == [0, 1, 2]
    black, white = (normalise(torch.full((1, 1, 1, 1), level)).view(3, 1, 1) for level in (0.0, 1.0))
    return ((network.shown - black) / (white - black)).unflatten(0, (CLIPS, LENGTH)).mean((-2, -1))


def is_like(shown: Tensor, expected: Tensor) -> Tensor:
    """(clips,) bool."""
    return torch.isclose(shown, expected, atol=1e-5).flatten(1).all(1)


def test_the_channels_are_the_slice_before_the_slice_and_the_slice_after() -> None:
    assert is_like(shown_of_clips(CONFIG, BOXES)[:, 1:], BETWEEN[1:]).all()


def test_the_prompted_slice_is_seen_from_either_side() -> None:
    prompted = shown_of_clips(CONFIG, BOXES)[:, :1]
    turned = is_like(prompted, BETWEEN[:1].flip(1))
    assert (turned ^ is_like(prompted, BETWEEN[:1])).all()
    assert 10 < turned.sum() < 30


@pytest.mark.parametrize(("alone", "least", "most"), [(0.0, 0, 0), (0.5, 10, 30), (1.0, CLIPS, CLIPS)])
def test_some_clips_are_seen_without_neighbours(alone: float, least: int, most: int) -> None:
    shown = shown_of_clips(CONFIG, replace(BOXES, alone=alone))
    without = is_like(shown, GREY[1:-1, None].expand(-1, 3))
    assert (without | is_like(shown[:, 1:], BETWEEN[1:])).all()
    assert least <= without.sum() <= most


def test_a_network_without_neighbours_as_channels_sees_the_slice_three_times() -> None:
    shown = shown_of_clips(replace(CONFIG, neighbour_channels=False), replace(BOXES, alone=0.5))
    assert is_like(shown, GREY[1:-1, None].expand(-1, 3)).all()


def reports_of_a_clip(mix: PromptMix, seed: int) -> list[int]:
    """Slice indices in the order in which predictions for them were reported."""
    told: list[int] = []
    with torch.no_grad():
        track_clip(
            random_network(CONFIG),
            a_batch(BLACK),
            mix,
            torch.Generator().manual_seed(seed),
            lambda _, __, index: told.append(index),
        )
    return told


def test_a_corrected_slice_gets_one_click_after_the_other() -> None:
    counts = [len(reports_of_a_clip(replace(BOXES, correction=1.0, most_clicks=3), seed)) - LENGTH for seed in range(12)]
    assert set(counts) == {1, 2, 3}


class Following(SAM2):
    """Keeps which slices it was given a mask for, which of these was empty, and where a box was drawn."""

    followed: list[bool]
    empty: list[bool]
    boxed: list[bool]

    def predict(
        self,
        conditioned: Tensor,
        features: ImageFeatures,
        points: PointTensors | None = None,
        mask: Tensor | None = None,
        doubt: float = 0.0,
    ) -> MaskPrediction:
        self.followed.append(mask is not None)
        self.empty.append(mask is not None and not bool((mask > 0).any()))
        self.boxed.append(points is not None and bool((points.labels == PointLabel.BOX_TOP_LEFT).any()))
        prediction = super().predict(conditioned, features, points, mask, doubt)
        return prediction._replace(logits=torch.ones_like(prediction.logits))  # it always finds something


class Placed(SAM2):
    """Keeps where it was told that slices lie."""

    depths: list[SliceDepth]

    def at_depth(self, conditioned: Tensor, depth: SliceDepth) -> Tensor:
        self.depths.append(depth)
        return super().at_depth(conditioned, depth)

    def predict(self, *args: Any, **options: Any) -> MaskPrediction:
        prediction = super().predict(*args, **options)
        return prediction._replace(logits=-torch.ones_like(prediction.logits))  # it misses all, and is clicked on the object


def depths_of_a_clip(mix: PromptMix, seed: int = 0) -> list[SliceDepth]:
    network = Placed(CONFIG).eval()
    network.depths = []
    with torch.no_grad():
        track_clip(network, a_batch(BLACK), mix, torch.Generator().manual_seed(seed), lambda *_: None)
    return network.depths


def test_a_network_is_told_how_far_slices_are_from_the_prompted_one() -> None:
    depths = depths_of_a_clip(replace(BOXES, unplaced=0.0))
    assert [float(depth.distance) for depth in depths] == [2.0, 4.0]
    assert all((depth.step, depth.radius) == (2.0, 6.0) for depth in depths)


def test_distances_begin_anew_at_a_corrected_slice() -> None:
    mix = replace(BOXES, correction=1.0, unplaced=0.0)
    found = {tuple(float(depth.distance) for depth in depths_of_a_clip(mix, seed)) for seed in range(8)}
    assert found == {(2.0, 4.0), (2.0, 2.0)}


def test_of_a_bounded_clip_the_last_slice_is_known_from_the_start() -> None:
    mix = replace(BOXES, bounded=1.0, unplaced=0.0)
    assert reports_of_a_clip(mix, seed=0) == [0, 1]
    (only,) = depths_of_a_clip(mix)
    assert (only.distance, only.ahead, only.ahead_shows) == (2.0, 2.0, True)
    assert not any(float(depth.ahead) for depth in depths_of_a_clip(replace(BOXES, unplaced=0.0)))


def test_some_clips_are_tracked_without_knowing_how_deep_slices_lie() -> None:
    assert [float(depth.radius) for depth in depths_of_a_clip(replace(BOXES, unplaced=1.0))] == [0.0, 0.0]


def followed_clip(mix: PromptMix, seed: int = 0) -> Following:
    network = Following(replace(CONFIG, follow_mask=True)).eval()
    network.followed, network.empty, network.boxed = [], [], []
    with torch.no_grad():
        track_clip(network, a_batch(BLACK), mix, torch.Generator().manual_seed(seed), lambda *_: None)
    return network


@pytest.mark.parametrize("unfollowed", [0.0, 1.0])
def test_some_clips_are_tracked_from_memory_alone(unfollowed: float) -> None:
    assert followed_clip(replace(BOXES, unfollowed=unfollowed)).followed == [False] + [unfollowed == 0.0] * (LENGTH - 1)


def test_some_clicks_correct_a_slice_as_if_nothing_had_been_found_there() -> None:
    def empty_in_corrections(missed: float) -> list[int]:
        clips = [followed_clip(replace(BOXES, correction=1.0, unfollowed=1.0, missed=missed), seed) for seed in range(16)]
        return [sum(clip.empty) for clip in clips]

    assert set(empty_in_corrections(0.0)) == {0}
    assert set(empty_in_corrections(1.0)) == {0, 1}  # the box's own slice has an answer


def test_some_corrections_are_boxes_that_do_not_look_at_what_was_answered() -> None:
    for seed in range(16):
        clip = followed_clip(replace(BOXES, correction=1.0, boxed=1.0), seed)
        corrected = clip.boxed.index(True, 1)
        assert clip.empty[corrected] == (corrected > 1)  # on the prompted slice itself, a click joins its box
        assert sum(followed_clip(replace(BOXES, correction=1.0), seed).boxed[2:]) == 0


def test_where_no_object_is_a_click_stands_in_for_the_box() -> None:
    masks = torch.zeros(2, 32, 32, dtype=torch.bool)
    masks[0, 8:20, 4:30] = True
    clicks = PointTensors(torch.full((2, 1, 2), 3.0), torch.full((2, 1), int(PointLabel.NEGATIVE)))
    points, boxed = box_or_clicks(masks, clicks, torch.Generator().manual_seed(0))
    assert boxed.tolist() == [True, False]
    assert points.labels.tolist() == [
        [PointLabel.BOX_TOP_LEFT, PointLabel.BOX_BOTTOM_RIGHT],
        [PointLabel.NEGATIVE, PointLabel.PADDING],
    ]
    assert (points.coordinates[0] - torch.tensor([[4.0, 8.0], [29.0, 19.0]])).abs().max() < 4
    assert points.coordinates[1, 0].tolist() == [3.0, 3.0]
