"""Sessions live in the scene: saved and loaded with it, several side by side, tidy when it is closed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("slicer", reason="needs the slicer-core wheel")

import slicer

from MedSAM2Lib.prompts import MaskPrompt
from MedSAM2SlicerLib.SegmentationLogic import SegmentationLogic
from MedSAM2SlicerLib.VolumeBridge import VolumeBridge
from Testing.mrml.engine import InProcessEngine
from Testing.mrml.support import (
    Application,
    add_markups,
    add_roi,
    add_transform,
    add_volume,
    box_around,
    mask_of,
    nodes,
    rotation,
    turn,
    view,
    world_of,
)

Mask = Any


@pytest.fixture
def a_kidney(scene: Any, a_logic: Any, a_volume: Any, finish: Callable[[], None], the_kidney: Mask) -> str:
    """An object that was propagated and locked on two slices."""
    a_logic.addObject("kidney")
    view(scene).SetSliceOffset(world_of(a_volume, [(0, 0, 8)])[0, 2])
    a_logic.addPrompt("kidney", box_around(scene, a_volume, the_kidney, 8), view(scene))
    a_logic.propagate()
    finish()
    a_logic.lock("kidney", [7, 8])
    finish()
    return "kidney"


def placed(axes: np.ndarray, middle: np.ndarray) -> np.ndarray:
    """(4, 4): axes as columns, through a point."""
    matrix = np.eye(4)
    matrix[:3, :3], matrix[:3, 3] = axes, middle
    return matrix


def everything(logic: Any) -> tuple[Any, ...]:
    return (
        logic.objects(),
        [logic.timeline(one.name) for one in logic.objects()],
        [logic.prompts(one.name) for one in logic.objects()],
    )


def test_a_session_comes_back_with_a_saved_scene(
    scene: Any, a_logic: Any, an_engine: InProcessEngine, a_kidney: str, finish: Callable[[], None], tmp_path: Path
) -> None:
    a_logic.setWindow("0:255")
    known, mask = everything(a_logic), mask_of(a_logic, "kidney")
    assert scene.WriteToMRB(str(tmp_path / "scene.mrb"), None)
    a_logic.close()

    application = Application()
    assert application.scene.ReadFromMRB(str(tmp_path / "scene.mrb"))
    engine = InProcessEngine(an_engine.model, an_engine.options)
    logic = SegmentationLogic(application.scene, engine)
    assert logic.volumeNode is not None
    assert logic.volumeNode.GetName() == "CT"
    assert (everything(logic), logic.window, logic.currentObject) == (known, "0:255", "kidney")
    np.testing.assert_array_equal(mask_of(logic, "kidney"), mask)

    # The engine takes up where it was: a correction needs no new start.
    told: list[str] = []
    logic.onMessage.connect(lambda message: told.append(message.text))
    logic.addPrompt(
        "kidney",
        add_markups(application.scene, "Fiducial", world_of(logic.volumeNode, [(12, 13, 10)])),
        view(application.scene),
    )
    while logic.isBusy:
        logic.poll()
    assert told == []
    assert [request.method for request in engine.requests][:3] == ["set_volume", "restore", "add_prompt"]
    assert [mark.index for mark in logic.timeline("kidney") if mark.locked] == [7, 8]
    logic.close()
    application.close()


def test_the_state_survives_a_scene_that_is_loaded_twice_over(scene: Any, a_logic: Any, a_kidney: str, tmp_path: Path) -> None:
    known = everything(a_logic)
    scene.WriteToMRB(str(tmp_path / "scene.mrb"), None)
    scene.Clear(False)
    assert (a_logic.volumeNode, a_logic.objects()) == (None, [])
    scene.ReadFromMRB(str(tmp_path / "scene.mrb"))
    assert everything(a_logic) == known


def test_an_oblique_object_comes_back_too(
    scene: Any, a_logic: Any, a_volume: Any, finish: Callable[[], None], the_kidney: Mask, tmp_path: Path
) -> None:
    axes, middle = rotation((1, 0.4, 0), 25), world_of(a_volume, [(12, 13, 8)])[0]
    turn(view(scene), axes, middle)
    a_logic.addObject("kidney")
    a_logic.addPrompt("kidney", add_roi(scene, placed(axes, middle), (15, 17, 0)), view(scene))
    a_logic.propagate()
    finish()
    assert a_logic.objects()[0].axis == "oblique"
    found = mask_of(a_logic, "kidney")
    assert 2 * (found & the_kidney).sum() / (found.sum() + the_kidney.sum()) > 0.85
    known = everything(a_logic)
    scene.WriteToMRB(str(tmp_path / "scene.mrb"), None)
    scene.Clear(False)
    scene.ReadFromMRB(str(tmp_path / "scene.mrb"))
    assert everything(a_logic) == known


def test_another_network_is_told_what_the_scene_shows(
    scene: Any, a_logic: Any, a_kidney: str, finish: Callable[[], None], an_engine: InProcessEngine
) -> None:
    mask = mask_of(a_logic, "kidney")
    other = InProcessEngine(an_engine.model, an_engine.options)
    other.model = (
        type(other.model)(**{**vars(other.model), "sha256": "another"}) if "sha256" in vars(other.model) else other.model
    )
    a_logic.setEngine(other)
    a_logic.propagate()
    finish()
    assert a_logic.messages == []
    np.testing.assert_array_equal(mask_of(a_logic, "kidney")[7:9], mask[7:9])
    assert [mark.index for mark in a_logic.timeline("kidney") if mark.locked] == [7, 8]
    assert other.sessions


def test_a_new_window_carries_the_object_over(
    scene: Any, a_logic: Any, a_kidney: str, finish: Callable[[], None], an_engine: InProcessEngine
) -> None:
    locked = mask_of(a_logic, "kidney")[7:9]
    a_logic.setWindow("0:200")
    a_logic.propagate()
    finish()
    (session,) = an_engine.sessions.values()
    assert (session.window.low, session.window.high) == (0, 200)
    np.testing.assert_array_equal(mask_of(a_logic, "kidney")[7:9], locked)
    found = mask_of(a_logic, "kidney")
    for _ in range(4):  # of these steps the engine has made only one: propagation, lock, propagation, box
        a_logic.undo()
        finish()
    assert (a_logic.prompts("kidney"), mask_of(a_logic, "kidney").any()) == ([], False)
    for _ in range(4):
        a_logic.redo()
        finish()
    np.testing.assert_array_equal(mask_of(a_logic, "kidney"), found)
    assert [mark.index for mark in a_logic.timeline("kidney") if mark.locked] == [7, 8]
    assert a_logic.messages == []


def test_a_state_that_cannot_be_read_leaves_the_masks(scene: Any, a_logic: Any, a_volume: Any, a_kidney: str) -> None:
    mask, segmentation = mask_of(a_logic, "kidney"), a_logic.segmentationNode
    (text,) = nodes(scene, "vtkMRMLTextNode")
    a_logic.close()
    for damaged in ("", "{", '{"format": "medsam2-scene/1"}', text.GetText().replace('"axis":0', '"axis":"x"')):
        text.SetText(damaged)
        logic = SegmentationLogic(scene, None)
        assert (logic.segmentationNode, logic.objects()) == (segmentation, [])
        logic.close()
    assert segmentation.GetSegmentation().GetNumberOfSegments() == 1
    assert mask.any()


@pytest.mark.parametrize("oblique", [False, True])
def test_objects_go_with_a_volume_that_is_moved(
    scene: Any, a_logic: Any, a_volume: Any, finish: Callable[[], None], an_engine: InProcessEngine, oblique: bool
) -> None:
    axes, middle = rotation((1, 0.4, 0), 25 if oblique else 0), world_of(a_volume, [(12, 13, 8)])[0]
    turn(view(scene), axes, middle)
    a_logic.addObject("kidney")
    a_logic.addPrompt("kidney", add_roi(scene, placed(axes, middle), (15, 17, 0)), view(scene))
    finish()
    mask = mask_of(a_logic, "kidney")
    shown = a_logic.sliceShown("kidney", view(scene))

    moved = np.eye(4)
    moved[:3, :3], moved[:3, 3] = rotation((0, 1, 1), 40), (30, -10, 5)
    a_volume.SetAndObserveTransformNodeID(add_transform(scene, moved).GetID())
    assert a_logic.segmentationNode.GetTransformNodeID() == a_volume.GetTransformNodeID()
    np.testing.assert_array_equal(mask_of(a_logic, "kidney"), mask)
    assert a_logic.sliceShown("kidney", view(scene)) is None
    turn(view(scene), moved[:3, :3] @ axes, moved[:3, :3] @ middle + moved[:3, 3])
    assert a_logic.sliceShown("kidney", view(scene)) == shown
    a_logic.propagate()
    finish()
    assert a_logic.messages == []
    assert [request.method for request in an_engine.requests].count("set_volume") == 1
    assert mask_of(a_logic, "kidney").sum() > 3 * mask.sum()


def test_a_volume_knows_what_made_it(scene: Any, a_volume: Any) -> None:
    assert VolumeBridge(a_volume).volume().modality is None
    hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(scene)
    hierarchy.SetItemAttribute(hierarchy.CreateItem(hierarchy.GetSceneItemID(), a_volume), "DICOM.Modality", "MR")
    assert VolumeBridge(a_volume).volume().modality == "MR"
    units = slicer.vtkCodedEntry()
    units.SetValueSchemeMeaning("[hnsf'U]", "UCUM", "Hounsfield unit")
    a_volume.SetVoxelValueUnits(units)
    assert VolumeBridge(a_volume).volume().modality == "CT"


def test_each_volume_has_its_own_session(scene: Any, a_logic: Any, a_volume: Any, a_kidney: str) -> None:
    other = add_volume(scene, np.arange(6 * 8 * 9, dtype=np.int16).reshape(6, 8, 9), name="MR")
    a_logic.setVolume(other)
    assert a_logic.objects() == []
    a_logic.addObject()
    a_logic.setVolume(a_volume)
    assert [one.name for one in a_logic.objects()] == ["kidney"]
    assert len(nodes(scene, "vtkMRMLSegmentationNode")) == 2


def test_nothing_of_others_is_touched(
    scene: Any, a_logic: Any, a_volume: Any, finish: Callable[[], None], the_kidney: Mask
) -> None:
    roi = box_around(scene, a_volume, the_kidney, 8)
    others = [a_volume, a_volume.GetImageData(), a_volume.GetDisplayNode(), roi, roi.GetDisplayNode() or roi]
    view(scene).SetSliceOffset(world_of(a_volume, [(0, 0, 8)])[0, 2])
    times = [one.GetMTime() for one in others]
    a_logic.addObject("kidney")
    a_logic.setWindow("abdomen")
    a_logic.addPrompt("kidney", roi, view(scene))
    a_logic.propagate()
    finish()
    assert [one.GetMTime() for one in others] == times


def test_what_was_painted_by_hand_is_kept_and_taken_up(
    scene: Any, a_logic: Any, a_kidney: str, finish: Callable[[], None], an_engine: InProcessEngine, the_kidney: Mask
) -> None:
    from MedSAM2Lib.slice_stack import Region

    bridge = a_logic._current.bridge
    segment_id = a_logic.objects()[0].segmentId
    painted = np.zeros((1, 44, 48), dtype=bool)
    painted[0, 5:25, 5:20] = True
    bridge.write(segment_id, Region((slice(10, 11), slice(0, 44), slice(0, 48)), painted | True, painted))  # as a brush does
    a_logic.propagate()
    finish()
    np.testing.assert_array_equal(mask_of(a_logic, "kidney")[10], painted[0])
    (session,) = an_engine.sessions.values()
    assert any(isinstance(prompt, MaskPrompt) and prompt.slice_index == 10 for prompt in session.prompts(segment_id))
    assert [prompt.kind for prompt in a_logic.prompts("kidney")] == ["box", "mask"]
    a_logic.undo()
    a_logic.undo()
    finish()
    assert not (mask_of(a_logic, "kidney")[10] & ~the_kidney[10]).sum() > 40
