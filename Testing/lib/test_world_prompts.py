"""Prompts in millimetres find their slices."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from MedSAM2Lib.errors import PromptError
from MedSAM2Lib.geometry import Geometry
from MedSAM2Lib.json_fields import MistakeError
from MedSAM2Lib.prompts import Box, Box3D, Points, Prompt, RecistLine
from MedSAM2Lib.slice_stack import SliceStack
from MedSAM2Lib.world_prompts import Kind, WorldPrompt, world_prompt_from_json, world_prompt_to_json

# Voxel (i, j, k) lies at LPS (10 - 2 j, 20 + i, 30 + 3 k).
GRID = Geometry((6, 8, 10), (1.0, 2.0, 3.0), (10.0, 20.0, 30.0), (0.0, -1.0, 0.0, 1.0, 0.0, 0.0, 0.0, 0.0, 1.0))
AXIAL = SliceStack.along(GRID, 0)
LOW, HIGH = (8.0, 22.0, 36.0), (4.0, 27.0, 36.0)  # (i, j, k) = (2, 1, 2) and (7, 3, 2)


@pytest.mark.parametrize(
    ("kind", "places", "expected"),
    [
        ("box", (LOW, HIGH), Box(2, 2, 1, 7, 3)),
        ("box", (HIGH, LOW), Box(2, 2, 1, 7, 3)),
        ("box", ((8.0, 22.0, 35.0), (4.0, 27.0, 37.9)), Box(2, 2, 1, 7, 3)),
        ("recist", (HIGH, LOW), RecistLine(2, 7, 3, 2, 1)),
        ("box3d", (LOW, (4.0, 27.0, 43.0)), Box3D(2, 4, 2, 1, 7, 3)),
    ],
)
def test_two_places_make_a_prompt_on_the_slice_between_them(kind: Kind, places: Any, expected: Prompt) -> None:
    assert WorldPrompt(kind, "lps", places).on(AXIAL) == [expected]
    as_slicer_has_it = tuple((-x, -y, z) for x, y, z in places)
    assert WorldPrompt(kind, "ras", as_slicer_has_it).on(AXIAL) == [expected]


def test_clicks_go_to_their_slices() -> None:
    clicks = WorldPrompt("points", "lps", (LOW, (4.0, 27.0, 42.0), HIGH), (True, False, False))
    assert clicks.on(AXIAL) == [Points(2, (2, 7), (1, 3), (True, False)), Points(4, (7,), (3,), (False,))]


def test_the_same_places_on_another_axis() -> None:
    assert WorldPrompt("points", "lps", (LOW,), (True,)).on(SliceStack.along(GRID, 1)) == [Points(1, (2,), (2,), (True,))]


def test_a_box_on_an_oblique_slice_has_its_corners_there() -> None:
    angle = np.deg2rad(25)
    right = (np.cos(angle), 0.0, np.sin(angle))
    stack = SliceStack.oblique(GRID, right, (0, 1, 0), GRID.index_to_world((5, 4, 3)))
    corners = stack.to_world([(3, 4, 2), (6, 9, 2)])
    (box,) = WorldPrompt("box", "lps", tuple(map(tuple, corners.tolist()))).on(stack)
    assert isinstance(box, Box)
    np.testing.assert_allclose((box.slice_index, box.x0, box.y0, box.x1, box.y1), (2, 3, 4, 6, 9), atol=1e-9)


@pytest.mark.parametrize(
    ("kind", "places", "said"),
    [
        ("box", (LOW, (4.0, 27.0, 42.0)), "on slices 2.0 and 4.0; give corners of one slice, or a 3D box"),
        ("recist", (LOW, (4.0, 27.0, 42.0)), "on slices 2.0 and 4.0; measure on one slice"),
        ("box", (LOW, (-8.0, 27.0, 36.0)), "lps -8,27,36 mm lies beside the image; were the numbers ras?"),
        ("points", ((8.0, 22.0, 46.6),), "lps 8,22,46.6 mm lies beside"),
    ],
)
def test_places_that_make_no_prompt_are_refused(kind: Kind, places: Any, said: str) -> None:
    with pytest.raises(PromptError, match=said.replace("?", r"\?")):
        WorldPrompt(kind, "lps", places, (True,) if kind == "points" else ()).on(AXIAL)


@pytest.mark.parametrize(
    "prompt",
    [WorldPrompt("box", "ras", (LOW, HIGH)), WorldPrompt("points", "lps", (LOW, HIGH), (True, False))],
)
def test_what_is_written_is_read_back(prompt: WorldPrompt) -> None:
    assert world_prompt_from_json(world_prompt_to_json(prompt), "here") == prompt


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ({"type": "box", "ras": [1, 2, 3]}, "a list of places"),
        ({"type": "box", "ras": [[1, 2, 3]]}, "two places"),
        ({"type": "box", "ras": [[1, 2, 3], [4, 5]]}, "expected 3 numbers"),
        ({"type": "box", "ras": [[1, 2, 3], [4, 5, 6]], "slice": 3}, '"slice"'),
        ({"type": "points", "ras": [[1, 2, 3]]}, r'\[X, Y, Z, "\+"\]'),
    ],
)
def test_json_that_is_no_prompt_says_why(content: Any, said: str) -> None:
    with pytest.raises(MistakeError, match=said):
        world_prompt_from_json(content, "here")
