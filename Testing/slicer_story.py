"""The story of the README in a real 3D Slicer with its main window; leaves pictures of it.

    Slicer --no-splash --python-script Testing/slicer_story.py --additional-module-paths MedSAM2Slicer

MEDSAM2_SCREENSHOTS names the folder for the pictures; without it they go to a temporary folder, whose name is printed.
MEDSAM2_COMMAND, where set, is the engine's command (another Python that has torch). Slicer ends with status 0 when all went well.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ctk
import numpy as np
import qt
import slicer
import vtk


class Story:
    """A person in front of Slicer: pages, clicks, presses keys, looks."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        slicer.util.mainWindow().showMaximized()
        slicer.app.layoutManager().setLayout(slicer.vtkMRMLLayoutNode.SlicerLayoutFourUpView)
        slicer.util.selectModule("MedSAM2Slicer")
        self.panel = slicer.util.getModuleWidget("MedSAM2Slicer").panel
        self.logic = self.panel.logic
        if command := os.environ.get("MEDSAM2_COMMAND"):
            self.panel.engine.setSetting("command", command)
            self.panel.renewEngine()

    def lookAt(self, volume: Any, name: str) -> None:
        self.settle(1.0)  # the views have their size when the window has it
        slicer.util.setSliceViewerLayers(background=volume, fit=True)
        self.panel.volume.selector.setCurrentNode(volume)
        self.picture(name)

    def page(self, view: str, ras: Any) -> None:
        slicer.app.layoutManager().sliceWidget(view).mrmlSliceNode().JumpSlice(*ras)

    def click(self, view: str, ras: Any, button: str = "Left") -> None:
        """At the pixel of a slice view where a RAS point is shown."""
        widget = slicer.app.layoutManager().sliceWidget(view)
        toXY = vtk.vtkMatrix4x4()
        vtk.vtkMatrix4x4.Invert(widget.mrmlSliceNode().GetXYToRAS(), toXY)
        x, y = (round(value) for value in toXY.MultiplyPoint((*ras, 1.0))[:2])
        slicer.util.clickAndDrag(widget, button="None", start=(x - 3, y), end=(x, y), steps=2)  # the mouse arrives
        slicer.util.clickAndDrag(widget, button=button, start=(x, y), end=(x, y), steps=1)
        self.settle()

    def box(self, view: str, first: Any, last: Any) -> None:
        self.page(view, first)
        self.panel.toggleTool("box")
        self.click(view, first)
        self.click(view, last)
        self.finish()

    def term(self, text: str, name: str) -> None:
        """Chooses a term of Slicer's list for the selected object."""
        self.panel.objects.termButton.click()
        self.picture(name, self.panel.objects.terminology.navigator)
        window, entry = self.panel.objects.terminology, slicer.vtkSlicerTerminologyEntry()
        slicer.vtkSlicerTerminologiesModuleLogic.DeserializeTerminologyEntry(text, entry)
        slicer.modules.terminologies.logic().UpdateEntryFromLoadedTerminologies(entry, [], [])
        window.navigator.setTerminologyEntry(entry)
        self.settle()
        window.selectButton.click()
        self.settle()

    def settle(self, seconds: float = 0.3) -> None:
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            slicer.app.processEvents()
            time.sleep(0.005)

    def until(self, condition: Callable[[], bool], seconds: float = 180) -> None:
        end = time.monotonic() + seconds
        while not condition():
            if time.monotonic() > end:
                raise TimeoutError(f"waited {seconds} s; the panel says: {self.panel.hint.text} {self.panel.message.text}")
            self.settle(0.05)

    def finish(self) -> None:
        """Until the engine has answered."""
        self.settle()
        self.until(lambda: not self.logic.isBusy and not self.logic.isPropagating)
        self.settle()

    def picture(self, name: str, widget: Any = None) -> None:
        self.settle()
        ctk.ctkWidgetsUtils.grabWidget(widget or slicer.util.mainWindow()).save(str(self.folder / f"{name}.png"))


def ballVolume() -> Any:
    """A bright ball of 30 mm in a cube of noise, RAS 0 in its middle."""
    k, j, i = np.mgrid[:48, :96, :96] - np.array([24, 48, 48]).reshape(3, 1, 1, 1)
    ball = (2 * k) ** 2 + j**2 + i**2 < 30**2
    noise = np.random.default_rng(0).normal(0, 12, ball.shape)
    volume = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "ball")
    volume.SetSpacing(1, 1, 2)
    volume.SetOrigin(-48, -48, -48)
    slicer.util.updateVolumeFromArray(volume, (noise + 150 * ball).astype(np.int16))
    volume.CreateDefaultDisplayNodes()
    return volume


def play(folder: Path) -> None:
    story = Story(folder)
    panel, logic = story.panel, story.logic
    story.lookAt(ballVolume(), "1_volume")

    story.box("Red", (-34, -34, 0), (34, 34, 0))
    name = logic.currentObject
    assert sum(mark.present for mark in logic.timeline(name)) == 1, "a box gives a mask on its slice"
    story.picture("2_box")

    panel.propagateOrCancel()
    story.until(lambda: sum(mark.present for mark in logic.timeline(name)) >= 4)
    story.picture("3_propagating")
    panel.propagateOrCancel()
    story.finish()

    panel.nextWorst()
    panel.toggleTool("point")
    story.click("Red", (0, 0, slicer.app.layoutManager().sliceWidget("Red").mrmlSliceNode().GetSliceOffset()))
    story.click("Red", (0, 40, 0), button="Right")
    story.finish()
    panel.propagateOrCancel()
    story.finish()
    story.picture("4_review")

    panel.checkOrCancel()
    story.finish()
    assert any(mark.agreement is not None for mark in logic.timeline(name)), "other directions were asked"
    story.picture("5_check")

    before = sum(mark.present for mark in logic.timeline(name))
    panel.undo()
    story.finish()
    panel.redo()
    story.finish()
    assert sum(mark.present for mark in logic.timeline(name)) == before, "redo brings back what undo took"

    logic.addObject("second")
    story.box("Green", (-34, 0, -34), (34, 0, 34))
    story.picture("6_second_object")
    story.term(
        "Segmentation category and type - 3D Slicer General Anatomy list~SCT^123037004^Anatomical Structure"
        "~SCT^64033007^Kidney~SCT^24028007^Right~Anatomic codes - DICOM master list~^^~^^",
        "7_term",
    )
    assert logic.objects()[1].term == "Kidney, Right", logic.objects()[1].terminology
    files = logic.export(folder / "masks.nii.gz")
    assert all(file.is_file() for file in files)


def main() -> None:
    folder = Path(os.environ.get("MEDSAM2_SCREENSHOTS") or tempfile.mkdtemp(prefix="MedSAM2-"))
    folder.mkdir(parents=True, exist_ok=True)
    try:
        play(folder)
    except Exception:
        traceback.print_exc()
        slicer.util.exit(1)
    else:
        sys.stdout.write(f"The story went well; its pictures are in {folder}\n")
        slicer.util.exit(0)


# A script that is run at start finds no views yet.
qt.QTimer.singleShot(2000, main)
