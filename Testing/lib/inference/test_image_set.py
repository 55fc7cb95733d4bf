"""Sets of single images: one prompt on one of them, all others from memory."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import islice
from typing import Any

import numpy as np
import pytest
import torch

from MedSAM2Lib.checkpoints.loading import LoadedModel, load_model
from MedSAM2Lib.errors import OptionError, PromptError, UsageError, VolumeError
from MedSAM2Lib.inference.image_set import ImageSet, ImageSetOptions
from MedSAM2Lib.intensity import apply_window, resolve_window
from MedSAM2Lib.memory.options import SelfSorting
from MedSAM2Lib.phantom import make_phantom
from MedSAM2Lib.prompts import Box, Box3D, MaskPrompt, Points, RecistLine
from MedSAM2Lib.volume_io.images import ImageOfSet
from Testing.lib.inference.support import Mask, box_around

PLAIN = ImageSetOptions(keep_largest=False, fill_hole_cells=0)
SIZES = ((40, 40), (60, 44), (36, 64), (48, 48))


def disc(rows: int, columns: int, shift: float = 0.0) -> Mask:
    """About a third of an image wide, near its middle."""
    y, x = np.ogrid[:rows, :columns]
    inside: Mask = ((y - rows / 2) / (0.3 * rows)) ** 2 + ((x - columns / 2 - shift) / (0.3 * columns)) ** 2 <= 1
    return inside


def drawn(rows: int, columns: int, number: int) -> ImageOfSet:
    """A bright disc in noise; every second image is in colour."""
    noise = np.random.default_rng(number).normal(0, 5, (rows, columns))
    grey = np.clip(np.where(disc(rows, columns, number), 220, 30) + noise, 0, 255).astype(np.uint8)
    pixels = np.stack((grey, grey // 2, grey // 3), axis=-1) if number % 2 else grey
    return ImageOfSet(f"{number}.png", pixels)


def dice(one: Mask, other: Mask) -> float:
    return 2 * float((one & other).sum()) / float(one.sum() + other.sum())


TRUTHS = [disc(*size, number) for number, size in enumerate(SIZES)]
BOX = box_around(TRUTHS[0], 0)


@pytest.fixture
def images() -> list[ImageOfSet]:
    return [drawn(*size, number) for number, size in enumerate(SIZES)]


@pytest.fixture
def a_set(a_seeing_model: LoadedModel, images: list[ImageOfSet]) -> ImageSet:
    return ImageSet(a_seeing_model, images, PLAIN)


def test_one_box_segments_images_of_all_sizes_and_colours(a_set: ImageSet) -> None:
    first = a_set.add_prompt("disc", BOX)
    assert dice(first.mask, TRUTHS[0]) > 0.9
    assert first.confidence.prompted
    assert a_set.image_mask("disc", 1) is None
    results = list(a_set.propagate())
    assert sorted(result.slice_index for result in results) == [1, 2, 3]
    for result in results:
        assert result.mask.shape == SIZES[result.slice_index]
        assert dice(result.mask, TRUTHS[result.slice_index]) > 0.9
        assert not result.confidence.prompted
        shown = a_set.image_mask("disc", result.slice_index)
        assert shown is not None
        np.testing.assert_array_equal(shown, result.mask)
    assert list(a_set.confidence("disc")) == [0, 1, 2, 3]


@pytest.mark.parametrize("memory", ["self-sorting", "recent", "self-sorting-random", "self-sorting-code", SelfSorting()])
def test_names_and_order_of_files_do_not_matter(a_model: LoadedModel, images: list[ImageOfSet], memory: Any) -> None:
    """With random weights each mask depends on all that is remembered."""

    def masks(order: list[int]) -> dict[int, Mask]:
        images_in_order = [images[number] for number in order]
        a_set = ImageSet(a_model, images_in_order, replace(PLAIN, memory=memory))
        a_set.add_prompt("disc", replace(BOX, slice_index=order.index(0)))
        return {order[result.slice_index]: result.mask for result in a_set.propagate()}

    one, other = masks([0, 1, 2, 3]), masks([2, 3, 0, 1])
    assert list(one) == list(other)
    assert any(mask.any() for mask in one.values())
    for number, mask in one.items():
        np.testing.assert_array_equal(mask, other[number])


def test_an_image_is_seen_by_itself(a_model: LoadedModel, images: list[ImageOfSet]) -> None:
    """A network that sees neighbouring slices has none here: its channels are the image's."""
    config = replace(a_model.network.config, neighbour_channels=True)
    network = type(a_model.network)(config).eval().requires_grad_(False)
    network.load_state_dict(a_model.network.state_dict())
    masks = [
        [result.mask for result in prompted(ImageSet(model, images, PLAIN)).propagate()]
        for model in (a_model, replace(a_model, network=network))
    ]
    for one, other in zip(*masks, strict=True):
        np.testing.assert_array_equal(one, other)


