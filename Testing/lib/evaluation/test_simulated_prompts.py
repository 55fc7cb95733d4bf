from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest

from MedSAM2Lib.evaluation.manifest import Structure
from MedSAM2Lib.evaluation.prompting import (
    PROMPT_KINDS,
    deepest_point,
    longest_diameter,
    prompt_slices,
    reference_box,
    simulate_prompt,
    structure_generator,
)
from MedSAM2Lib.prompts import Box, MaskPrompt, Points, RecistLine

PLAIN = Structure("thing", (1,), None, None)
SQUARE = (1.0, 1.0)


def a_mask() -> npt.NDArray[np.bool_]:
    """(20, 30): rows 5..14, columns 8..23, without a corner."""
    mask = np.zeros((20, 30), dtype=np.bool_)
    mask[5:15, 8:24] = True
    mask[5:8, 20:] = False
    return mask


def a_reference() -> npt.NDArray[np.bool_]:
    """(9, 20, 30) on slices 2..6, largest on 5; its centre of mass is between."""
    reference = np.zeros((9, 20, 30), dtype=np.bool_)
    for k, width in ((2, 6), (3, 6), (4, 6), (5, 10), (6, 6)):
        reference[k, 5:10, 5 : 5 + width] = True
    return reference


def generator() -> np.random.Generator:
    return structure_generator(0, "case", "structure")


def test_the_suggested_slice_shows_most_and_the_centre_one_is_in_the_middle() -> None:
    assert prompt_slices(a_reference(), PLAIN, "suggested", None, generator()) == [5]
    assert prompt_slices(a_reference(), PLAIN, "centre", None, generator()) == [4]


def test_the_manifests_slice_goes_before() -> None:
    structure = Structure("thing", (1,), Box(3, 0, 0, 1, 1), Box(6, 0, 0, 1, 1))
    assert prompt_slices(a_reference(), structure, "suggested", None, generator()) == [3]
    assert prompt_slices(a_reference(), structure, "centre", None, generator()) == [6]


def test_a_slice_of_the_manifest_without_the_object_is_not_taken() -> None:
    structure = Structure("thing", (1,), Box(8, 0, 0, 1, 1), None)
    assert prompt_slices(a_reference(), structure, "suggested", None, generator()) == [5]


@pytest.mark.parametrize(("share", "count"), [(0.01, 1), (0.4, 2), (1.0, 5)])
def test_a_share_of_the_slices_is_drawn_among_those_with_the_object(share: float, count: int) -> None:
    slices = prompt_slices(a_reference(), PLAIN, "suggested", share, generator())
    assert len(slices) == count
    assert set(slices) <= {2, 3, 4, 5, 6}
    assert slices == prompt_slices(a_reference(), PLAIN, "suggested", share, generator())


def test_structures_get_prompts_of_their_own_that_do_not_depend_on_the_run() -> None:
    draws = [structure_generator(0, "case", name).random() for name in ("a", "b", "a")]
    assert draws[0] == draws[2] != draws[1]


@pytest.mark.parametrize("kind", PROMPT_KINDS)
def test_every_kind_of_prompt_lies_on_its_slice_and_on_the_object(kind: str) -> None:
    prompt = simulate_prompt(kind, 4, a_mask(), SQUARE, PLAIN, generator())  # type: ignore[arg-type]
    assert prompt.slice_index == 4
    kinds = {"point": Points, "mask": MaskPrompt, "recist": RecistLine}
    assert isinstance(prompt, kinds.get(kind, Box))


def test_the_given_box_is_taken_on_its_own_slice_only() -> None:
    given = Box(4, 7, 4, 24, 15)
    structure = Structure("thing", (1,), given, None)
    assert simulate_prompt("box", 4, a_mask(), SQUARE, structure, generator()) == given
    assert simulate_prompt("box", 5, a_mask(), SQUARE, structure, generator()) == Box(5, 8, 5, 23, 14)


def test_a_jittered_box_is_a_little_off_and_stays_on_the_slice() -> None:
    """Sides move by a fifth of the box at most, that is 3.2 columns and 2 rows."""
    for seed in range(20):
        box = simulate_prompt("jittered-box", 4, a_mask(), SQUARE, PLAIN, np.random.default_rng(seed))
        assert isinstance(box, Box)
        corners = np.array([box.x0, box.y0, box.x1, box.y1])
        moved = np.abs(corners - [8, 5, 23, 14])
        assert moved.max() > 0
        assert (moved <= [3.2, 2, 3.2, 2]).all()


def test_jitter_does_not_leave_the_slice() -> None:
    everything = np.ones((20, 30), dtype=np.bool_)
    for seed in range(20):
        box = simulate_prompt("jittered-box", 4, everything, SQUARE, PLAIN, np.random.default_rng(seed))
        assert isinstance(box, Box)
        assert min(box.x0, box.y0) >= 0
        assert box.x1 <= 29
        assert box.y1 <= 19


def test_the_box_is_tight() -> None:
    assert reference_box(a_mask(), 7) == Box(7, 8, 5, 23, 14)


def test_the_click_is_in_the_deepest_point() -> None:
    disc = np.hypot(*np.ogrid[-10:11, -12:13]) <= 6
    assert deepest_point(disc, SQUARE) == (10, 12)


def test_depth_counts_millimetres() -> None:
    mask = np.zeros((21, 41), dtype=np.bool_)
    mask[8:13, 2:23] = True  # 5 rows x 21 columns
    mask[0:21, 30:37] = True  # 21 rows x 7 columns
    assert deepest_point(mask, SQUARE)[1] == 33
    assert deepest_point(mask, (0.2, 1.0))[1] < 30  # columns are thin now: 1.4 mm against 5 mm of rows


def test_the_border_of_the_slice_is_an_edge() -> None:
    assert deepest_point(np.ones((9, 9), dtype=np.bool_), SQUARE) == (4, 4)


def test_the_diameter_is_the_longest_in_millimetres() -> None:
    mask = np.zeros((20, 30), dtype=np.bool_)
    mask[10, 5:15] = True
    mask[4:13, 9] = True
    assert sorted([longest_diameter(mask, SQUARE)[0], longest_diameter(mask, SQUARE)[2]]) == [5, 14]
    assert sorted([longest_diameter(mask, (0.5, 2.0))[1], longest_diameter(mask, (0.5, 2.0))[3]]) == [4, 12]


def test_a_single_pixel_has_a_line() -> None:
    mask = np.zeros((5, 5), dtype=np.bool_)
    mask[2, 3] = True
    assert longest_diameter(mask, SQUARE) == (2.5, 2, 3.5, 2)
    assert RecistLine(0, *longest_diameter(mask, SQUARE))
