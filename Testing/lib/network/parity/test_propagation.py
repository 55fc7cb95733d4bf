"""Whole passes through a volume give what the reference implementations give, with the same random weights."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from MedSAM2Lib.benchmark.subject import random_network
from MedSAM2Lib.network.config import NetworkConfig, network_config
from MedSAM2Lib.network.sam2 import NO_OBJECT_LOGIT, SAM2, PointTensors
from Testing.lib.network.parity.comparison import assert_same_story
from Testing.lib.network.parity.drivers import Driver, Meta, Ours, Transformers, points
from Testing.lib.network.parity.weights import random_slices, shift_object_score

BOX = points((30, 40, 2), (90, 100, 3))
CLICK = points((40, 50, 1))
TWO_CLICKS = points((40, 50, 1), (100, 20, 0))

references = pytest.mark.parametrize("reference", [Meta, Transformers])


@references
@pytest.mark.parametrize("prompt", [CLICK, BOX, TWO_CLICKS], ids=["click", "box", "two clicks"])
def test_a_pass_upwards(reference: type[Driver], a_network: SAM2, prompt: PointTensors) -> None:
    def story(driver: Driver) -> dict[int, Tensor]:
        driver.prompt(0, prompt)
        return driver.propagate(range(11))  # ten tracked slices: more than there are memory slots

    assert_same_story(reference, a_network, story)


@references
def test_a_pass_downwards_from_the_middle(reference: type[Driver], a_network: SAM2) -> None:
    def story(driver: Driver) -> dict[int, Tensor]:
        driver.prompt(9, BOX)
        return driver.propagate(range(9, -1, -1))

    assert_same_story(reference, a_network, story)


def test_a_pass_does_not_see_the_other_directions_memories(a_network: SAM2) -> None:
    """MedSAM2 resets the predictor between its two passes; our tracker keeps their memories apart instead."""

    def story(driver: Driver) -> dict[int, Tensor]:
        driver.prompt(6, BOX)
        if isinstance(driver, Ours):
            driver.propagate(range(6, 12))
        return driver.propagate(range(6, -1, -1))

    assert_same_story(Meta, a_network, story)


@references
def test_several_prompted_slices_in_any_order(reference: type[Driver], a_network: SAM2) -> None:
    def story(driver: Driver) -> dict[int, Tensor]:
        driver.prompt(8, CLICK)
        driver.prompt(2, BOX)
        driver.prompt(4, TWO_CLICKS)
        return driver.propagate(range(2, 12))

    assert_same_story(reference, a_network, story)


def test_a_second_click_before_the_first_pass(a_network: SAM2) -> None:
    """Meta's way only: transformers does not show the decoder the mask that the second click refines."""

    def story(driver: Driver) -> dict[int, Tensor]:
        driver.prompt(0, CLICK)
        driver.prompt(0, TWO_CLICKS)
        return driver.propagate(range(3))

    assert_same_story(Meta, a_network, story)


def test_a_persons_mask_is_followed(a_network: SAM2) -> None:
    """Meta's way only: transformers remembers the full-size mask, not the one at a quarter of the size that is shown."""

    def story(driver: Driver) -> dict[int, Tensor]:
        driver.paint(3)
        return driver.propagate(range(3, 12))

    assert_same_story(Meta, a_network, story)


@references
@pytest.mark.parametrize("count", [1, 2, 4, 19])
def test_volumes_of_any_length(reference: type[Driver], a_network: SAM2, count: int) -> None:
    """Below 16 slices the length scales the pointers' positions; above, old pointers drop out."""

    def story(driver: Driver) -> dict[int, Tensor]:
        answer = driver.prompt(0, BOX)
        return {-1: answer} if count == 1 else driver.propagate(range(count))

    assert_same_story(reference, a_network, story, count=count)


@references
def test_an_object_that_comes_and_goes(reference: type[Driver], a_config: NetworkConfig) -> None:
    def story(driver: Driver) -> dict[int, Tensor]:
        driver.prompt(0, BOX)
        return driver.propagate(range(12))

    def story_with_absences(driver: Driver) -> dict[int, Tensor]:
        answers = story(driver)
        assert 3 <= sum(bool((logits == NO_OBJECT_LOGIT).all()) for logits in answers.values()) <= 9
        return answers

    network = random_network(a_config)
    always_there = Ours(network, random_slices(12, a_config))
    story(always_there)
    scores = [entry.object_score for entry in always_there.bank.tracked[1].values()]
    shift_object_score(network, -float(torch.cat(scores).mean()))
    assert_same_story(reference, network, story_with_absences)


@references
def test_memories_rounded_to_bfloat16(reference: type[Driver], a_network: SAM2) -> None:
    """As they are kept outside these tests. A value on the edge of two roundings moves the logits of later slices."""

    def story(driver: Driver) -> dict[int, Tensor]:
        driver.prompt(0, BOX)
        return driver.propagate(range(8))

    assert_same_story(reference, a_network, story, memory_dtype=torch.bfloat16, tolerance=1e-3)


@pytest.mark.slow
@references
def test_medsam2_at_full_size(reference: type[Driver]) -> None:
    def story(driver: Driver) -> dict[int, Tensor]:
        driver.prompt(0, points((120, 160, 2), (360, 400, 3)))
        return driver.propagate(range(9))

    assert_same_story(reference, random_network(network_config("medsam2")), story, count=9)