def prompted(a_set: ImageSet) -> ImageSet:
    a_set.add_prompt("disc", BOX)
    return a_set


def test_a_zoomed_set_looks_where_the_prompt_was(a_seeing_model: LoadedModel, images: list[ImageOfSet]) -> None:
    a_set = prompted(ImageSet(a_seeing_model, images, replace(PLAIN, zoom=1)))
    for result in a_set.propagate():
        assert dice(result.mask, TRUTHS[result.slice_index]) > 0.9
    views = [a_set._objects["disc"].answers[number].view for number in range(4)]
    assert all(view.height < rows or view.width < columns for view, (rows, columns) in zip(views, SIZES, strict=True))


def test_a_mask_that_reaches_the_edge_of_the_view_widens_it(a_seeing_model: LoadedModel, images: list[ImageOfSet]) -> None:
    a_set = ImageSet(a_seeing_model, images, replace(PLAIN, zoom=1))
    result = a_set.add_prompt("disc", Box(0, 18, 18, 22, 22))  # much smaller than the disc
    assert dice(result.mask, TRUTHS[0]) > 0.9


def test_a_click_is_answered_on_the_whole_image_and_followed_closely(
    a_seeing_model: LoadedModel, images: list[ImageOfSet]
) -> None:
    a_set = ImageSet(a_seeing_model, images, replace(PLAIN, zoom=1))
    a_set.add_prompt("disc", Points(0, (20.0,), (20.0,), (True,)))
    answers = a_set._objects["disc"].answers
    assert (answers[0].view.height, answers[0].view.width) == SIZES[0]
    list(a_set.propagate())
    assert answers[3].view.height < SIZES[3][0]


def test_every_prompted_image_is_seen_around_its_prompt(a_seeing_model: LoadedModel, images: list[ImageOfSet]) -> None:
    a_set = ImageSet(a_seeing_model, images, replace(PLAIN, zoom=1))
    a_set.add_prompt("disc", Box(0, 2, 2, 9, 9))
    box = box_around(TRUTHS[3], 3)
    a_set.add_prompt("disc", box)
    assert a_set._objects["disc"].answers[3].view.shows((box.x0, box.y0, box.x1, box.y1))


def test_every_propagation_starts_from_the_prompts(a_model: LoadedModel, images: list[ImageOfSet]) -> None:
    a_set = prompted(ImageSet(a_model, images, PLAIN))
    passes = [[result.mask for result in a_set.propagate()] for _ in range(2)]
    for one, other in zip(*passes, strict=True):
        np.testing.assert_array_equal(one, other)


def test_prompts_on_more_images_and_objects(a_set: ImageSet) -> None:
    a_set.add_prompt("disc", BOX)
    a_set.add_prompt("rest", RecistLine(2, 3, 3, 9, 9))
    a_set.add_prompt("disc", box_around(TRUTHS[3], 3))
    assert sorted(a_set.plan(["disc"])) == [("disc", 1), ("disc", 2)]
    assert sorted(a_set.plan()) == [("disc", 1), ("disc", 2), ("rest", 0), ("rest", 1), ("rest", 3)]


def test_clicks_add_to_the_box_of_their_image(a_model: LoadedModel, images: list[ImageOfSet]) -> None:
    a_set = ImageSet(a_model, images, PLAIN)
    box = a_set.add_prompt("disc", BOX).mask
    clicked = a_set.add_prompt("disc", Points(0, (20.0,), (20.0,), (True,))).mask
    assert (box != clicked).any()
    boxed_again = a_set.add_prompt("disc", BOX).mask
    np.testing.assert_array_equal(boxed_again, box)


