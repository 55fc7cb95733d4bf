from __future__ import annotations

import math

import numpy as np
import pytest

from MedSAM2Lib.errors import PromptError, UsageError
from MedSAM2Lib.prompts import Box, Box3D, MaskPrompt, Points, RecistLine


def test_a_box_of_one_pixel_is_a_box() -> None:
    assert Box(0, 3, 4, 3, 4).x1 == 3


@pytest.mark.parametrize("corners", [(5, 0, 4, 9), (0, 9, 5, 8)])
def test_a_box_with_swapped_corners_is_refused(corners: tuple[float, float, float, float]) -> None:
    with pytest.raises(PromptError, match="swap the corners"):
        Box(0, *corners)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_coordinates_must_be_finite(bad: float) -> None:
    with pytest.raises(PromptError, match="finite"):
        Box(0, 0, 0, bad, 5)
    with pytest.raises(PromptError, match="finite"):
        Points(0, (bad,), (0,), (True,))
    with pytest.raises(PromptError, match="finite"):
        RecistLine(0, bad, 0, 1, 1)


@pytest.mark.parametrize(
    "make",
    [
        lambda: Box(-1, 0, 0, 1, 1),
        lambda: Points(-1, (0,), (0,), (True,)),
        lambda: MaskPrompt(-1, np.ones((2, 2), dtype=bool)),
        lambda: RecistLine(-1, 0, 0, 1, 1),
    ],
)
def test_slices_count_from_zero(make: object) -> None:
    with pytest.raises(PromptError, match="counts from 0"):
        make()  # type: ignore[operator]


@pytest.mark.parametrize(("xs", "ys", "labels"), [((), (), ()), ((1.0,), (1.0, 2.0), (True,)), ((1.0,), (1.0,), ())])
def test_points_need_as_many_labels_as_places(xs: tuple[float, ...], ys: tuple[float, ...], labels: tuple[bool, ...]) -> None:
    with pytest.raises(PromptError, match="as many"):
        Points(0, xs, ys, labels)


def test_an_empty_mask_is_no_prompt() -> None:
    with pytest.raises(PromptError, match="slice 3 is empty"):
        MaskPrompt(3, np.zeros((4, 4), dtype=bool))


def test_a_mask_prompt_is_one_slice() -> None:
    with pytest.raises(PromptError, match=r"\(1, 4, 4\)"):
        MaskPrompt(0, np.ones((1, 4, 4), dtype=bool))


def test_a_recist_line_becomes_the_square_of_its_length_around_its_middle() -> None:
    assert RecistLine(2, 10, 20, 16, 28).to_box() == Box(2, 8, 19, 18, 29)


def test_a_recist_line_needs_two_ends() -> None:
    with pytest.raises(PromptError, match="two different ends"):
        RecistLine(0, 5, 5, 5, 5)


def test_a_3d_box_stands_for_a_box_on_its_middle_slice() -> None:
    assert Box3D(4, 9, 1, 2, 3, 4).middle_box() == Box(6, 1, 2, 3, 4)


@pytest.mark.parametrize(("first", "last"), [(5, 4), (-1, 4)])
def test_a_3d_box_goes_from_a_first_to_a_last_slice(first: int, last: int) -> None:
    with pytest.raises(PromptError, match="first to a last"):
        Box3D(first, last, 0, 0, 1, 1)


def test_a_3d_box_with_swapped_corners_is_refused() -> None:
    with pytest.raises(PromptError, match="swap the corners"):
        Box3D(0, 4, 5, 0, 1, 1)


def test_a_wrong_prompt_is_a_wrong_use_of_the_program() -> None:
    assert issubclass(PromptError, UsageError)
    assert PromptError.exit_status == 2
