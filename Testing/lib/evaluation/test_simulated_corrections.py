from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest

from MedSAM2Lib.evaluation.corrections import CorrectionKind, next_correction, worst_slice
from MedSAM2Lib.prompts import Box, MaskPrompt, Points

SPACING = (1.0, 1.0, 3.0)


def a_click(mask: npt.NDArray[np.bool_], reference: npt.NDArray[np.bool_], spacing: tuple[float, float, float]) -> Points | None:
    click = next_correction(mask, reference, spacing)
    assert click is None or isinstance(click, Points)
    return click


def a_reference() -> npt.NDArray[np.bool_]:
    reference = np.zeros((5, 20, 20), dtype=np.bool_)
    reference[1:4, 5:15, 5:15] = True
    return reference


def test_something_missing_gets_a_positive_click_in_its_middle() -> None:
    mask = a_reference()
    mask[2, 5:10, 5:15] = False
    click = a_click(mask, a_reference(), SPACING)
    assert click is not None
    assert (click.slice_index, click.labels) == (2, (True,))
    assert 5 < click.xs[0] < 14
    assert click.ys == (7,)


def test_something_too_much_gets_a_negative_click() -> None:
    mask = a_reference()
    mask[2, 16:19, 2:5] = True
    click = a_click(mask, a_reference(), SPACING)
    assert click is not None
    assert (click.slice_index, click.xs, click.ys, click.labels) == (2, (3,), (17,), (False,))


def test_of_several_errors_the_largest_is_clicked() -> None:
    mask = a_reference()
    mask[2, 5:7, 5:7] = False
    mask[2, 9:14, 9:14] = False
    click = a_click(mask, a_reference(), SPACING)
    assert click is not None
    assert (click.xs, click.ys) == ((11,), (11,))


def test_the_worst_slice_has_the_lowest_dice_and_of_missed_ones_the_largest() -> None:
    mask, reference = a_reference(), a_reference()
    reference[0, 8:10, 8:10] = True  # missed altogether, but small
    mask[3, 5:10] = False
    assert worst_slice(mask, reference) == 0
    mask[2] = False
    assert worst_slice(mask, reference) == 2


def test_the_worst_slice_by_area_has_most_wrong_pixels() -> None:
    mask, reference = a_reference(), a_reference()
    reference[0, 8:10, 8:10] = True
    mask[3, 5:10] = False
    assert worst_slice(mask, reference, "area") == 3


def test_where_nothing_is_wrong_there_is_no_click() -> None:
    assert next_correction(a_reference(), a_reference(), SPACING) is None


def test_the_worst_slice_can_be_boxed_or_painted_instead() -> None:
    mask, reference = a_reference(), a_reference()
    mask[2] = False
    assert next_correction(mask, reference, SPACING, kind="box") == Box(2, 5, 5, 14, 14)
    painted = next_correction(mask, reference, SPACING, kind="mask")
    assert isinstance(painted, MaskPrompt)
    assert painted.slice_index == 2
    assert np.array_equal(painted.mask, reference[2])


@pytest.mark.parametrize("kind", ["box", "mask"])
def test_where_the_object_is_not_there_it_is_clicked_away(kind: CorrectionKind) -> None:
    mask = a_reference()
    mask[4, 5:15, 5:15] = True
    click = next_correction(mask, a_reference(), SPACING, kind=kind)
    assert isinstance(click, Points)
    assert (click.slice_index, click.labels) == (4, (False,))
