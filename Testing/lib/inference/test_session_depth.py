"""What a network is told of where a slice lies, and what the object looks like on the slice that a person prompted."""

from __future__ import annotations

import json
from typing import Any

import pytest
import torch
from torch import Tensor

from MedSAM2Lib.geometry import Geometry
from MedSAM2Lib.inference.session import Session
from MedSAM2Lib.network.config import NetworkConfig
from MedSAM2Lib.network.convolutional import ConvolutionalSAM2
from MedSAM2Lib.network.sam2 import ImageFeatures, SliceDepth
from MedSAM2Lib.prompts import Box3D, Points
from Testing.lib.inference.support import PLAIN, Mask, SeesBright, box_around, loaded, opened, volume_of

SPACING = (0.5, 0.5, 2.0)  # (i, j, k) mm
FIRST = 12


class Told(SeesBright):
    """Keeps what it is told, and remembers of each prompted slice its mean grey."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.depths: list[SliceDepth] = []
        self.recalled: list[float] = []

    def at_depth(self, conditioned: Tensor, depth: SliceDepth) -> Tensor:
        self.depths.append(depth)
        return super().at_depth(conditioned, depth)

    def grey_profile(self, features: ImageFeatures, logits: Tensor) -> Tensor:
        return (logits > 0).float().mean().view(1, 1)

    def recognised(self, features: ImageFeatures, profile: Tensor) -> ImageFeatures:
        self.recalled.append(float(profile))
        return features


@pytest.fixture
def a_session(the_truth: Mask) -> Session:
    volume = volume_of(the_truth, Geometry(the_truth.shape, SPACING))  # type: ignore[arg-type]
    return opened(loaded(Told), volume, PLAIN)


def told(session: Session) -> Told:
    network = session.model.network
    assert isinstance(network, Told)
    return network


def test_distances_are_in_pixels_of_the_networks_image(a_session: Session, the_truth: Mask) -> None:
    box = box_around(the_truth[FIRST], FIRST, margin=0)
    a_session.add_prompt("ball", box)
    steps = [result.slice_index for result in a_session.propagate()]
    pixel_mm = the_truth.shape[1] * 0.5 / told(a_session).config.image_size
    depths = told(a_session).depths
    assert [round(float(depth.distance) * pixel_mm / 2.0) for depth in depths] == [abs(step - FIRST) for step in steps]
    assert all(float(depth.step) * pixel_mm == pytest.approx(2.0) for depth in depths)
    radius = (box.x1 - box.x0 + 1 + box.y1 - box.y0 + 1) / 4 * 0.5
    assert all(float(depth.radius) * pixel_mm == pytest.approx(radius, rel=0.1) for depth in depths)


def test_within_what_a_person_limited_nothing_is_said(a_session: Session, the_truth: Mask) -> None:
    box = box_around(the_truth[FIRST], FIRST)
    a_session.add_prompt("ball", Box3D(FIRST - 3, FIRST + 3, box.x0, box.y0, box.x1, box.y1))
    assert list(a_session.propagate())
    assert not told(a_session).depths


def ahead_by_slice(session: Session, rows: int) -> dict[int, tuple[float, bool]]:
    """Of each slice that a propagation segments: how many slices further on a person spoke, and whether the object is there."""
    told(session).depths.clear()
    steps = [result.slice_index for result in session.propagate()]
    pixel_mm = rows * SPACING[1] / told(session).config.image_size
    return {
        step: (round(float(depth.ahead) * pixel_mm / SPACING[2]), bool(depth.ahead_shows))
        for step, depth in zip(steps, told(session).depths, strict=True)
    }


def test_a_slice_is_told_how_far_ahead_a_person_saw_the_object(a_session: Session, the_truth: Mask) -> None:
    for index in (7, FIRST):
        a_session.add_prompt("ball", box_around(the_truth[index], index))
    ahead = ahead_by_slice(a_session, the_truth.shape[1])
    assert [ahead[index] for index in (8, 9, 10, 11)] == [(4, True), (3, True), (3, True), (4, True)]
    assert {ahead[index] for index in ahead if not 7 < index < FIRST} == {(0, False)}


def test_a_slice_is_told_how_far_ahead_a_person_said_that_the_object_is_not(a_session: Session, the_truth: Mask) -> None:
    a_session.add_prompt("ball", box_around(the_truth[FIRST], FIRST))
    a_session.add_prompt("ball", Points(21, (5.0,), (5.0,), (False,)))
    ahead = ahead_by_slice(a_session, the_truth.shape[1])
    assert [ahead[index] for index in (13, 17, 20)] == [(8, False), (4, False), (1, False)]
    assert ahead[11] == (0, False)


def test_the_nearest_prompted_slice_says_what_the_object_looks_like(a_session: Session, the_truth: Mask) -> None:
    for index in (5, FIRST):
        a_session.add_prompt("ball", box_around(the_truth[index], index))
    told(a_session).recalled.clear()
    steps = [result.slice_index for result in a_session.propagate()]
    small, large = sorted(set(told(a_session).recalled))
    assert small < 0.8 * large
    for step, said in zip(steps, told(a_session).recalled, strict=True):
        if 2 * step != 5 + FIRST:
            assert said == (small if abs(step - 5) < abs(step - FIRST) else large)


def test_a_slice_where_the_object_is_not_has_no_say(a_session: Session, the_truth: Mask) -> None:
    a_session.add_prompt("ball", box_around(the_truth[FIRST], FIRST))
    a_session.add_prompt("ball", Points(21, (5.0,), (5.0,), (False,)))
    told(a_session).recalled.clear()
    assert list(a_session.propagate())
    assert min(told(a_session).recalled) > 0


def test_what_an_object_looks_like_is_the_same_in_a_session_that_is_restored(the_truth: Mask) -> None:
    config = NetworkConfig(trunk=None, image_size=64, hidden_dim=32, memory_dim=16, memory_layers=1, feedforward_dim=32)
    model, volume = loaded(ConvolutionalSAM2, config), volume_of(the_truth)
    session, restored = opened(model, volume), opened(model, volume)
    session.add_prompt("ball", box_around(the_truth[FIRST], FIRST))
    assert list(session.propagate())
    restored.restore(json.loads(json.dumps(session.state())))
    looks = [one.memory("ball").conditioning[FIRST].grey_profile for one in (session, restored)]
    assert looks[0] is not None
    assert looks[0].any()
    assert torch.equal(*looks)
