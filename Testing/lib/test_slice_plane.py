"""Oblique slices are hung as radiologists hang the plane closest to them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from MedSAM2Lib.errors import OptionError
from MedSAM2Lib.geometry import Geometry
from MedSAM2Lib.json_fields import MistakeError
from MedSAM2Lib.slice_plane import SlicePlane, plane_from_json, plane_to_json

LEFT, BACK, UP = np.eye(3)


@pytest.mark.parametrize(
    ("normal", "right", "down"),
    [(UP, LEFT, BACK), (-2 * UP, LEFT, BACK), (BACK, LEFT, -UP), (LEFT, BACK, -UP)],
)
def test_straight_planes_are_hung_as_ever(normal: Any, right: Any, down: Any) -> None:
    plane = SlicePlane.normal_to(normal)
    np.testing.assert_array_equal((plane.right, plane.down), (right, down))


def test_tilted_planes_are_hung_like_the_nearest_straight_one() -> None:
    for normal in np.random.default_rng(0).normal(size=(50, 3)):
        plane = SlicePlane.normal_to(normal)
        straight = SlicePlane.normal_to(np.eye(3)[np.abs(normal).argmax()])
        np.testing.assert_allclose(np.array((plane.right, plane.down)) @ normal, 0, atol=1e-12)
        assert abs(np.dot(plane.right, plane.down)) < 1e-12
        assert np.dot(plane.right, straight.right) > 0
        assert np.dot(plane.down, straight.down) > 0


def test_a_stack_goes_through_the_point_or_the_middle_of_the_image() -> None:
    grid = Geometry((5, 7, 9), (1.0, 1.0, 2.0), (3.0, 4.0, 5.0))
    for through, place in ((None, (7, 7, 9)), ((5.5, 6.25, 8.0), (5.5, 6.25, 8.0))):
        on_stack = SlicePlane.normal_to((0.3, 0.2, 1), through).stack(grid).from_world(place)
        np.testing.assert_allclose(on_stack, on_stack.round(), atol=1e-9)


def test_a_plane_may_come_as_a_normal_in_ras_or_as_directions_in_lps() -> None:
    in_ras = plane_from_json({"space": "ras", "normal": [0.2, -0.1, 1], "through": [1, 2, 3]}, "plane")
    assert in_ras == SlicePlane.normal_to((-0.2, 0.1, 1), (-1, -2, 3))
    assert plane_from_json(plane_to_json(in_ras), "plane") == in_ras


@pytest.mark.parametrize(
    ("content", "error", "said"),
    [
        ({"normal": [0, 0, 1]}, MistakeError, 'lacks "space"'),
        ({"space": "xyz", "normal": [0, 0, 1]}, MistakeError, "one of ras, lps"),
        ({"space": "ras", "right": [1, 0, 0]}, MistakeError, 'lacks "down"'),
        ({"space": "ras", "normal": [0, 0, 0]}, OptionError, "length above 0"),
        ("axial", MistakeError, "expected"),
    ],
)
def test_what_is_no_plane_is_refused(content: Any, error: type[Exception], said: str) -> None:
    with pytest.raises(error, match=said):
        plane_from_json(content, "plane")
