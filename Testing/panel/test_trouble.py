"""What goes wrong during work is said in the panel, and nothing is lost."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import Any

import pytest
from person import Person


@pytest.mark.skipif(sys.platform == "win32", reason="SIGKILL is a POSIX signal")
def test_a_killed_engine_is_reported_and_the_next_press_goes_on(person: Person, host: Any) -> None:
    panel, name = person.panel, person.logic.currentObject
    before = person.sees(name)
    host.press("Space")
    os.kill(panel.engine.client.pid, signal.SIGKILL)
    person.waits()
    assert panel.message.visible
    assert "engine" in panel.message.text.lower()
    assert not (before & ~person.sees(name)).any()
    panel.propagate.limited.checked = True
    panel.propagate.first.value, panel.propagate.last.value = 20, 24
    host.press("Space")
    person.waits()
    assert person.panel.engine.isRunning


def test_what_to_do_follows_the_volumes_that_come_and_go(host: Any) -> None:
    from patient import load_patient

    person, node = Person(host), load_patient(host)
    host.settle(20)
    assert "Choose the volume" in person.reads_hint()
    host.scene.RemoveNode(node)
    host.settle(20)
    assert "Load a CT or MR volume" in person.reads_hint()


def test_a_volume_that_is_deleted_during_propagation_ends_it(person: Person, host: Any) -> None:
    host.press("Space")
    host.scene.RemoveNode(person.logic.volumeNode)
    person.waits()
    assert not person.logic.isPropagating
    assert person.logic.volumeNode is None
    assert "Load a CT or MR volume" in person.reads_hint()


def test_a_segment_that_is_removed_during_propagation_does_not_end_it_for_the_others(person: Person, host: Any) -> None:
    from patient import box_around

    first = person.logic.objects()[0]
    host.click(person.panel.objects.addButton)
    person.draws_box("Red", *box_around("spleen", axis=0)[1:])
    second = person.logic.currentObject
    person.panel.propagate.limited.checked = True
    person.panel.propagate.first.value, person.panel.propagate.last.value = 25, 44
    host.press("Space")
    host.wait_until(lambda: sum(mark.present for mark in person.logic.timeline(first.name)) > 2)
    person.logic.segmentationNode.GetSegmentation().RemoveSegment(first.segmentId)
    person.waits()
    assert [record.name for record in person.logic.objects()] == [second]
    assert sum(mark.present for mark in person.logic.timeline(second)) > 10
    assert not person.panel.message.visible, person.panel.message.text
    host.press("Ctrl+Z")
    person.waits()
    assert sum(mark.present for mark in person.logic.timeline(second)) == 1


def test_a_scene_that_is_closed_during_propagation_leaves_an_empty_panel(person: Person, host: Any) -> None:
    from patient import load_patient

    host.press("Space")
    host.wait_until(lambda: sum(mark.present for mark in person.logic.timeline(person.logic.currentObject)) > 2)
    host.scene.Clear(0)
    host.settle(50)
    assert (person.logic.volumeNode, person.logic.isBusy) == (None, False)
    assert "Load a CT or MR volume" in person.reads_hint()
    person.loads(load_patient(host))
    assert "Press B" in person.reads_hint()


def test_an_image_that_is_replaced_during_propagation_ends_it_and_its_masks_stay(person: Person, host: Any) -> None:
    import vtk

    host.press("Space")
    host.wait_until(lambda: sum(mark.present for mark in person.logic.timeline(person.logic.currentObject)) > 2)
    mask = person.sees(person.logic.currentObject)
    other = vtk.vtkImageData()
    other.DeepCopy(person.logic.volumeNode.GetImageData())
    person.logic.volumeNode.SetAndObserveImageData(other)
    host.settle(50)
    assert "what had arrived stays" in person.panel.message.text
    assert not (mask & ~person.sees(person.logic.currentObject)).any()


def test_images_that_cannot_be_segmented_are_refused_with_what_to_do(host: Any) -> None:
    import numpy as np
    import slicer
    import vtk

    panel = host.panel.panel
    made = {}
    for name, shape in (("X-ray", (1, 8, 8)), ("blank", (4, 8, 8)), ("empty", None)):
        made[name] = host.scene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", name)
        if shape is not None:
            slicer.util.updateVolumeFromArray(made[name], np.zeros(shape, np.int16))
    colours = vtk.vtkImageData()
    colours.SetDimensions(8, 8, 4)
    colours.AllocateScalars(vtk.VTK_UNSIGNED_CHAR, 3)
    made["RGB"] = host.scene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "RGB")
    made["RGB"].SetAndObserveImageData(colours)
    for name, says in (("X-ray", "2D image"), ("blank", "contrast"), ("empty", "no voxels"), ("RGB", "3 values per voxel")):
        panel.volume.selector.setCurrentNode(made[name])
        assert says in panel.message.text, name
        assert (panel.logic.volumeNode, panel.volume.selector.currentNode()) == (None, None)
    assert "Choose the volume" in panel.hint.text
    assert host.scene.GetNumberOfNodesByClass("vtkMRMLSegmentationNode") == 0


def test_a_segmentation_on_another_grid_and_a_box_without_area_are_refused(host: Any) -> None:
    import numpy as np
    import slicer
    from patient import box_around, load_patient

    person = Person(host)
    small = host.scene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "small")
    slicer.util.updateVolumeFromArray(small, np.zeros((5, 6, 7), np.int16))
    theirs = host.scene.AddNewNodeByClass("vtkMRMLSegmentationNode", "theirs")
    theirs.SetReferenceImageGeometryParameterFromVolumeNode(small)
    person.loads(load_patient(host))
    own = person.logic.segmentationNode
    host.choose(person.panel.volume.segmentation, "theirs")
    assert "must be on the grid of CT" in person.panel.message.text
    assert person.logic.segmentationNode is own is person.panel.volume.segmentation.currentNode()

    corner = box_around("right kidney", axis=0)[1]
    person.draws_box("Red", corner, corner)
    assert not person.logic.isBusy
    assert not any(record.prompted for record in person.logic.objects())
    assert person.panel.placement.tool is None
    assert not [name for name in names_of_nodes(host) if name.startswith("MedSAM2 prompt")]


def names_of_nodes(host: Any) -> list[str]:
    return [host.scene.GetNthNode(index).GetName() or "" for index in range(host.scene.GetNumberOfNodes())]


def test_a_folder_that_cannot_be_written_and_a_point_beside_the_volume_are_reported(
    person: Person, host: Any, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("in the way")
    person.panel.finish.path.currentPath = str(tmp_path / "file" / "masks.nii.gz")
    host.click(person.panel.finish.exportButton)
    assert person.panel.message.visible
    assert str(tmp_path / "file") in person.panel.message.text

    prompts = person.logic.prompts(person.logic.currentObject)
    host.press("P")
    host.click_at(host.views["Red"], 3, 300)
    host.settle(50)
    assert "on the volume" in person.panel.message.text
    assert person.logic.prompts(person.logic.currentObject) == prompts