def test_a_painted_mask_is_kept_to_the_pixel(a_set: ImageSet) -> None:
    painted = TRUTHS[1] & (np.arange(44) > 20)
    np.testing.assert_array_equal(a_set.add_prompt("half", MaskPrompt(1, painted)).mask, painted)
    list(a_set.propagate())
    shown = a_set.image_mask("half", 1)
    assert shown is not None
    np.testing.assert_array_equal(shown, painted)


def test_stopping_keeps_what_was_yielded(a_set: ImageSet) -> None:
    a_set.add_prompt("disc", BOX)
    (result,) = islice(a_set.propagate(), 1)
    assert list(a_set.confidence("disc")) == sorted([0, result.slice_index])


def test_only_the_largest_piece_is_kept_on_request(a_seeing_model: LoadedModel, images: list[ImageOfSet]) -> None:
    stray = images[0].pixels.copy()
    stray[:4, :4] = 255
    a_set = ImageSet(a_seeing_model, [ImageOfSet("stray", stray)], replace(PLAIN, keep_largest=True))
    mask = a_set.add_prompt("disc", BOX).mask
    assert not mask[:4, :4].any()
    assert mask.any()


BAD: dict[str, tuple[Callable[[], Any], tuple[str, ...]]] = {
    "no such image": (lambda: replace(BOX, slice_index=4), ("image index", "0..3", "4 came", "another image")),
    "beside the image": (lambda: Box(0, 5, 5, 60, 20), ("on the image", "0..39", "60,20 came", "another image?")),
    "beside this image": (lambda: Points(2, (60.0,), (40.0,), (True,)), ("0..63", "0..35", "60,40 came")),
    "mask of another image": (lambda: MaskPrompt(1, TRUTHS[0]), ("(60, 44)", "(40, 40)", "another image?")),
    "3D box": (lambda: Box3D(0, 1, 5, 5, 9, 9), ("3D box needs a volume", "single images")),
}


@pytest.mark.parametrize(("make", "words"), BAD.values(), ids=BAD)
def test_a_bad_prompt_is_refused_and_changes_nothing(a_set: ImageSet, make: Callable[[], Any], words: tuple[str, ...]) -> None:
    a_set.add_prompt("disc", BOX)
    before = a_set._objects.copy()
    for name in ("disc", "new"):
        with pytest.raises(PromptError) as refused:
            a_set.add_prompt(name, make())
        assert all(word in str(refused.value) for word in words), str(refused.value)
        assert a_set._objects == before


def test_what_is_not_there_cannot_be_asked_for(a_set: ImageSet, a_model: LoadedModel) -> None:
    with pytest.raises(UsageError, match="nothing to propagate yet"):
        a_set.propagate()
    with pytest.raises(PromptError, match="needs a name"):
        a_set.add_prompt("", BOX)
    for call in (lambda: a_set.image_mask("kidney", 0), lambda: a_set.confidence("kidney"), lambda: a_set.plan(["kidney"])):
        with pytest.raises(OptionError, match="no object 'kidney'; objects are: none yet"):
            call()
    with pytest.raises(VolumeError, match="at least one image"):
        ImageSet(a_model, [])


@pytest.mark.parametrize("options", [{"zoom": 0.5}, {"memory": "oldest"}, {"fill_hole_cells": -1}, {"cache_bytes": -1}])
def test_options_that_make_no_sense_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(OptionError, match=r"but .* came"):
        ImageSetOptions(**options)


# ── the network that is shipped ───────────────────────────────────────────────────────────────────────────────────────


def test_the_shipped_network_finds_an_organ_on_images_of_other_sizes_in_any_order() -> None:
    phantom = make_phantom(0)
    truth, window = phantom.structures["liver"], resolve_window("auto", phantom.volume)
    largest = int(truth.sum((1, 2)).argmax())
    shown = [largest, *(largest + step for step in (5, -4, 3, -5))]
    cropped = [(slice(0, 128 - 4 * number), slice(number, 128 - number)) for number in range(len(shown))]
    pictures = [apply_window(phantom.volume.array[k][part], window) for k, part in zip(shown, cropped, strict=True)]
    truths = [truth[k][part] for k, part in zip(shown, cropped, strict=True)]
    images = ImageSet(load_model("nano", torch.device("cpu")), [ImageOfSet(f"{n}.png", one) for n, one in enumerate(pictures)])
    images.add_prompt("liver", box_around(truths[0], 0))
    for result in images.propagate():
        assert dice(result.mask, truths[result.slice_index]) > 0.7
