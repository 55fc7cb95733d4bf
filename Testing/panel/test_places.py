"""Where masks go: into a segmentation of the scene, over other segments, through all time points; chosen by clicks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from person import Person

TIMES = 3


@pytest.fixture
def person(host: Any) -> Person:
    return Person(host)


@pytest.fixture
def a_tumour(person: Person, host: Any) -> Any:
    """Someone else's segmentation of the patient, in which a segment fills the right half of the image."""
    import slicer
    from patient import load_patient

    volume = load_patient(host)
    node = host.scene.AddNewNodeByClass("vtkMRMLSegmentationNode", "theirs")
    node.CreateDefaultDisplayNodes()
    node.SetReferenceImageGeometryParameterFromVolumeNode(volume)
    segment_id = node.GetSegmentation().AddEmptySegment("", "tumour")
    filled = np.zeros(slicer.util.arrayFromVolume(volume).shape, dtype=np.uint8)
    filled[:, :, : filled.shape[2] // 2] = 1
    slicer.util.updateSegmentBinaryLabelmapFromArray(filled, node, segment_id, volume)
    person.loads(volume)
    return node


def voxels(segmentation: Any, name: str, volume: Any) -> Any:
    import slicer

    segment_id = segmentation.GetSegmentation().GetSegmentIdBySegmentName(name)
    return slicer.util.arrayFromSegmentBinaryLabelmap(segmentation, segment_id, volume).astype(bool)


def test_objects_go_into_a_segmentation_of_the_scene_and_back_into_a_new_one(person: Person, host: Any, a_tumour: Any) -> None:
    section = person.panel.volume
    made = person.logic.segmentationNode
    assert section.segmentation.currentNode() is made
    host.choose(section.segmentation, "theirs")
    assert person.logic.segmentationNode is a_tumour
    assert not host.scene.IsNodePresent(made)
    assert person.logic.objects() == []
    host.choose(section.segmentation, "New segmentation")
    assert person.logic.segmentationNode not in (made, a_tumour)
    assert section.segmentation.currentNode() is person.logic.segmentationNode
    assert a_tumour.GetSegmentation().GetNumberOfSegments() == 1
    host.choose(section.segmentation, "theirs")
    host.click(person.panel.objects.addButton)
    host.settle(50)
    assert not section.segmentation.enabled
    assert "remove them first" in section.segmentation.toolTip
    assert a_tumour.GetSegmentation().GetNumberOfSegments() == 2


def test_other_segments_are_kept_until_the_person_says_otherwise(person: Person, host: Any, a_tumour: Any) -> None:
    from patient import box_around

    section, volume = person.panel.volume, person.logic.volumeNode
    host.choose(section.segmentation, "theirs")
    whole = voxels(a_tumour, "tumour", volume)
    first, last = box_around("right kidney", axis=0)[1:]
    person.draws_box("Red", first, last)
    overlap = person.sees(person.logic.currentObject) & whole
    assert overlap.any()
    assert np.array_equal(voxels(a_tumour, "tumour", volume), whole)

    host.press("Ctrl+Z")
    person.waits()
    host.choose(section.overwriting, "Overwrite all segments")
    person.draws_box("Red", first, last)
    assert np.array_equal(voxels(a_tumour, "tumour", volume), whole & ~person.sees(person.logic.currentObject))
    host.press("Ctrl+Z")
    person.waits()
    assert np.array_equal(voxels(a_tumour, "tumour", volume), whole)


@pytest.fixture
def a_sequence(host: Any) -> Any:
    """The browser of a sequence of small images in which a bright block moves to the side."""
    import slicer

    logic = slicer.vtkSlicerSequencesLogic()
    logic.SetMRMLScene(host.scene)
    sequence = host.scene.AddNewNodeByClass("vtkMRMLSequenceNode", "beating")
    for time in range(TIMES):
        image = np.full((6, 48, 48), 30, dtype=np.int16)
        image[1:5, 16:30, 14 + 2 * time : 28 + 2 * time] = 220
        frame = host.scene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "frame")
        slicer.util.updateVolumeFromArray(frame, image)
        frame.CreateDefaultDisplayNodes()
        sequence.SetDataNodeAtValue(frame, str(time))
        host.scene.RemoveNode(frame)
    browser = host.scene.AddNewNodeByClass("vtkMRMLSequenceBrowserNode")
    browser.SetAndObserveMasterSequenceNodeID(sequence.GetID())
    logic.UpdateProxyNodesFromSequences(browser)
    yield browser
    del logic


