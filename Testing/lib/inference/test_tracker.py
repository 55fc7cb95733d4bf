"""What the tracker remembers. What it computes is compared with the reference implementations in `network/parity`."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

from MedSAM2Lib.benchmark.subject import random_network
from MedSAM2Lib.frames import View
from MedSAM2Lib.inference.tracker import Tracker
from MedSAM2Lib.memory.bank import RecentBank
from MedSAM2Lib.memory.entry import MemoryEntry
from MedSAM2Lib.network.sam2 import SAM2, ImageFeatures
from Testing.lib.network.parity.drivers import points
from Testing.lib.network.parity.weights import SMALL, random_slices

BOX = points((30, 40, 2), (90, 100, 3))
CLICK = points((50, 60, 1))
COUNT = 6
NARROW, WIDE = View(10, 10, 20, 20), View(0, 0, 40, 40)


@pytest.fixture(autouse=True)
def _no_grad() -> Iterator[None]:
    with torch.no_grad():
        yield


@pytest.fixture(scope="module")
def a_network() -> SAM2:
    return random_network(SMALL)


@pytest.fixture(scope="module")
def features(a_network: SAM2) -> list[ImageFeatures]:
    with torch.no_grad():
        encoded = a_network.encode_image(random_slices(COUNT, SMALL))
    return [encoded.row(index) for index in range(COUNT)]


@pytest.fixture
def a_bank() -> RecentBank:
    return RecentBank(SMALL.memory_slots, SMALL.max_object_pointers)


@pytest.fixture
def a_tracker(a_network: SAM2, a_bank: RecentBank) -> Tracker:
    return Tracker(a_network, a_bank, COUNT)


def test_a_prompted_slice_waits_for_the_next_pass_to_become_conditioning(
    a_tracker: Tracker, features: list[ImageFeatures]
) -> None:
    a_tracker.prompt(0, features[0], BOX)
    assert not a_tracker.bank.conditioning
    a_tracker.start_pass(1)
    assert list(a_tracker.bank.conditioning) == [0]


def test_tracking_without_a_new_pass_sees_the_last_prompts_too(a_tracker: Tracker, features: list[ImageFeatures]) -> None:
    a_tracker.prompt(0, features[0], BOX)
    a_tracker.track(1, features[1], 1)
    assert list(a_tracker.bank.conditioning) == [0]
    assert not a_tracker.pending


def test_of_several_prompts_on_a_slice_the_last_is_remembered(a_tracker: Tracker, features: list[ImageFeatures]) -> None:
    a_tracker.prompt(0, features[0], BOX)
    last = a_tracker.prompt(0, features[0], CLICK)
    a_tracker.start_pass(1)
    assert torch.equal(a_tracker.bank.conditioning[0].pointer, last.pointer)


def test_a_slice_prompted_before_any_pass_sees_no_memory(
    a_network: SAM2, a_tracker: Tracker, features: list[ImageFeatures]
) -> None:
    a_tracker.prompt(0, features[0], BOX)
    second = a_tracker.prompt(3, features[3], BOX)
    alone = a_network.predict(a_network.without_memory(features[3].stride16), features[3], BOX)
    assert torch.equal(second.logits, alone.logits)


def test_a_prompted_slice_that_is_prompted_again_after_a_pass_sees_memories(
    a_network: SAM2, a_tracker: Tracker, features: list[ImageFeatures]
) -> None:
    a_tracker.prompt(0, features[0], BOX)
    a_tracker.start_pass(1)
    a_tracker.track(1, features[1], 1)
    again = a_tracker.prompt(0, features[0], CLICK)
    alone = a_network.predict(a_network.without_memory(features[0].stride16), features[0], CLICK)
    assert not torch.equal(again.logits, alone.logits)


def test_passes_do_not_depend_on_earlier_passes(a_tracker: Tracker, features: list[ImageFeatures]) -> None:
    def upwards() -> list[Tensor]:
        a_tracker.start_pass(1)
        return [a_tracker.track(index, features[index], 1).logits for index in range(1, COUNT)]

    a_tracker.prompt(0, features[0], BOX)
    assert all(torch.equal(first, second) for first, second in zip(upwards(), upwards(), strict=True))


def test_memories_are_kept_in_bfloat16_unless_asked_otherwise(
    a_network: SAM2, a_tracker: Tracker, features: list[ImageFeatures]
) -> None:
    exact = Tracker(a_network, RecentBank(7, 16), COUNT, memory_dtype=None)
    for tracker, dtype in ((a_tracker, torch.bfloat16), (exact, torch.float32)):
        tracker.prompt(0, features[0], BOX)
        tracker.start_pass(1)
        assert tracker.bank.conditioning[0].map.dtype == dtype


def test_memories_of_another_view_than_the_slices_are_stale(
    a_tracker: Tracker, a_bank: RecentBank, features: list[ImageFeatures]
) -> None:
    a_tracker.prompt(0, features[0], BOX, view=WIDE)
    for index in range(1, COUNT):
        a_tracker.track(index, features[index], 1, view=NARROW if index == 3 else WIDE)
    assert [entry.slice_index for entry in a_tracker.stale(COUNT, features[0], 1, WIDE)] == [3]
    other = a_bank.tracked[1][2]
    a_bank.renew(MemoryEntry(3, other.map, other.pointer, other.iou, other.object_score, WIDE))
    assert not a_tracker.stale(COUNT, features[0], 1, WIDE)


def test_a_slice_prompted_anew_keeps_its_old_memory_until_the_next_pass(
    a_tracker: Tracker, a_bank: RecentBank, features: list[ImageFeatures]
) -> None:
    a_tracker.prompt(0, features[0], BOX, view=NARROW)
    a_tracker.start_pass(1)
    a_tracker.prompt(0, features[1], CLICK, view=WIDE)
    assert a_bank.conditioning[0].view == NARROW
    a_tracker.start_pass(1)
    assert a_bank.conditioning[0].view == WIDE


def test_a_pass_over_some_slices_forgets_only_their_memories(
    a_tracker: Tracker, a_bank: RecentBank, features: list[ImageFeatures]
) -> None:
    a_tracker.prompt(0, features[0], BOX)
    for index in range(1, COUNT):
        a_tracker.track(index, features[index], 1)
    a_tracker.start_pass(1, again={3, 4})
    assert list(a_bank.tracked[1]) == [1, 2, 5]


def test_a_memory_is_made_at_the_first_look_and_once(
    a_network: SAM2, a_tracker: Tracker, features: list[ImageFeatures], monkeypatch: pytest.MonkeyPatch
) -> None:
    made = []
    plain = a_network.encode_memory
    monkeypatch.setattr(a_network, "encode_memory", lambda *args: made.append(args) or plain(*args))  # type: ignore[func-returns-value]
    a_tracker.prompt(0, features[0], BOX)
    assert not made
    for index in (1, 2):
        a_tracker.track(index, features[index], 1)
    assert len(made) == 3


def test_a_copy_changes_alone(a_tracker: Tracker, a_bank: RecentBank, features: list[ImageFeatures]) -> None:
    a_tracker.prompt(0, features[0], BOX)
    copy = a_tracker.copy()
    copy.track(1, features[1], 1)
    copy.prompt(2, features[2], BOX)
    assert list(a_tracker.pending) == [0]
    assert not a_tracker.tracked_direction
    assert not a_bank.conditioning
    assert not a_bank.tracked[1]


def test_a_forgotten_slice_is_as_one_never_segmented(a_tracker: Tracker, features: list[ImageFeatures]) -> None:
    a_tracker.prompt(0, features[0], BOX)
    before = a_tracker.copy().prompt(1, features[1], CLICK).logits
    a_tracker.track(1, features[1], 1)
    seen = a_tracker.copy().prompt(1, features[1], CLICK).logits
    a_tracker.forget(1)
    after = a_tracker.prompt(1, features[1], CLICK).logits
    assert torch.equal(after, before)
    assert not torch.equal(seen, before)


class Recalling(SAM2):
    """Keeps what it is told of the object's looks, which are the mean of the slice's features."""

    recalled: list[float]

    def grey_profile(self, features: ImageFeatures, logits: Tensor) -> Tensor:
        return features.stride16.mean().view(1, 1)

    def recognised(self, features: ImageFeatures, profile: Tensor) -> ImageFeatures:
        self.recalled.append(float(profile))
        return features


@pytest.mark.parametrize(("ordered", "expected"), [(True, 1), (False, 0)])
def test_in_a_volume_the_nearest_prompt_says_what_an_object_looks_like_and_in_a_set_the_likest(
    a_bank: RecentBank, features: list[ImageFeatures], ordered: bool, expected: int
) -> None:
    network = Recalling(SMALL).eval()
    network.recalled = []
    tracker = Tracker(network, a_bank, COUNT, ordered=ordered)
    for index in range(2):
        tracker.prompt(index, features[index], BOX)
    tracker.track(2, features[0], 1)
    assert network.recalled == [float(features[expected].stride16.mean())]
