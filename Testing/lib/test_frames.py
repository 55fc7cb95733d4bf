from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
import torch
from PIL import Image
from torch import Tensor

from MedSAM2Lib.frames import (
    MINIMUM_SIDE,
    OUTSIDE_LOGIT,
    PIXEL_MEAN,
    PIXEL_STD,
    View,
    logits_to_frame,
    logits_to_slice,
    mask_to_frame,
    normalise,
    slice_to_frame,
)

ROWS, COLUMNS = 200, 300


def grey_levels(frame: Tensor) -> npt.NDArray[np.float64]:
    """A (1, S, S) frame of 0..1 back to grey values 0..255."""
    assert frame.ndim == 3
    levels: npt.NDArray[np.float64] = (frame[0] * 255).double().numpy()
    return levels


@pytest.fixture
def a_slice() -> npt.NDArray[np.uint8]:
    """Noise over a ramp, with black and white patches whose edges a bicubic filter overshoots."""
    rng = np.random.default_rng(0)
    pixels = np.linspace(0, 200, ROWS)[:, None] + rng.integers(0, 55, (ROWS, COLUMNS))
    pixels[50:80, 60:90], pixels[50:80, 90:120] = 0, 255
    return pixels.astype(np.uint8)


# ── where a view lies ─────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_view_around_a_box_is_a_square_with_the_box_in_its_middle() -> None:
    assert View.around((140, 95, 159, 104), 3, ROWS, COLUMNS) == View(row=70, column=120, height=60, width=60)


@pytest.mark.parametrize("box", [(0, 0, 19, 9), (280, 190, 299, 199), (290, 0, 299, 19)])
def test_a_view_around_a_box_at_the_edge_stays_on_the_slice(box: tuple[float, float, float, float]) -> None:
    view = View.around(box, 3, ROWS, COLUMNS)
    assert view.height == view.width == 60
    assert 0 <= view.row <= ROWS - view.height
    assert 0 <= view.column <= COLUMNS - view.width


def test_a_view_reaches_beyond_the_slice_only_where_the_slice_is_too_narrow() -> None:
    view = View.around((100, 80, 189, 99), 2.5, ROWS, COLUMNS)  # 225 wide on 200 rows
    assert view.row < 0
    assert view.row + view.height > ROWS
    assert 0 <= view.column <= COLUMNS - view.width


def test_a_view_as_large_as_the_slice_is_the_whole_slice() -> None:
    assert View.around((0, 0, 149, 9), 2, ROWS, COLUMNS) == View.whole(ROWS, COLUMNS)


def test_a_view_of_a_single_pixel_still_shows_some_surroundings() -> None:
    assert View.around((100, 100, 100, 100), 2, ROWS, COLUMNS).width == MINIMUM_SIDE


def test_a_widened_view_shows_all_it_showed_before() -> None:
    narrow = View.around((140, 95, 159, 104), 2, ROWS, COLUMNS)
    wide = narrow.widened((100, 95, 159, 104), 1.5, ROWS, COLUMNS)
    assert wide.width >= 1.5 * narrow.width
    assert wide.row <= narrow.row
    assert wide.column <= min(narrow.column, 100)
    assert wide.row + wide.height >= narrow.row + narrow.height
    assert wide.column + wide.width >= narrow.column + narrow.width


def test_a_view_cuts_a_mask_at_an_edge_beyond_which_the_slice_goes_on() -> None:
    mask = np.zeros((ROWS, COLUMNS), dtype=bool)
    mask[0:20, 100:110] = True
    assert not View(0, 90, 40, 40).cuts(mask)  # touches the slice's own edge
    assert View(0, 90, 20, 20).cuts(mask)
    assert View(0, 100, 40, 40).cuts(mask)


def test_a_view_shows_what_lies_within_it_to_half_a_pixel() -> None:
    view = View(row=10, column=20, height=30, width=40)
    assert view.shows((20, 10, 59, 39))
    assert view.shows((19.5, 9.5, 59.5, 39.5))
    for beyond in ((19, 10, 59, 39), (20, 9, 59, 39), (20, 10, 60, 39), (20, 10, 59, 40), (70, 50, 80, 60)):
        assert not view.shows(beyond)


# ── coordinates ───────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_slice_of_the_networks_size_keeps_its_coordinates() -> None:
    view = View.whole(128, 128)
    np.testing.assert_allclose(
        view.to_frame([0.0, 17.5, 127.0], [0.0, 3.0, 127.0], 128), [[0.0, 0.0], [17.5, 3.0], [127.0, 127.0]]
    )
    np.testing.assert_allclose(view.box_to_frame((10, 20, 30, 40), 128), [[10, 20], [30, 40]])


def test_pixel_centres_stay_pixel_centres() -> None:
    view = View(row=10, column=20, height=64, width=64)
    # The first pixel of the view covers four pixels of the network's image, 0..3, whose centre is 1.5.
    np.testing.assert_allclose(view.to_frame([20], [10], 256), [[1.5, 1.5]])


