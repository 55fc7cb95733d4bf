"""Masks in segments: within their rules, without a scratch on others, and taken back to the voxel."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

pytest.importorskip("slicer", reason="needs the slicer-core wheel")

import slicer

from MedSAM2Lib.slice_stack import Region
from MedSAM2SlicerLib.SegmentBridge import SegmentBridge
from Testing.mrml.support import add_transform, add_volume, box_around, mask_of, rotation, view, world_of

SHAPE = (6, 12, 14)
WHOLE = tuple(slice(0, size) for size in SHAPE)


@pytest.fixture
def a_bridge(scene: Any) -> SegmentBridge:
    volume = add_volume(scene, np.arange(np.prod(SHAPE), dtype=np.int16).reshape(SHAPE))
    return SegmentBridge(scene, volume, SegmentBridge.createSegmentation(scene, volume), SegmentBridge.createEditor(scene))


def block(k: slice, j: slice, i: slice) -> np.ndarray:
    mask = np.zeros(SHAPE, dtype=bool)
    mask[k, j, i] = True
    return mask


def region(mask: np.ndarray) -> Region:
    return Region(WHOLE, np.ones(SHAPE, dtype=bool), mask)


LEFT = block(slice(1, 5), slice(2, 9), slice(1, 7))
RIGHT = block(slice(2, 6), slice(4, 11), slice(5, 13))


def two(bridge: SegmentBridge) -> tuple[str, str]:
    """A neighbour that is there already, and our own segment, still empty."""
    theirs, ours = bridge.addSegment("theirs", (0, 1, 0)), bridge.addSegment("ours", (1, 0, 0))
    bridge.write(theirs, region(LEFT))
    return theirs, ours


def test_overlapping_masks_leave_each_other_alone(a_bridge: SegmentBridge) -> None:
    theirs, ours = two(a_bridge)
    a_bridge.write(ours, region(RIGHT))
    a_bridge.write(ours, region(RIGHT & LEFT))
    np.testing.assert_array_equal(a_bridge.mask(theirs), LEFT)
    np.testing.assert_array_equal(a_bridge.mask(ours), RIGHT & LEFT)


def test_only_what_is_governed_changes(a_bridge: SegmentBridge) -> None:
    _, ours = two(a_bridge)
    a_bridge.write(ours, region(RIGHT))
    slice_4 = block(slice(4, 5), slice(0, 12), slice(0, 14))
    a_bridge.write(ours, Region(WHOLE, slice_4, LEFT & slice_4))
    np.testing.assert_array_equal(a_bridge.mask(ours), np.where(slice_4, LEFT, RIGHT))


@pytest.mark.parametrize("mode", ["all", "visible"])
def test_where_segments_may_be_overwritten_undo_gives_them_back(a_bridge: SegmentBridge, mode: str) -> None:
    theirs, ours = two(a_bridge)
    a_bridge.setOverwriting(mode)
    patch = a_bridge.write(ours, region(RIGHT))
    assert patch is not None
    np.testing.assert_array_equal(a_bridge.mask(theirs), LEFT & ~RIGHT)
    a_bridge.apply(patch, forwards=False)
    np.testing.assert_array_equal(a_bridge.mask(theirs), LEFT)
    assert not a_bridge.mask(ours).any()
    a_bridge.apply(patch, forwards=True)
    np.testing.assert_array_equal(a_bridge.mask(theirs), LEFT & ~RIGHT)
    np.testing.assert_array_equal(a_bridge.mask(ours), RIGHT)


def test_a_hidden_segment_is_not_overwritten_where_only_visible_ones_may_be(a_bridge: SegmentBridge) -> None:
    theirs, ours = two(a_bridge)
    a_bridge.setVisible(theirs, False)
    a_bridge.setOverwriting("visible")
    a_bridge.write(ours, region(RIGHT))
    np.testing.assert_array_equal(a_bridge.mask(theirs), LEFT)


@pytest.fixture
def segment_editor(scene: Any, a_bridge: SegmentBridge) -> Any:
    """The node that holds what a user sets in the Segment Editor module."""
    node = scene.CreateNodeByClass("vtkMRMLSegmentEditorNode")
    node.UnRegister(None)
    node.SetSingletonTag("SegmentEditor")
    node = scene.AddNode(node)
    node.SetAndObserveSegmentationNode(a_bridge.node)
    node.SetAndObserveSourceVolumeNode(a_bridge.volumeNode)
    node.SetOverwriteMode(node.OverwriteNone)
    a_bridge.setOverwriting("editor")
    return node


def test_masks_stay_within_the_area_that_segment_editor_allows(a_bridge: SegmentBridge, segment_editor: Any) -> None:
    theirs, ours = two(a_bridge)
    segment_editor.SetMaskMode(slicer.vtkMRMLSegmentationNode.EditAllowedOutsideAllSegments)
    a_bridge.write(ours, region(RIGHT))
    np.testing.assert_array_equal(a_bridge.mask(ours), RIGHT & ~LEFT)
    segment_editor.SetMaskMode(slicer.vtkMRMLSegmentationNode.EditAllowedInsideSingleSegment)
    segment_editor.SetMaskSegmentID(theirs)
    a_bridge.write(ours, region(RIGHT))
    np.testing.assert_array_equal(a_bridge.mask(ours), RIGHT)
    np.testing.assert_array_equal(a_bridge.mask(theirs), LEFT)


def test_segments_give_way_as_segment_editor_says(a_bridge: SegmentBridge, segment_editor: Any) -> None:
    theirs, ours = two(a_bridge)
    segment_editor.SetOverwriteMode(segment_editor.OverwriteAllSegments)
    a_bridge.write(ours, region(RIGHT))
    np.testing.assert_array_equal(a_bridge.mask(theirs), LEFT & ~RIGHT)


def test_the_masking_of_another_segmentation_does_not_hold(
    scene: Any, a_bridge: SegmentBridge, segment_editor: Any
) -> None:
    _, ours = two(a_bridge)
    segment_editor.SetMaskMode(slicer.vtkMRMLSegmentationNode.EditAllowedOutsideAllSegments)
    segment_editor.SetAndObserveSegmentationNode(scene.AddNewNodeByClass("vtkMRMLSegmentationNode"))
    a_bridge.write(ours, region(RIGHT))
    np.testing.assert_array_equal(a_bridge.mask(ours), RIGHT)


def test_masks_stay_within_the_intensities_that_segment_editor_allows(
    a_bridge: SegmentBridge, segment_editor: Any
) -> None:
    _, ours = two(a_bridge)
    segment_editor.SourceVolumeIntensityMaskOn()
    segment_editor.SetSourceVolumeIntensityMaskRange(0, 500)
    patch = a_bridge.write(ours, region(RIGHT))
    allowed = np.arange(np.prod(SHAPE)).reshape(SHAPE) <= 500
    np.testing.assert_array_equal(a_bridge.mask(ours), RIGHT & allowed)
    assert patch is not None
    a_bridge.apply(patch, forwards=False)  # a step back is not an edit: no rule holds it up
    assert not a_bridge.mask(ours).any()


def test_the_volume_in_millilitres_counts_a_transform_that_scales(scene: Any, a_bridge: SegmentBridge) -> None:
    _, ours = two(a_bridge)
    a_bridge.write(ours, region(RIGHT))
    assert a_bridge.milliliters(ours) == pytest.approx(RIGHT.sum() / 1000)
    a_bridge.volumeNode.SetAndObserveTransformNodeID(add_transform(scene, np.diag([2.0, 1.0, 1.0, 1.0])).GetID())
    a_bridge.followVolume()
    assert a_bridge.milliliters(ours) == pytest.approx(2 * RIGHT.sum() / 1000)


def test_a_3d_surface_is_put_aside_while_slices_come(a_bridge: SegmentBridge) -> None:
    _, ours = two(a_bridge)
    segmentation = a_bridge.node.GetSegmentation()
    a_bridge.node.CreateClosedSurfaceRepresentation()
    with a_bridge.withoutSurface():
        assert not segmentation.ContainsRepresentation("Closed surface")
        a_bridge.write(ours, region(RIGHT))
    assert segmentation.GetSegment(ours).GetRepresentation("Closed surface").GetNumberOfPoints() > 0


def test_a_segment_of_another_grid_is_read_where_it_lies(scene: Any, a_bridge: SegmentBridge) -> None:
    fine_to_ras = np.diag([0.5, 0.5, 0.5, 1.0])
    fine_to_ras[:3, 3] = -0.25
    fine = add_volume(scene, np.zeros((12, 24, 28), dtype=np.int16), fine_to_ras)
    turned = add_transform(scene, np.block([[rotation((0, 0, 1), 90), np.zeros((3, 1))], [0, 0, 0, 1]]))
    theirs = SegmentBridge(scene, fine, SegmentBridge.createSegmentation(scene, fine), SegmentBridge.createEditor(scene))
    segment_id = theirs.addSegment("fine", (0, 0, 1))
    doubled = LEFT.repeat(2, 0).repeat(2, 1).repeat(2, 2)
    theirs.write(segment_id, Region(tuple(slice(0, size) for size in doubled.shape), doubled | True, doubled))
    np.testing.assert_array_equal(a_bridge.maskOf(theirs.node, segment_id), LEFT)
    for node in (fine, theirs.node, a_bridge.volumeNode, a_bridge.node):  # together under a transform: nothing changes
        node.SetAndObserveTransformNodeID(turned.GetID())
    np.testing.assert_array_equal(a_bridge.maskOf(theirs.node, segment_id), LEFT)
    theirs.node.SetAndObserveTransformNodeID(None)
    assert not np.array_equal(a_bridge.maskOf(theirs.node, segment_id), LEFT)


# ── through the logic ─────────────────────────────────────────────────────────────────────────────────────────────


def test_undo_brings_back_what_a_propagation_overwrote(
    scene: Any, a_logic: Any, a_volume: Any, finish: Callable[[], None], the_kidney: np.ndarray
) -> None:
    bridge = a_logic._current.bridge
    theirs = bridge.addSegment("theirs", (0, 1, 0))
    everything = np.ones(bridge.shape, dtype=bool)
    bridge.write(theirs, Region(tuple(slice(0, size) for size in bridge.shape), everything, everything))
    a_logic.setOverwriting("all")
    a_logic.addObject("kidney")
    view(scene).SetSliceOffset(world_of(a_volume, [(0, 0, 8)])[0, 2])
    a_logic.addPrompt("kidney", box_around(scene, a_volume, the_kidney, 8), view(scene))
    a_logic.propagate()
    finish()
    found = mask_of(a_logic, "kidney")
    # The last word is the mask of the whole: what slices had overwritten on the way does not come back by itself.
    assert not (bridge.mask(theirs) & found).any()
    a_logic.undo()
    a_logic.undo()
    finish()
    np.testing.assert_array_equal(bridge.mask(theirs), everything)
    a_logic.redo()
    a_logic.redo()
    finish()
    np.testing.assert_array_equal(mask_of(a_logic, "kidney"), found)
    assert not (bridge.mask(theirs) & found).any()


def test_a_removed_object_comes_back_with_undo(
    scene: Any, a_logic: Any, a_volume: Any, finish: Callable[[], None], the_kidney: np.ndarray
) -> None:
    a_logic.addObject("kidney")
    a_logic.setObjectColor("kidney", (0.25, 0.5, 0.75))
    view(scene).SetSliceOffset(world_of(a_volume, [(0, 0, 8)])[0, 2])
    a_logic.addPrompt("kidney", box_around(scene, a_volume, the_kidney, 8), view(scene))
    finish()
    (row,), mask = a_logic.objects(), mask_of(a_logic, "kidney")
    a_logic.removeObject("kidney")
    finish()
    assert (a_logic.objects(), a_logic.currentObject) == ([], None)
    a_logic.undo()
    finish()
    assert a_logic.objects() == [row]
    np.testing.assert_array_equal(mask_of(a_logic, "kidney"), mask)
    a_logic.propagate()
    finish()
    assert (mask_of(a_logic, "kidney") & the_kidney).sum() > 0.9 * the_kidney.sum()


def test_a_prompt_can_be_taken_back(
    scene: Any, a_logic: Any, a_volume: Any, finish: Callable[[], None], the_kidney: np.ndarray
) -> None:
    a_logic.addObject("kidney")
    for index in (7, 9):
        view(scene).SetSliceOffset(world_of(a_volume, [(0, 0, index)])[0, 2])
        a_logic.addPrompt("kidney", box_around(scene, a_volume, the_kidney, index), view(scene))
    finish()
    first, second = a_logic.prompts("kidney")
    a_logic.removePrompt("kidney", second.id)
    finish()
    assert a_logic.prompts("kidney") == [first]
    assert [mark.index for mark in a_logic.timeline("kidney") if mark.present] == [7]
    assert not mask_of(a_logic, "kidney")[9].any()
    a_logic.removePrompt("kidney", first.id)
    finish()
    assert (a_logic.timeline("kidney"), a_logic.objects()[0].axis) == ([], None)
    a_logic.undo()
    a_logic.undo()
    finish()
    assert a_logic.prompts("kidney") == [first, second]
    assert mask_of(a_logic, "kidney")[9].any()
