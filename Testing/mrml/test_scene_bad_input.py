"""What cannot be done is said in a sentence; the scene stays consistent, and nothing is lost."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("slicer", reason="needs the slicer-core wheel")

import vtk

from MedSAM2Lib.errors import MedSAM2Error, OptionError, OutputError, PromptError, UsageError, VolumeError
from MedSAM2SlicerLib.SegmentationLogic import SegmentationLogic
from Testing.mrml.engine import InProcessEngine
from Testing.mrml.support import add_markups, add_roi, add_volume, box_around, mask_of, nodes, view, world_of

CONTRAST = np.arange(6 * 7 * 8, dtype=np.int16).reshape(6, 7, 8)


# ── volumes ───────────────────────────────────────────────────────────────────────────────────────────────────────


def without_image(scene: Any) -> Any:
    return scene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "empty")


def a_picture(scene: Any) -> Any:
    return add_volume(scene, CONTRAST[:1], name="X-ray")


def with_nan(scene: Any) -> Any:
    array = CONTRAST.astype(np.float32)
    array[2, 3, 4] = np.nan
    return add_volume(scene, array, name="damaged")


def of_one_value(scene: Any) -> Any:
    return add_volume(scene, np.zeros((4, 5, 6), dtype=np.int16), name="blank")


def in_colour(scene: Any) -> Any:
    node = add_volume(scene, CONTRAST, name="RGB")
    image = vtk.vtkImageData()
    image.SetDimensions(8, 7, 6)
    image.AllocateScalars(vtk.VTK_UNSIGNED_CHAR, 3)
    node.SetAndObserveImageData(image)
    return node


def of_vectors(scene: Any) -> Any:
    node = scene.AddNewNodeByClass("vtkMRMLVectorVolumeNode", "vectors")
    node.SetAndObserveImageData(add_volume(scene, CONTRAST).GetImageData())
    return node


def of_labels(scene: Any) -> Any:
    node = scene.AddNewNodeByClass("vtkMRMLLabelMapVolumeNode", "labels")
    node.SetAndObserveImageData(add_volume(scene, CONTRAST).GetImageData())
    return node


def bent(scene: Any) -> Any:
    node = add_volume(scene, CONTRAST, name="warped")
    transform = scene.AddNewNodeByClass("vtkMRMLBSplineTransformNode", "warp")
    warp = vtk.vtkThinPlateSplineTransform()
    before, after = vtk.vtkPoints(), vtk.vtkPoints()
    for place in ((0, 0, 0), (9, 0, 0), (0, 9, 0), (0, 0, 9), (5, 5, 5)):
        before.InsertNextPoint(place)
        after.InsertNextPoint(place[0] + (place == (5, 5, 5)) * 3, *place[1:])
    warp.SetSourceLandmarks(before)
    warp.SetTargetLandmarks(after)
    warp.SetBasisToR()
    transform.SetAndObserveTransformToParent(warp)
    node.SetAndObserveTransformNodeID(transform.GetID())
    return node


def sheared(scene: Any) -> Any:
    return add_volume(scene, CONTRAST, np.array([[1, 0.3, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1.0]]), name="tilted")


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (without_image, "has no voxels"),
        (a_picture, "2D"),
        (with_nan, "NaN"),
        (of_one_value, "contrast"),
        (in_colour, "values per voxel"),
        (of_vectors, "vector volume"),
        (of_labels, "label map"),
        (bent, "harden"),
        (sheared, "sheared"),
    ],
)
def test_a_volume_that_cannot_be_segmented_is_refused(
    scene: Any, an_engine: InProcessEngine, make: Callable[[Any], Any], says: str
) -> None:
    logic = SegmentationLogic(scene, an_engine)
    node = make(scene)
    before = scene.GetNumberOfNodes()
    with pytest.raises(VolumeError, match=says):
        logic.setVolume(node)
    assert (logic.volumeNode, scene.GetNumberOfNodes()) == (None, before)
    logic.close()


def test_without_a_volume_every_button_says_so(scene: Any, an_engine: InProcessEngine) -> None:
    logic = SegmentationLogic(scene, an_engine)
    for press in (
        logic.addObject,
        logic.propagate,
        logic.undo,
        lambda: logic.export("x.nrrd"),
        lambda: logic.setWindow("auto"),
    ):
        with pytest.raises(UsageError, match="no volume"):
            press()
    logic.close()


def test_without_an_engine_objects_can_be_made_but_prompts_wait(scene: Any, a_volume: Any, the_kidney: Any) -> None:
    logic = SegmentationLogic(scene, None)
    logic.setVolume(a_volume)
    logic.addObject("kidney")
    with pytest.raises(UsageError, match="no engine"):
        logic.addPrompt("kidney", box_around(scene, a_volume, the_kidney, 8), view(scene))
    logic.close()


# ── prompts ───────────────────────────────────────────────────────────────────────────────────────────────────────


def placed(scene: Any, volume_node: Any, ijk: tuple[float, float, float], size: tuple[float, float, float]) -> Any:
    matrix = np.eye(4)
    matrix[:3, 3] = world_of(volume_node, np.array([ijk]))[0]
    return add_roi(scene, matrix, size)


@pytest.mark.parametrize(
    ("ijk", "size", "says"),
    [
        ((200, 13, 8), (10, 10, 0), "beside it"),
        ((12, 13, 90), (10, 10, 0), "slice 90"),
        ((12, 13, 8), (10, 0.1, 0), "drag it larger"),
        ((12, 13, 8), (0, 0, 0), "not drawn"),
    ],
)
def test_a_box_beside_the_volume_or_without_area_is_refused(
    scene: Any, a_logic: Any, a_volume: Any, ijk: Any, size: Any, says: str
) -> None:
    a_logic.addObject("kidney")
    with pytest.raises(PromptError, match=says):
        a_logic.addPrompt("kidney", placed(scene, a_volume, ijk, size), view(scene))
    assert not a_logic.isBusy


def test_drawings_that_are_not_finished_are_refused(scene: Any, a_logic: Any) -> None:
    a_logic.addObject("kidney")
    for kind, says in (
        ("Fiducial", "No point"),
        ("Line", "two ends"),
        ("ClosedCurve", "3 points"),
        ("Curve", "2 points"),
        ("ROI", "not drawn"),
    ):
        with pytest.raises(PromptError, match=says):
            a_logic.addPrompt("kidney", scene.AddNewNodeByClass(f"vtkMRMLMarkups{kind}Node"), view(scene))
    with pytest.raises(PromptError, match="is no prompt"):
        a_logic.addPrompt("kidney", scene.AddNewNodeByClass("vtkMRMLMarkupsAngleNode", "angle"), view(scene))


def test_an_object_is_followed_along_one_axis(
    scene: Any, a_logic: Any, a_volume: Any, finish: Callable[[], None], the_kidney: Any
) -> None:
    a_logic.addObject("kidney")
    view(scene).SetSliceOffset(world_of(a_volume, [(0, 0, 8)])[0, 2])
    a_logic.addPrompt("kidney", box_around(scene, a_volume, the_kidney, 8), view(scene))
    finish()
    with pytest.raises(PromptError, match="another view"):
        a_logic.addPrompt("kidney", box_around(scene, a_volume, the_kidney, 13, axis=1), view(scene, "Green"))
    a_logic.addPrompt("kidney", add_markups(scene, "Fiducial", world_of(a_volume, [(12, 13, 10)])), view(scene, "Green"))
    finish()
    assert [prompt.sliceIndex for prompt in a_logic.prompts("kidney")] == [8, 10]


def test_a_locked_slice_takes_no_prompt(
    scene: Any, a_logic: Any, a_volume: Any, finish: Callable[[], None], the_kidney: Any
) -> None:
    boxed(scene, a_logic, a_volume, finish, the_kidney)
    a_logic.lock("kidney", [8])
    finish()
    with pytest.raises(PromptError, match="locked"):
        a_logic.addPrompt("kidney", box_around(scene, a_volume, the_kidney, 8), view(scene))
    with pytest.raises(OptionError, match=r"0\.\.15"):
        a_logic.lock("kidney", [16])


def test_names_are_told_apart(a_logic: Any) -> None:
    a_logic.addObject("kidney")
    a_logic.addObject("cyst")
    for name in ("kidney", " ", "a\nb"):
        with pytest.raises(OptionError):
            a_logic.addObject(name)
    with pytest.raises(OptionError, match="already"):
        a_logic.renameObject("cyst", "kidney")
    with pytest.raises(OptionError, match="objects are: kidney, cyst"):
        a_logic.timeline("spleen")


# ── while the engine works ────────────────────────────────────────────────────────────────────────────────────────


def boxed(scene: Any, logic: Any, volume: Any, finish: Callable[[], None], thing: Any) -> None:
    logic.addObject("kidney")
    view(scene).SetSliceOffset(world_of(volume, [(0, 0, 8)])[0, 2])
    logic.addPrompt("kidney", box_around(scene, volume, thing, 8), view(scene))
    finish()


@pytest.fixture
def half_way(scene: Any, a_logic: Any, a_volume: Any, finish: Callable[[], None], the_kidney: Any) -> Any:
    """The logic in the middle of a propagation."""
    boxed(scene, a_logic, a_volume, finish, the_kidney)
    a_logic.propagate()
    while len([mark for mark in a_logic.timeline("kidney") if mark.present]) < 4:
        a_logic.poll(0)
    assert a_logic.isPropagating
    return a_logic


def test_the_scene_may_be_closed(scene: Any, half_way: Any) -> None:
    scene.Clear(False)
    assert (half_way.volumeNode, half_way.isBusy, half_way.objects()) == (None, False, [])
    half_way.poll()
    half_way.setVolume(add_volume(scene, CONTRAST))
    assert half_way.messages == []


@pytest.mark.parametrize("role", ["volume", "segmentation", "editor"])
def test_a_node_may_be_deleted(scene: Any, half_way: Any, role: str) -> None:
    bridge = half_way._current.bridge
    node = {"volume": half_way.volumeNode, "segmentation": bridge.node, "editor": bridge.editorNode}[role]
    volume = half_way.volumeNode
    scene.RemoveNode(node)
    half_way.poll()
    assert (half_way.volumeNode, half_way.isBusy) == (None, False)
    assert [f"The {role} node" in text for text in half_way.messages] == [True]
    if role != "volume":
        half_way.setVolume(volume)
        assert half_way.segmentationNode is not None


def test_a_segment_may_be_deleted(half_way: Any, finish: Callable[[], None]) -> None:
    (row,) = half_way.objects()
    half_way.segmentationNode.GetSegmentation().RemoveSegment(row.segmentId)
    finish()
    assert half_way.objects() == []
    assert ["was removed" in text for text in half_way.messages] == [True]
    half_way.addObject("kidney")


def test_the_image_may_be_replaced(scene: Any, half_way: Any, finish: Callable[[], None], the_kidney: Any) -> None:
    mask = mask_of(half_way, "kidney")
    other = add_volume(scene, np.where(the_kidney, 30, 220).astype(np.int16))
    half_way.volumeNode.SetAndObserveImageData(other.GetImageData())
    assert not half_way.isBusy
    assert ["what had arrived stays" in text for text in half_way.messages] == [True]
    np.testing.assert_array_equal(mask_of(half_way, "kidney"), mask)
    half_way.propagate()  # in the new image, from the same slice
    finish()
    assert len(half_way.messages) == 1
    np.testing.assert_array_equal(mask_of(half_way, "kidney")[8], mask[8])


def test_an_image_of_another_size_begins_a_new_session(scene: Any, half_way: Any) -> None:
    segmentation, volume = half_way.segmentationNode, half_way.volumeNode
    volume.SetAndObserveImageData(add_volume(scene, CONTRAST).GetImageData())
    assert half_way.volumeNode is None
    assert "another size" in half_way.messages[-1]
    assert segmentation.GetSegmentation().GetNumberOfSegments() == 1
    half_way.setVolume(volume)
    assert half_way.segmentationNode is not segmentation


def test_the_volume_may_be_bent(scene: Any, half_way: Any) -> None:
    volume, segmentation = half_way.volumeNode, half_way.segmentationNode
    volume.SetAndObserveTransformNodeID(bent(scene).GetTransformNodeID())
    assert (half_way.volumeNode, half_way.isBusy) == (None, False)
    assert ["harden" in text for text in half_way.messages] == [True]
    assert segmentation.GetSegmentation().GetNumberOfSegments() == 1
    volume.SetAndObserveTransformNodeID(None)
    half_way.setVolume(volume)
    assert [one.name for one in half_way.objects()] == ["kidney"]


def test_the_engine_may_die(half_way: Any, an_engine: InProcessEngine, finish: Callable[[], None], the_kidney: Any) -> None:
    arrived = mask_of(half_way, "kidney")
    an_engine.die()
    half_way.poll()
    assert not half_way.isBusy
    assert ["Nothing is lost" in text for text in half_way.messages] == [True]
    np.testing.assert_array_equal(mask_of(half_way, "kidney"), arrived)
    half_way.undo()  # the slices that had come; the box is still there
    finish()
    assert [mark.index for mark in half_way.timeline("kidney") if mark.present] == [8]
    half_way.propagate()
    finish()
    assert (mask_of(half_way, "kidney") & the_kidney).sum() > 0.9 * the_kidney.sum()
    for _ in range(2):  # the engine remembers only the last of them
        half_way.undo()
        finish()
    assert not mask_of(half_way, "kidney").any()
    assert len(half_way.messages) == 1


def test_a_step_that_waits_for_a_propagation_is_refused(half_way: Any) -> None:
    with pytest.raises(UsageError, match="cancel it first"):
        half_way.propagate()
    with pytest.raises(UsageError, match="cancel it first"):
        half_way.lock("kidney", [8])


def test_a_prompt_may_be_cancelled_before_it_is_answered(
    scene: Any, a_logic: Any, a_volume: Any, finish: Callable[[], None], the_kidney: Any
) -> None:
    a_logic.addObject("kidney")
    view(scene).SetSliceOffset(world_of(a_volume, [(0, 0, 8)])[0, 2])
    for _ in range(2):
        a_logic.addPrompt("kidney", box_around(scene, a_volume, the_kidney, 8), view(scene))
    a_logic.cancel()
    finish()
    assert (a_logic.messages, a_logic.canUndo, mask_of(a_logic, "kidney").any()) == ([], False, False)
    a_logic.addPrompt("kidney", box_around(scene, a_volume, the_kidney, 8), view(scene))
    finish()
    assert mask_of(a_logic, "kidney").any()


# ── files and segmentations ───────────────────────────────────────────────────────────────────────────────────────


def test_a_file_that_cannot_be_written_is_said(
    scene: Any, a_logic: Any, a_volume: Any, finish: Callable[[], None], the_kidney: Any, tmp_path: Path
) -> None:
    with pytest.raises(OptionError, match="nothing to export"):
        a_logic.export(tmp_path / "mask.nrrd")
    boxed(scene, a_logic, a_volume, finish, the_kidney)
    with pytest.raises(OutputError, match="does not"):
        a_logic.export(tmp_path / "no such folder" / "mask.nrrd")
    with pytest.raises(OptionError, match="extension"):
        a_logic.export(tmp_path / "mask.png")
    assert list(tmp_path.iterdir()) == []


def test_a_segmentation_on_another_grid_is_refused(scene: Any, a_logic: Any, a_volume: Any) -> None:
    from MedSAM2SlicerLib.SegmentBridge import SegmentBridge

    coarse = add_volume(scene, CONTRAST, name="coarse")
    theirs = SegmentBridge.createSegmentation(scene, coarse)
    own = a_logic.segmentationNode
    with pytest.raises(OptionError, match="must be on the grid of CT"):
        a_logic.setSegmentation(theirs)
    assert a_logic.segmentationNode is own
    fitting = SegmentBridge.createSegmentation(scene, a_volume)
    a_logic.setSegmentation(fitting)
    assert a_logic.segmentationNode is fitting
    assert own not in nodes(scene, "vtkMRMLSegmentationNode")
    a_logic.setSegmentation(None)
    assert a_logic.segmentationNode not in (own, fitting, theirs)
    a_logic.addObject("kidney")
    with pytest.raises(MedSAM2Error, match="already"):
        a_logic.setSegmentation(theirs)


def test_an_empty_segmentation_of_somebody_else_stays_when_another_is_chosen(scene: Any, a_logic: Any) -> None:
    theirs = scene.AddNewNodeByClass("vtkMRMLSegmentationNode", "theirs")
    a_logic.setSegmentation(theirs)
    assert a_logic.segmentationNode is theirs
    a_logic.setSegmentation(None)
    assert scene.IsNodePresent(theirs)


def test_an_unknown_word_for_what_is_overwritten_is_refused(a_logic: Any) -> None:
    a_logic.setOverwriting("all")
    with pytest.raises(OptionError, match="one of none, visible, all, editor"):
        a_logic.setOverwriting("some")
    assert a_logic.overwriting == "all"