def test_an_object_is_followed_through_all_time_points(
    person: Person, host: Any, a_sequence: Any, screenshots: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    section = person.panel.propagate
    volume = a_sequence.GetProxyNode(a_sequence.GetMasterSequenceNode())
    host.show(volume)
    person.loads(volume)
    person.draws_box("Red", np.array([12.0, 14.0, 3.0]), np.array([30.0, 32.0, 3.0]))
    assert section.allTimes.visible
    assert section.allTimes.text == "all 3 time points"
    host.click_at(section.allTimes, 10, 10)
    assert not section.direction.enabled
    assert not section.hereButton.enabled
    said: list[str] = []
    person.logic.onProgress.connect(lambda _progress: said.append(section.progress.format))

    host.press("Space")  # and enough, when the second time point is shown
    assert section.button.text == "Cancel"
    host.screenshot(screenshots / "panel_time.png")
    assert not section.allTimes.enabled
    host.wait_until(lambda: a_sequence.GetSelectedItemNumber() == 1)
    host.press("Space")
    person.waits()
    assert a_sequence.GetSelectedItemNumber() == 0
    assert not person.panel.message.visible, person.panel.message.text

    host.press("Space")
    person.waits()
    assert {text.split(" · ")[0] for text in said} == {f"time point {time + 1} of 3" for time in range(TIMES)}
    name = person.logic.currentObject
    middles = []
    for time in range(TIMES):
        a_sequence.SetSelectedItemNumber(time)
        middles.append(np.argwhere(person.sees(name)[3])[:, 1].mean())
    assert middles == sorted(middles)
    assert middles[-1] - middles[0] > 3  # voxels; the block moves four
    assert "Traceback" not in capfd.readouterr().err  # of observers of the scene: VTK prints it and goes on


@pytest.mark.parametrize("what", ["browser", "sequence"])
def test_a_sequence_that_is_removed_while_objects_are_followed_ends_it(
    person: Person, host: Any, a_sequence: Any, what: str
) -> None:
    volume = a_sequence.GetProxyNode(a_sequence.GetMasterSequenceNode())
    host.show(volume)
    person.loads(volume)
    person.draws_box("Red", np.array([12.0, 14.0, 3.0]), np.array([30.0, 32.0, 3.0]))
    person.panel.propagate.allTimes.checked = True
    host.press("Space")
    host.wait_until(lambda: a_sequence.GetSelectedItemNumber() == 1)
    host.scene.RemoveNode(a_sequence if what == "browser" else a_sequence.GetMasterSequenceNode())
    person.waits()
    assert "sequence was removed" in person.panel.message.text
    assert not person.logic.isBusy
    assert person.logic.objects()


def test_masks_obey_segment_editor_where_the_person_says_so(person: Person, host: Any, a_tumour: Any) -> None:
    import slicer
    from patient import box_around

    section, volume = person.panel.volume, person.logic.volumeNode
    host.choose(section.segmentation, "theirs")
    editor = host.scene.CreateNodeByClass("vtkMRMLSegmentEditorNode")
    editor.UnRegister(None)
    editor.SetSingletonTag("SegmentEditor")
    editor = host.scene.AddNode(editor)
    editor.SetAndObserveSegmentationNode(a_tumour)
    editor.SetAndObserveSourceVolumeNode(volume)
    editor.SetOverwriteMode(editor.OverwriteNone)
    editor.SourceVolumeIntensityMaskOn()
    editor.SetSourceVolumeIntensityMaskRange(120, 3000)
    host.choose(section.overwriting, "As set in Segment Editor, masking too")
    person.draws_box("Red", *box_around("right kidney", axis=0)[1:])
    mask = person.sees(person.logic.currentObject)
    assert mask.any()
    assert slicer.util.arrayFromVolume(volume)[mask].min() >= 120


def test_an_object_is_given_a_term_of_slicers_list(
    person: Person, host: Any, a_tumour: Any, screenshots: Path, tmp_path: Path
) -> None:
    from patient import box_around

    section = person.panel.objects
    assert "no object yet" in section.termButton.toolTip
    person.draws_box("Red", *box_around("right kidney", axis=0)[1:])
    before = person.logic.objects()[0]
    host.click(section.termButton)
    window = section.terminology
    assert window.navigator.types.currentItem().text() == "Tissue"  # as Slicer begins every segment
    window.navigator.types.setCurrentRow(1)
    host.screenshot_of(window.selectButton, screenshots / "panel_term.png")
    host.click(window.cancelButton)
    assert person.logic.objects()[0] == before

    host.click(section.termButton)
    window.navigator.types.setCurrentRow(1)
    host.click(window.selectButton)
    host.settle(50)
    record = person.logic.objects()[0]
    assert (record.name, record.term) == ("Kidney, Right", "Kidney, Right")
    assert record.color == pytest.approx((185 / 255, 102 / 255, 83 / 255))
    assert "SCT^64033007^Kidney" in person.logic.segmentationNode.GetSegmentation().GetNthSegment(0).GetTerminology()
    assert section.table.item(0, 2).toolTip() == "Kidney, Right"
    (file,) = person.logic.export(tmp_path / "masks.seg.nrrd")
    assert b"SCT^64033007^Kidney" in file.read_bytes()

    section.table.item(0, 2).setText("the left one after all")
    host.click(section.termButton)
    assert window.navigator.types.currentItem().text() == "Kidney, Right"  # with its side
    window.navigator.types.setCurrentRow(2)
    host.click(window.selectButton)
    record = person.logic.objects()[0]
    assert (record.name, record.term) == ("the left one after all", "Liver")  # a name that a person gave stays


def test_a_single_image_has_no_choice_of_time_points(person: Person, host: Any, a_tumour: Any) -> None:
    assert not person.panel.propagate.allTimes.visible
    assert person.panel.propagate.direction.enabled
