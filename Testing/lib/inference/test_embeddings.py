"""Image features: encoded once, kept within a budget."""

from __future__ import annotations

import weakref
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import numpy.typing as npt
import pytest
import torch

from MedSAM2Lib.benchmark.subject import random_network
from MedSAM2Lib.checkpoints.loading import LoadedModel
from MedSAM2Lib.frames import View, normalise, slice_to_frame
from MedSAM2Lib.inference.embeddings import Embeddings
from MedSAM2Lib.network.sam2 import SAM2, ImageFeatures
from Testing.lib.network.parity.weights import SMALL

COUNT, SIDE = 6, 40
WHOLE, PART = View.whole(SIDE, SIDE), View(5, 5, 20, 20)
PLENTY = 2**30


@pytest.fixture(autouse=True)
def _no_grad() -> Iterator[None]:
    with torch.inference_mode():
        yield


@pytest.fixture(scope="module")
def slices() -> npt.NDArray[np.uint8]:
    return np.random.default_rng(0).integers(0, 255, (COUNT, SIDE, SIDE)).astype(np.uint8)


@pytest.fixture
def a_network(a_model: LoadedModel) -> SAM2:
    return a_model.network


def bytes_of(features: ImageFeatures) -> int:
    return sum(level.nbytes for level in features)


def same(one: ImageFeatures, other: ImageFeatures) -> bool:
    return all(torch.equal(mine, theirs) for mine, theirs in zip(one, other, strict=True))


def test_a_slice_is_encoded_once_per_view(a_network: SAM2, slices: npt.NDArray[np.uint8]) -> None:
    embeddings = Embeddings(a_network, slices.__getitem__, COUNT, byte_budget=PLENTY)
    first = embeddings.features(2, WHOLE)
    assert embeddings.features(2, WHOLE) is first
    assert embeddings.encoded == 1
    embeddings.features(2, PART)
    assert embeddings.encoded == 2


def test_the_least_recently_used_goes_first(a_network: SAM2, slices: npt.NDArray[np.uint8]) -> None:
    one = bytes_of(Embeddings(a_network, slices.__getitem__, COUNT, byte_budget=0).features(0, WHOLE))
    embeddings = Embeddings(a_network, slices.__getitem__, COUNT, byte_budget=2 * one)
    for index in (0, 1, 0, 2):  # 1 goes when 2 comes
        embeddings.features(index, WHOLE)
    assert embeddings.encoded == 3
    embeddings.features(0, WHOLE)
    assert embeddings.encoded == 3
    embeddings.features(1, WHOLE)
    assert embeddings.encoded == 4


def test_without_a_budget_features_are_those_of_a_large_one(a_network: SAM2, slices: npt.NDArray[np.uint8]) -> None:
    poor = Embeddings(a_network, slices.__getitem__, COUNT, byte_budget=0)
    rich = Embeddings(a_network, slices.__getitem__, COUNT, byte_budget=PLENTY)
    for index in (0, 1, 0):
        assert same(poor.features(index, PART), rich.features(index, PART))
    assert (poor.encoded, rich.encoded) == (3, 2)


def test_a_batch_is_encoded_when_its_first_slice_is_missing(a_network: SAM2, slices: npt.NDArray[np.uint8]) -> None:
    embeddings = Embeddings(a_network, slices.__getitem__, COUNT, byte_budget=PLENTY, batch=3)
    embeddings.prefetch([0, 1, 2, 3, 4], WHOLE)
    assert embeddings.encoded == 3
    embeddings.prefetch([2, 3, 4], WHOLE)  # smaller batches one after the other would waste the device
    assert embeddings.encoded == 3
    embeddings.prefetch([3, 2, 4], WHOLE)
    assert embeddings.encoded == 5
    for index in range(5):
        embeddings.features(index, WHOLE)
    assert embeddings.encoded == 5


def test_one_at_a_time_nothing_is_fetched_ahead(a_network: SAM2, slices: npt.NDArray[np.uint8]) -> None:
    embeddings = Embeddings(a_network, slices.__getitem__, COUNT, byte_budget=PLENTY)
    embeddings.prefetch([0, 1, 2], WHOLE)
    embeddings.prefetch([], WHOLE)
    assert embeddings.encoded == 0


def test_a_batch_gives_the_features_of_its_slices(a_network: SAM2, slices: npt.NDArray[np.uint8]) -> None:
    batched = Embeddings(a_network, slices.__getitem__, COUNT, byte_budget=0, batch=3)
    single = Embeddings(a_network, slices.__getitem__, COUNT, byte_budget=0)
    batched.prefetch([3, 1, 4], WHOLE)
    for index in (3, 1, 4):
        for mine, theirs in zip(batched.features(index, WHOLE), single.features(index, WHOLE), strict=True):
            torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=1e-4)
    assert batched.encoded == 3  # a batch that is larger than the budget is kept as long as it is the last