def test_a_box_covers_the_same_region_at_every_size() -> None:
    view = View(row=10, column=20, height=64, width=64)
    # Columns 20..23 and rows 12..12 of the slice are columns 0..15 and rows 8..11 of an image four times as large.
    np.testing.assert_allclose(view.box_to_frame((20, 12, 23, 12), 256), [[0, 8], [15, 11]])


def test_a_stretched_slice_scales_each_axis_by_itself() -> None:
    np.testing.assert_allclose(View.whole(64, 128).to_frame([127.5], [63.5], 256), [[255.5, 255.5]])


# ── images ────────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("size", [128, 512])
def test_a_slice_is_resized_as_pil_does_it(a_slice: npt.NDArray[np.uint8], size: int) -> None:
    """MedSAM2's scripts resize eight-bit slices with PIL; its intermediate rounding is worth one grey level."""
    theirs = np.asarray(Image.fromarray(a_slice).resize((size, size), Image.Resampling.BICUBIC))
    ours = grey_levels(slice_to_frame(a_slice, View.whole(ROWS, COLUMNS), size))
    assert np.abs(ours - theirs).max() <= 1.001


def test_a_slice_of_the_networks_size_is_not_resized(a_slice: npt.NDArray[np.uint8]) -> None:
    square = a_slice[:128, :128]
    np.testing.assert_allclose(grey_levels(slice_to_frame(square, View.whole(128, 128), 128)), square, atol=1e-3)


def test_beyond_the_slice_a_view_is_black(a_slice: npt.NDArray[np.uint8]) -> None:
    levels = grey_levels(slice_to_frame(a_slice, View(row=-64, column=0, height=128, width=128), 128))
    np.testing.assert_allclose(levels[:64], 0, atol=1e-3)
    np.testing.assert_allclose(levels[64:], a_slice[:64, :128], atol=1e-3)


def test_grey_serves_as_all_three_channels_and_each_has_imagenets_statistics() -> None:
    grey, colours = torch.rand(2, 1, 4, 4), torch.rand(2, 3, 4, 4)
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (PIXEL_MEAN, PIXEL_STD))
    torch.testing.assert_close(normalise(grey) * std + mean, grey.expand(2, 3, 4, 4))
    torch.testing.assert_close(normalise(colours) * std + mean, colours)


# ── masks ─────────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("view", [View.whole(ROWS, COLUMNS), View(30, 40, 120, 120), View(-20, 10, 240, 240)])
def test_a_mask_comes_back_from_the_network_where_it_was(view: View) -> None:
    mask = np.zeros((ROWS, COLUMNS), dtype=bool)
    mask[50:110, 60:130] = True
    logits = 20 * mask_to_frame(mask, view, 512)[None] - 10
    there_and_back = logits_to_slice(logits, view, ROWS, COLUMNS).numpy() > 0
    assert there_and_back.shape == mask.shape
    assert (there_and_back != mask).sum() <= 260  # of the 4200 pixels no more than the outline


def test_a_mask_too_fine_for_the_network_does_not_vanish() -> None:
    mask = np.zeros((ROWS, COLUMNS), dtype=bool)
    mask[120, 90:94] = True  # a hair: of the network's pixels, 3 x 2 of the slice's, it covers a fifth
    frame = mask_to_frame(mask, View.whole(ROWS, COLUMNS), 100)[0]
    assert 1 <= frame.sum() <= 2
    assert frame[60, 30:32].any()
    assert set(frame.unique().tolist()) == {0, 1}


def test_an_empty_mask_stays_empty() -> None:
    assert not mask_to_frame(np.zeros((ROWS, COLUMNS), dtype=bool), View(10, 10, 60, 60), 32).any()


def test_outside_its_view_an_object_is_ruled_out() -> None:
    shown = logits_to_slice(torch.ones(1, 1, 32, 32), View(20, 30, 64, 64), ROWS, COLUMNS)
    assert (shown[20:84, 30:94] == 1).all()
    assert (shown == OUTSIDE_LOGIT).sum() == ROWS * COLUMNS - 64 * 64


@pytest.mark.parametrize("view", [View.whole(ROWS, COLUMNS), View(30, 40, 120, 120)])
def test_logits_survive_the_way_to_the_slice_and_back(view: View) -> None:
    ramp = torch.linspace(-8, 8, 32).view(1, 1, 1, 32).expand(1, 1, 32, 32)
    back = logits_to_frame(logits_to_slice(ramp, view, ROWS, COLUMNS), view, 32)
    torch.testing.assert_close(back[..., 1:-1], ramp[..., 1:-1], atol=0.02, rtol=0)


def test_another_view_sees_the_same_logits() -> None:
    """What lies in both views keeps its sign; what only the new view shows is background."""
    narrow, wide = View(50, 50, 64, 64), View(34, 34, 96, 96)
    logits = torch.full((1, 1, 32, 32), 5.0)
    seen = logits_to_frame(logits_to_slice(logits, narrow, ROWS, COLUMNS), wide, 48)[0, 0]
    assert (seen[9:39, 9:39] > 4.9).all()
    assert (seen[:7] < -31).all()
    assert (seen[:, 41:] < -31).all()
