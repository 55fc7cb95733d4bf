"""Markups, as they are drawn in slice views, become prompts on the slices they were drawn on."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

pytest.importorskip("slicer", reason="needs the slicer-core wheel")

from MedSAM2Lib.errors import PromptError
from MedSAM2Lib.geometry import Geometry
from MedSAM2Lib.prompts import Box, Box3D, Points, RecistLine
from MedSAM2Lib.slice_stack import SliceStack
from MedSAM2SlicerLib.PromptBridge import PromptBridge
from MedSAM2SlicerLib.ViewBridge import ViewBridge
from Testing.mrml.support import add_markups, add_roi, add_transform, mask_of, rotation, turn, view, world_of

# Voxels are millimetres and LPS; RAS has x and y the other way round.
GRID = Geometry((20, 30, 40))
AXIAL = PromptBridge(SliceStack.along(GRID, 0))


def ras(*ijk: tuple[float, float, float]) -> np.ndarray:
    return np.array(ijk, dtype=float) * (-1, -1, 1)


def roi_over(scene: Any, low: tuple[float, float, float], high: tuple[float, float, float]) -> Any:
    """A ROI with these faces, in voxels."""
    matrix = np.eye(4)
    matrix[:3, 3] = ras(tuple((np.array(low) + high) / 2))[0]
    return add_roi(scene, matrix, np.array(high) - low)


def test_the_faces_of_a_roi_are_the_outer_edges_of_its_corner_pixels(scene: Any) -> None:
    assert AXIAL.box(roi_over(scene, (9.5, 4.5, 7), (15.5, 12.5, 7))) == Box(7, 10, 5, 15, 12)


def test_a_roi_that_reaches_over_the_edge_is_cut_there(scene: Any) -> None:
    assert AXIAL.box(roi_over(scene, (-6, 4.5, 7), (3.5, 50, 7))) == Box(7, 0, 5, 3, 29)


def test_a_deep_roi_is_meant_for_the_slice_shown(scene: Any) -> None:
    deep = roi_over(scene, (9.5, 4.5, 2), (15.5, 12.5, 12))
    assert [AXIAL.box(deep, shown).slice_index for shown in (None, 3, 12, 19)] == [7, 3, 12, 7]


def test_of_a_turned_roi_what_crosses_the_slice_counts(scene: Any) -> None:
    matrix = np.eye(4)
    matrix[:3, :3], matrix[:3, 3] = rotation((0, 0, 1), 45), ras((20, 15, 7))[0]
    half = 10 / np.sqrt(2)
    box = AXIAL.box(add_roi(scene, matrix, (10, 10, 8)), 7)
    np.testing.assert_allclose((box.x0, box.x1, box.y0, box.y1), (20.5 - half, 19.5 + half, 15.5 - half, 14.5 + half))


def test_a_3d_box_holds_the_slices_whose_middle_it_holds(scene: Any) -> None:
    assert AXIAL.box3D(roi_over(scene, (9.5, 4.5, 2.5), (15.5, 12.5, 11.2))) == Box3D(3, 11, 10, 5, 15, 12)


def test_a_line_is_the_longest_diameter(scene: Any) -> None:
    line = AXIAL.line(add_markups(scene, "Line", ras((10, 5, 7), (16, 13, 7.2))))
    assert line == RecistLine(7, 10, 5, 16, 13)


def test_a_line_across_slices_is_refused(scene: Any) -> None:
    with pytest.raises(PromptError, match="from slice 7 to 12"):
        AXIAL.line(add_markups(scene, "Line", ras((10, 5, 7), (16, 13, 12))))


def test_points_go_to_their_slices(scene: Any) -> None:
    points = AXIAL.points(add_markups(scene, "Fiducial", ras((10, 5, 7), (16, 13, 9), (11, 6, 7))), False)
    assert points == [Points(7, (10, 11), (5, 6), (False, False)), Points(9, (16,), (13,), (False,))]


def test_a_scribble_is_points_at_equal_distances(scene: Any) -> None:
    curve = add_markups(scene, "Curve", ras((10, 5, 7), (17, 5, 7), (24, 5, 7)))
    (points,) = AXIAL.scribble(curve, True)
    np.testing.assert_allclose(points.xs, np.linspace(10, 24, 8), atol=0.05)
    assert (set(points.labels), points.slice_index) == ({True}, 7)


def test_an_outline_is_the_pixels_inside(scene: Any) -> None:
    curve = add_markups(scene, "ClosedCurve", ras((9.5, 4.5, 7), (15.5, 4.5, 7), (15.5, 12.5, 7), (9.5, 12.5, 7)))
    curve.SetCurveTypeToLinear()
    mask = AXIAL.outline(curve).mask
    assert mask.sum() == 6 * 8
    assert mask[5:13, 10:16].all()
    with pytest.raises(PromptError, match="negative points"):
        AXIAL.outline(curve, positive=False)


def test_transforms_of_markups_count(scene: Any) -> None:
    node = roi_over(scene, (9.5, 4.5, 7), (15.5, 12.5, 7))
    line = add_markups(scene, "Line", ras((10, 5, 7), (16, 13, 7)))
    moved = np.eye(4)
    moved[:3, 3] = ras((3, 2, 4))[0]
    for one in (node, line):
        one.SetAndObserveTransformNodeID(add_transform(scene, moved).GetID())
    assert AXIAL.box(node) == Box(11, 13, 7, 18, 14)
    assert AXIAL.line(line) == RecistLine(11, 13, 7, 19, 15)


def test_a_view_says_which_axis_and_which_slice(scene: Any) -> None:
    for name, place, axis, index in (("Red", (0, 0, 7.3), 0, 7), ("Green", (0, 12, 0), 1, 12), ("Yellow", (25.4, 0, 0), 2, 25)):
        view(scene, name).JumpSliceByCentering(*ras(place)[0])
        bridge = ViewBridge(view(scene, name))
        stack = bridge.stack(GRID)
        assert (stack.axis, stack.is_oblique, bridge.sliceIndex(stack)) == (axis, False, index)
    assert ViewBridge(view(scene, "Red")).sliceIndex(SliceStack.along(GRID, 1)) is None
    view(scene, "Red").SetSliceOffset(300)
    assert ViewBridge(view(scene, "Red")).sliceIndex(SliceStack.along(GRID, 0)) is None


def test_a_view_that_is_turned_shows_an_oblique_stack(scene: Any) -> None:
    turn(view(scene), rotation((1, 0, 0), 20), ras((20, 15, 10))[0])
    stack = ViewBridge(view(scene)).stack(GRID)
    assert stack.is_oblique
    index = ViewBridge(view(scene)).sliceIndex(stack)
    assert index is not None
    ViewBridge(view(scene)).jump(stack, index + 3)
    assert ViewBridge(view(scene)).sliceIndex(stack) == index + 3


# ── through the logic ─────────────────────────────────────────────────────────────────────────────────────────────


def test_every_kind_of_prompt_gives_a_mask(
    scene: Any, a_logic: Any, a_volume: Any, finish: Callable[[], None], the_kidney: np.ndarray
) -> None:
    at = lambda *ijk: world_of(a_volume, np.array(ijk))  # noqa: E731 (short in the table)
    view(scene).SetSliceOffset(at((0, 0, 8))[0, 2])
    deep = add_roi(scene, _placed(at((12, 13, 8))[0]), (12, 14, 8))
    drawings = {
        "points": add_markups(scene, "Fiducial", at((12, 13, 8))),
        "line": add_markups(scene, "Line", at((12, 7, 8), (12, 19, 8))),
        "scribble": add_markups(scene, "Curve", at((10, 10, 8), (13, 13, 8), (12, 16, 8))),
        "outline": add_markups(scene, "ClosedCurve", at((7, 13, 8), (12, 7, 8), (17, 13, 8), (12, 19, 8))),
    }
    for name, node in drawings.items():
        a_logic.addObject(name)
        a_logic.addPrompt(name, node, view(scene))
    a_logic.addObject("3D box")
    a_logic.addBox3D("3D box", deep, view(scene))
    finish()
    a_logic.addObject("copy")
    row = next(one for one in a_logic.objects() if one.name == "outline")
    a_logic.addMaskPrompt("copy", a_logic.segmentationNode, row.segmentId, view(scene))
    finish()
    assert a_logic.messages == []
    kinds = {one.name: a_logic.prompts(one.name)[0].kind for one in a_logic.objects()}
    assert kinds == {
        "points": "points",
        "line": "line",
        "scribble": "points",
        "outline": "mask",
        "3D box": "box3d",
        "copy": "mask",
    }
    for name in ("points", "line", "scribble", "outline", "3D box"):
        assert (mask_of(a_logic, name)[8] & the_kidney[8]).sum() > 0.7 * the_kidney[8].sum(), name
    np.testing.assert_array_equal(mask_of(a_logic, "copy"), mask_of(a_logic, "outline"))
    a_logic.propagate(["3D box"])
    finish()
    assert [mark.index for mark in a_logic.timeline("3D box") if mark.present] == [6, 7, 8, 9, 10]


def test_an_object_can_be_followed_in_one_direction_and_within_slices(
    scene: Any, a_logic: Any, a_volume: Any, finish: Callable[[], None]
) -> None:
    view(scene).SetSliceOffset(world_of(a_volume, [(0, 0, 8)])[0, 2])
    expected = {"up": (8, 12), "down": (4, 8), "both": (6, 10)}
    for direction, (first, last) in expected.items():
        a_logic.addObject(direction)
        a_logic.addPrompt(direction, add_roi(scene, _placed(world_of(a_volume, [(12, 13, 8)])[0]), (13, 15, 0)), view(scene))
        finish()
        limits = {"first": 6, "last": 10} if direction == "both" else {}
        a_logic.propagate([direction], direction, **limits)
        finish()
        present = [mark.index for mark in a_logic.timeline(direction) if mark.present]
        assert (present[0], present[-1]) == (first, last)


def test_a_view_jumps_to_a_slice_of_the_object(scene: Any, a_logic: Any, a_volume: Any, finish: Callable[[], None]) -> None:
    view(scene).SetSliceOffset(world_of(a_volume, [(0, 0, 8)])[0, 2])
    a_logic.addObject("kidney")
    a_logic.addPrompt("kidney", add_roi(scene, _placed(world_of(a_volume, [(12, 13, 8)])[0]), (13, 15, 0)), view(scene))
    a_logic.propagate()
    finish()
    a_logic.jumpTo("kidney", 6, view(scene))
    assert a_logic.sliceShown("kidney", view(scene)) == 6
    assert a_logic.sliceShown("kidney", view(scene, "Green")) is None


def _placed(middle: np.ndarray) -> np.ndarray:
    matrix = np.eye(4)
    matrix[:3, 3] = middle
    return matrix