def test_features_of_a_batch_do_not_keep_the_batch_alive(a_network: SAM2, slices: npt.NDArray[np.uint8]) -> None:
    embeddings = Embeddings(a_network, slices.__getitem__, COUNT, byte_budget=PLENTY, batch=3)
    embeddings.prefetch([0, 1, 2], WHOLE)
    for level in embeddings.features(1, WHOLE):
        assert level.untyped_storage().nbytes() == level.nbytes


def test_a_slice_that_cannot_be_read_leaves_the_others(a_network: SAM2, slices: npt.NDArray[np.uint8]) -> None:
    embeddings = Embeddings(a_network, slices.__getitem__, COUNT, byte_budget=PLENTY, batch=2)
    kept = embeddings.features(0, WHOLE)
    with pytest.raises(IndexError):
        embeddings.prefetch([COUNT, 1], WHOLE)
    assert embeddings.features(0, WHOLE) is kept
    assert embeddings.encoded == 1


# ── neighbours ────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture(scope="module")
def a_network_with_neighbours() -> SAM2:
    return random_network(replace(SMALL, image_size=64, neighbour_channels=True))


@pytest.mark.parametrize(
    ("index", "direction", "shown"),
    [(2, 1, (1, 2, 3)), (2, -1, (3, 2, 1)), (0, 1, (0, 0, 1)), (0, -1, (1, 0, 0)), (5, 1, (4, 5, 5)), (5, -1, (5, 5, 4))],
)
def test_a_network_that_wants_neighbours_sees_before_slice_and_after_in_the_direction_of_the_pass(
    a_network_with_neighbours: SAM2,
    slices: npt.NDArray[np.uint8],
    index: int,
    direction: int,
    shown: tuple[int, int, int],
) -> None:
    """At the ends of the volume the slice itself stands for the neighbour that is missing."""
    embeddings = Embeddings(a_network_with_neighbours, slices.__getitem__, COUNT, byte_budget=PLENTY)
    frame = normalise(torch.cat([slice_to_frame(slices[other], PART, 64) for other in shown])[None])
    assert same(embeddings.features(index, PART, direction), a_network_with_neighbours.encode_image(frame))


def test_only_a_network_that_wants_neighbours_sees_the_direction(
    a_network: SAM2, a_network_with_neighbours: SAM2, slices: npt.NDArray[np.uint8]
) -> None:
    for network, encoded in ((a_network, 1), (a_network_with_neighbours, 2)):
        embeddings = Embeddings(network, slices.__getitem__, COUNT, byte_budget=PLENTY)
        up, down = embeddings.features(2, WHOLE, 1), embeddings.features(2, WHOLE, -1)
        assert (embeddings.encoded, same(up, down)) == (encoded, encoded == 1)


def test_a_batch_with_neighbours_gives_the_features_of_its_slices(
    a_network_with_neighbours: SAM2, slices: npt.NDArray[np.uint8]
) -> None:
    batched, single = (
        Embeddings(a_network_with_neighbours, slices.__getitem__, COUNT, byte_budget=PLENTY, batch=3) for _ in range(2)
    )
    batched.prefetch([5, 4, 3], WHOLE, -1)
    assert batched.encoded == 3
    for index in (5, 4, 3):
        for mine, theirs in zip(batched.features(index, WHOLE, -1), single.features(index, WHOLE, -1), strict=True):
            torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=1e-4)
    assert batched.encoded == 3


def test_a_slice_is_drawn_once_also_as_a_neighbour(slices: npt.NDArray[np.uint8]) -> None:
    drawn: list[int] = []

    def draw(index: int) -> npt.NDArray[np.uint8]:
        drawn.append(index)
        return slices[index]

    embeddings = Embeddings(random_network(replace(SMALL, neighbour_channels=True)), draw, COUNT, byte_budget=PLENTY)
    for index in range(COUNT):
        embeddings.features(index, WHOLE)
    assert drawn == list(range(COUNT))


def test_features_go_with_the_last_who_holds_them(a_network: SAM2, slices: npt.NDArray[np.uint8]) -> None:
    embeddings = Embeddings(a_network, slices.__getitem__, COUNT, byte_budget=PLENTY)
    level = weakref.ref(embeddings.features(2, WHOLE).stride4)
    del embeddings  # no cycle that would wait, with gigabytes, for the garbage collector
    assert level() is None
