"""A volume that pages through time: the point that is shown, and all of them one after another."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

pytest.importorskip("slicer", reason="needs the slicer-core wheel")

import slicer

from MedSAM2Lib.errors import UsageError
from MedSAM2SlicerLib.SegmentationLogic import SegmentationLogic
from Testing.mrml.engine import InProcessEngine
from Testing.mrml.support import add_volume, box_around, mask_of, nodes, view

TIMES = 4


@pytest.fixture
def the_heart(the_kidney: np.ndarray) -> list[np.ndarray]:
    """It moves two voxels to the side from one time point to the next."""
    return [np.roll(the_kidney, 2 * time, axis=2) for time in range(TIMES)]


@pytest.fixture
def a_sequence(scene: Any, the_heart: list[np.ndarray]) -> Any:
    """The browser of a sequence of CTs; its volume node is called "beating"."""
    logic = slicer.vtkSlicerSequencesLogic()
    logic.SetMRMLScene(scene)
    sequence = scene.AddNewNodeByClass("vtkMRMLSequenceNode", "beating")
    for time, inside in enumerate(the_heart):
        volume = add_volume(scene, np.where(inside, 220, 30).astype(np.int16))
        sequence.SetDataNodeAtValue(volume, str(0.1 * time))
        scene.RemoveNode(volume)
    browser = scene.AddNewNodeByClass("vtkMRMLSequenceBrowserNode")
    browser.SetAndObserveMasterSequenceNodeID(sequence.GetID())
    logic.UpdateProxyNodesFromSequences(browser)
    browser.SetSelectedItemNumber(1)
    yield browser
    del logic


@pytest.fixture
def a_logic(scene: Any, a_sequence: Any, an_engine: InProcessEngine, the_heart: list[np.ndarray]) -> Any:
    """A box is drawn on the second time point."""
    logic = SegmentationLogic(scene, an_engine)
    logic.messages = []
    logic.onMessage.connect(lambda message: logic.messages.append(message.text))
    logic.setVolume(a_sequence.GetProxyNode(a_sequence.GetMasterSequenceNode()))
    logic.setWindow("0:255")
    logic.addObject("heart")
    view(scene).SetSliceOffset(8)
    logic.addPrompt("heart", box_around(scene, logic.volumeNode, the_heart[1], 8), view(scene))
    yield logic
    logic.close()


def likeness(found: np.ndarray, truth: np.ndarray) -> float:
    return float(2 * (found & truth).sum() / (found.sum() + truth.sum()))


def test_an_object_is_followed_through_time(
    a_logic: Any, a_sequence: Any, finish: Callable[[], None], the_heart: list[np.ndarray]
) -> None:
    finish()
    assert a_logic.timePoints == TIMES
    a_logic.propagateInTime()
    finish()
    assert a_logic.messages == []
    assert a_sequence.GetSelectedItemNumber() == 1
    assert [prompt.kind for prompt in a_logic.prompts("heart")] == ["box"]
    for time, truth in enumerate(the_heart):
        a_sequence.SetSelectedItemNumber(time)
        assert likeness(mask_of(a_logic, "heart"), truth) > 0.9, time


def test_only_the_point_that_is_shown_is_segmented_otherwise(
    a_logic: Any, a_sequence: Any, finish: Callable[[], None], the_heart: list[np.ndarray]
) -> None:
    a_logic.propagate()
    finish()
    assert likeness(mask_of(a_logic, "heart"), the_heart[1]) > 0.9
    assert not a_logic.isBusy
    a_sequence.SetSelectedItemNumber(2)  # the engine is given the other image with the next step
    assert not a_logic.canUndo


def test_following_through_time_can_be_cancelled(a_logic: Any, a_sequence: Any, finish: Callable[[], None], scene: Any) -> None:
    finish()
    a_logic.propagateInTime()
    while a_sequence.GetSelectedItemNumber() != 2:
        a_logic.poll(0)
    a_logic.cancel()
    finish()
    assert a_sequence.GetSelectedItemNumber() == 1
    kept = next(node for node in nodes(scene, "vtkMRMLSequenceNode") if "over time" in node.GetName())
    assert kept.GetNumberOfDataNodes() == 2


def test_a_single_image_has_no_time(scene: Any, a_logic: Any, finish: Callable[[], None]) -> None:
    finish()
    a_logic.setVolume(add_volume(scene, np.arange(5 * 6 * 7, dtype=np.int16).reshape(5, 6, 7)))
    assert a_logic.timePoints == 1
    with pytest.raises(UsageError, match="single image"):
        a_logic.propagateInTime()
