"""The panel: its sections from top to bottom, the keys, and what to do next."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import ctk
import qt
import slicer
from slicer.i18n import tr as _

from MedSAM2Lib.errors import MedSAM2Error
from MedSAM2SlicerLib.EngineControl import EngineControl
from MedSAM2SlicerLib.EngineTimer import EngineTimer
from MedSAM2SlicerLib.SegmentationLogic import SegmentationLogic
from MedSAM2SlicerLib.WidgetAutosave import WidgetAutosave
from MedSAM2SlicerLib.WidgetDrawings import WidgetDrawings
from MedSAM2SlicerLib.WidgetEngine import WidgetEngine
from MedSAM2SlicerLib.WidgetFinish import WidgetFinish
from MedSAM2SlicerLib.WidgetHint import PanelState, nextStep
from MedSAM2SlicerLib.WidgetObjects import WidgetObjects
from MedSAM2SlicerLib.WidgetPlacement import Placement, removeDrawing
from MedSAM2SlicerLib.WidgetPrompt import WidgetPrompt
from MedSAM2SlicerLib.WidgetPropagate import WidgetPropagate
from MedSAM2SlicerLib.WidgetReview import WidgetReview, surenessOf
from MedSAM2SlicerLib.WidgetShortcuts import WidgetShortcuts
from MedSAM2SlicerLib.WidgetVolume import WidgetVolume

__all__ = ["Widget"]

_POLL_MS = 10.0  # of every 20 that the logic may work in; the rest is the event loop's
_REFRESH_MS = 100  # between two times that the panel is read anew while something runs
_ERROR_STYLE = "color: #d9534f; font-weight: bold"
_HINT_STYLE = "QLabel { border: 1px solid palette(highlight); border-radius: 4px; padding: 6px }"


class Widget:
    """Wires the sections to the logic. Keeps nothing that the logic knows: `refresh` reads it anew.

    layout       of the module's widget
    logic        a SegmentationLogic
    engine       an EngineControl for it
    """

    def __init__(self, layout: Any, logic: SegmentationLogic, engine: EngineControl) -> None:
        self.logic, self.engine = logic, engine
        self.refreshing = False
        self.positive = True
        self._dirty = False
        self._closed = False
        self._passing = False  # the message is of what the engine is doing: it goes when that is done
        self._wasPropagating = False  # when everything was refreshed last
        self._timelines: dict[str, Any] = {}  # of the refresh that goes on
        self._worst = -1  # place in the list of worst slices, -1 before the first was asked for
        self._worstSlice = -1  # the slice that was there
        self._viewNode: Any = None  # the slice view that was worked in last
        applicationLogic = slicer.app.applicationLogic()
        self.placement = Placement(slicer.mrmlScene, applicationLogic, self._onBegun, self._onDrawn, self.refresh)

        self.drawings = WidgetDrawings(slicer.mrmlScene, logic)

        self._buildTop(layout)
        self.autosave = WidgetAutosave(self, layout)
        self.volume = WidgetVolume(self, layout)
        self.objects = WidgetObjects(self, layout)
        self.prompt = WidgetPrompt(self, layout)
        self.propagate = WidgetPropagate(self, layout)
        self.review = WidgetReview(self, layout)
        self.finish = WidgetFinish(self, layout)
        self.engineSection = WidgetEngine(self, layout)
        self._buildHelp(layout)
        layout.addStretch(1)

        self._timer = EngineTimer(self._onTimer)
        self._shortcuts = WidgetShortcuts(slicer.util.mainWindow() or self.hint, self._keys())
        logic.onChange.connect(self._markDirty)
        logic.onSlice.connect(self._onSlice)
        logic.onProgress.connect(self.propagate.showProgress)
        logic.onMessage.connect(self._onMessage)
        self.refresh()

    def _buildTop(self, layout: Any) -> None:
        self.hint = qt.QLabel()
        self.hint.objectName = "MedSAM2Hint"
        self.hint.wordWrap = True
        self.hint.setStyleSheet(_HINT_STYLE)
        layout.addWidget(self.hint)
        self.message = qt.QLabel()
        self.message.objectName = "MedSAM2Message"
        self.message.wordWrap = True
        self.message.setTextInteractionFlags(qt.Qt.TextSelectableByMouse)
        self.message.visible = False
        layout.addWidget(self.message)

    def _buildHelp(self, layout: Any) -> None:
        box = ctk.ctkCollapsibleButton()
        box.text = _("Help")
        inside = qt.QVBoxLayout(box)
        text = qt.QLabel(_helpText())
        text.wordWrap = True
        text.openExternalLinks = True
        inside.addWidget(text)
        box.collapsed = True
        layout.addWidget(box)

    def _keys(self) -> dict[str, Callable[[], object]]:
        return {
            "B": lambda: self.toggleTool("box"),
            "P": lambda: self.toggleTool("point"),
            "N": self.switchSign,
            "Esc": self.placement.cancel,
            "Space": self.propagateOrCancel,
            "[": self.previousWorst,
            "]": self.nextWorst,
            "L": self.toggleLock,
            "Ctrl+Z": self.undo,
            "Ctrl+Shift+Z": self.redo,
        }

    # ── the module is opened and left ──

    def enter(self) -> None:
        self._shortcuts.setEnabled(True)
        self.renewEngine()
        self._timer.start()

    def exit(self) -> None:
        """What runs goes on, and its masks keep arriving; only keys and drawing end."""
        self._shortcuts.setEnabled(False)
        self.placement.cancel()

    def close(self) -> None:
        self._closed = True
        self._timer.stop()
        self._shortcuts.remove()
        self.placement.cancel()
        self.drawings.clear()
        self.objects.terminology.close()
        self.autosave.close()
        self.engine.close()
        self.logic.close()

    def sceneCloses(self) -> None:
        self.placement.forget()
        self.drawings.forget()
        self._viewNode = None

    def nodeComesOrGoes(self) -> None:
        """As long as no volume is chosen, what to do next is a matter of which there are."""
        if self.logic.volumeNode is None:
            self._markDirty()

    def renewEngine(self) -> None:
        """After the settings changed, or the module was opened."""
        self.attempt(self.engine.ensure)

    # ── work ──

    def attempt(self, work: Callable[[], Any]) -> Any:
        """Does something that may be refused; a refusal is shown in the panel, and everything is as before."""
        self.message.visible = False
        try:
            return work()
        except MedSAM2Error as error:
            self.warn(str(error))
        except Exception as error:
            logging.exception("MedSAM2")
            self.warn(_("Something went wrong that should not: {error}. Slicer's log has the details.").format(error=error))
        finally:
            self.refresh()
        return None

    def toggleTool(self, tool: str) -> None:
        """Begins to draw a prompt, or ends it."""
        if self.placement.tool == tool:
            self.placement.cancel()
            return
        if self._refuse(self.whyNoPrompt()):
            return
        self.placement.color = self._colorOfCurrent()
        self.placement.start(tool)
        self.refresh()

    def setPositive(self, positive: bool) -> None:
        self.positive = positive
        self.refresh()

    def switchSign(self) -> None:
        """N: points that say the opposite; begins to place them."""
        self.positive = not self.positive
        if self.placement.tool != "point" and self.whyNoPrompt() is None:
            self.toggleTool("point")
        else:
            self.refresh()

    def _onBegun(self, sliceNode: Any) -> None:
        self.attempt(lambda: self.logic.lookAt(self.logic.currentObject, sliceNode))

    def _onDrawn(self, tool: str, node: Any, sliceNode: Any) -> None:
        self._viewNode = sliceNode or self._viewNode
        positive = self.positive or tool not in ("point", "scribble")
        name = self.attempt(lambda: self._take(tool, node, sliceNode, positive))
        if name is None:
            removeDrawing(slicer.mrmlScene, node)
        else:
            self.drawings.keep(name, node, sliceNode if tool == "box" else None, positive=positive)

    def _take(self, tool: str, node: Any, sliceNode: Any, positive: bool) -> str:
        name = self.logic.currentObject or self.logic.addObject()
        if tool == "box3d":
            self.logic.addBox3D(name, node, sliceNode)
        else:
            self.logic.addPrompt(name, node, sliceNode, positive)
        return str(name)

    def adoptPainted(self) -> None:
        """The slice of the object's own segment, as it is now, becomes its mask there."""
        name = self.logic.currentObject
        record = next((each for each in self.logic.objects() if each.name == name), None)
        if record is None or self._refuse(None if self.view() is not None else _("Click in a slice view first.")):
            return
        self.attempt(lambda: self.logic.addMaskPrompt(record.name, self.logic.segmentationNode, record.segmentId, self.view()))

    def propagateOrCancel(self) -> None:
        if self.logic.isPropagating:
            self.attempt(self.logic.cancel)
            return
        if self._refuse(self.whyNoPropagation()):
            return
        self.placement.cancel()
        self._worst = -1
        self.attempt(self.propagate.start)

    def undo(self) -> None:
        if self.logic.canUndo and not self.logic.isPropagating:
            self.attempt(self.logic.undo)

    def redo(self) -> None:
        if self.logic.canRedo and not self.logic.isPropagating:
            self.attempt(self.logic.redo)

    # ── review ──

    def worstSlices(self) -> list[int]:
        """Slices that only the network spoke about: the least sure first, or where directions agree least."""
        ranked = [
            (min(sureness), mark.index)
            for mark in self.timelineOfCurrent()
            if mark.present and not (mark.prompted or mark.locked) and (sureness := surenessOf(mark))
        ]
        return [index for _sureness, index in sorted(ranked)]

    def nextWorst(self) -> None:
        looked = self._worstSlice in self.worstSlices()  # one that was locked or corrected has left its place to the next
        self._showWorst(self._worst + looked if self._worst >= 0 else 0)

    def previousWorst(self) -> None:
        self._showWorst(self._worst - 1)

    def _showWorst(self, place: int) -> None:
        ranked = self.worstSlices()
        if ranked:
            self._worst = min(max(place, 0), len(ranked) - 1)
            self._worstSlice = ranked[self._worst]
            self.jumpTo(self.logic.currentObject, self._worstSlice)

    def jumpTo(self, name: str | None, index: int) -> None:
        """Shows a slice of an object in the view that pages along its axis."""
        if name is None:
            return
        if name != self.logic.currentObject:
            self.attempt(lambda: self.logic.setCurrentObject(name))
        view = self._viewAlong(name)
        if not self._refuse(None if view is not None else _("No slice view is open.")):
            self.attempt(lambda: self.logic.jumpTo(name, index, view))

    def checkOrCancel(self) -> None:
        """Looks along the other directions, or ends that."""
        if self.logic.isPropagating:
            self.attempt(self.logic.cancel)
        elif not self._refuse(self.whyNoCheck()):
            self.placement.cancel()
            self._worst = -1
            self.attempt(lambda: self.logic.check(str(self.logic.currentObject)))

    def toggleLock(self) -> None:
        name, here = self.logic.currentObject, self.sliceShown()
        if name is None or here is None or self.logic.isPropagating:
            return
        locked = self.timelineOfCurrent()[here].locked
        self.attempt(lambda: self.logic.unlock(name, [here]) if locked else self.logic.lock(name, [here]))

    def correctHere(self) -> None:
        if self.placement.tool != "point":
            self.toggleTool("point")

    def openSegmentEditor(self) -> None:
        self.placement.cancel()
        slicer.util.selectModule("SegmentEditor")
        editor = slicer.util.getModuleWidget("SegmentEditor").editor
        editor.setSegmentationNode(self.logic.segmentationNode)
        editor.setSourceVolumeNode(self.logic.volumeNode)

    # ── what the sections ask ──

    def timelineOfCurrent(self) -> Any:
        name = self.logic.currentObject
        return self.timelineOf(name) if name is not None else []

    def timelineOf(self, name: str) -> Any:
        """Read once in a refresh, however many controls depend on it."""
        if not self.refreshing:
            return self.logic.timeline(name)
        if name not in self._timelines:
            self._timelines[name] = self.logic.timeline(name)
        return self._timelines[name]

    def view(self) -> Any:
        """The slice view that was worked in last; before any, the first there is."""
        if self._viewNode is not None and slicer.mrmlScene.IsNodePresent(self._viewNode):
            return self._viewNode
        views = slicer.util.getNodesByClass("vtkMRMLSliceNode")
        return views[0] if views else None

    def _viewAlong(self, name: str) -> Any:
        """The view worked in, if it pages along the object's axis; else one that does; else that view all the same."""
        views = [self.view(), *slicer.util.getNodesByClass("vtkMRMLSliceNode")]
        along = [each for each in views if each is not None and self.logic.sliceShown(name, each) is not None]
        return along[0] if along else views[0]

    def sliceShown(self, name: str | None = None) -> int | None:
        """The slice of an object (the current one) that is on screen."""
        name = name or self.logic.currentObject
        view = self._viewAlong(name) if name is not None else None
        return self.logic.sliceShown(name, view) if name is not None and view is not None else None

    def whyNoChange(self) -> str | None:
        """Why masks cannot be changed now; None where they can."""
        if self.logic.isChecking:
            return _("Cancel the check first (Space).")
        return _("Cancel the propagation first (Space).") if self.logic.isPropagating else None

    def whyNoPrompt(self) -> str | None:
        """Why nothing can be drawn; None where it can."""
        if self.logic.volumeNode is None:
            return _("Choose a volume first.")
        return self.engine.problem or self.whyNoChange()

    def whyNoPropagation(self) -> str | None:
        if self.whyNoPrompt() is not None:
            return self.whyNoPrompt()
        if not any(record.prompted for record in self.logic.objects()):
            return _("Draw a box (or another prompt) on one slice first.")
        return _("The engine is still working on the last prompt.") if self.logic.isBusy else None

    def whyNoCheck(self) -> str | None:
        if self.whyNoPropagation() is not None:
            return self.whyNoPropagation()
        followed = sum(mark.present for mark in self.timelineOfCurrent()) > 1
        return None if followed else _("Follow the object through its slices first (Space).")

    def _colorOfCurrent(self) -> tuple[float, float, float]:
        colors = [record.color for record in self.logic.objects() if record.name == self.logic.currentObject]
        return colors[0] if colors else (1.0, 0.7, 0.2)

    def state(self) -> PanelState:
        name, marks = self.logic.currentObject, self.timelineOfCurrent()
        ranked = self.worstSlices()
        return PanelState(
            engineProblem=self.engine.problem,
            hasVolume=self.logic.volumeNode is not None,
            anyVolumeInScene=slicer.mrmlScene.GetNumberOfNodesByClass("vtkMRMLScalarVolumeNode") > 0,
            tool=self.placement.tool,
            positive=self.positive,
            objectName=name,
            prompted=any(mark.prompted for mark in marks),
            followed=any(mark.present and not mark.prompted for mark in marks),
            busy=self.logic.isBusy,
            propagating=self.logic.isPropagating,
            checking=self.logic.isChecking,
            worstSlice=ranked[0] if ranked else None,
        )

    # ── what the user sees ──

    def refresh(self) -> None:
        """Brings every control up to date."""
        self._wasPropagating = self.logic.isPropagating
        self._refresh(
            self.autosave, self.volume, self.objects, self.prompt, self.propagate, self.review, self.finish, self.engineSection,
        )  # fmt: skip

    def _refresh(self, *sections: Any) -> None:
        if self.refreshing:
            return
        self.refreshing, self._dirty = True, False
        self._timelines = {}
        try:
            self.hint.text = nextStep(self.state())
            if self._passing and not self.logic.isBusy:
                self.message.visible = False
            self.drawings.refresh()
            for section in sections:
                section.refresh()
        finally:
            self.refreshing = False

    def say(self, text: str) -> None:
        self._show(text, "")

    def warn(self, text: str) -> None:
        self._show(text, _ERROR_STYLE)

    def _show(self, text: str, style: str) -> None:
        self._passing = False
        self.message.setStyleSheet(style)
        self.message.text = text
        self.message.visible = True
        self.engineSection.append(text)

    def _refuse(self, why: str | None) -> bool:
        if why is not None:
            self.warn(why)
        return why is not None

    # ── what the logic says ──

    def _markDirty(self) -> None:
        if not self._dirty:
            self._dirty = True
            qt.QTimer.singleShot(_REFRESH_MS if self.logic.isPropagating else 0, self._refreshIfDirty)

    def _refreshIfDirty(self) -> None:
        if self._closed:  # Slicer has destroyed the controls by the time that the timer comes
            return
        if self._dirty and self.logic.isPropagating and self._wasPropagating:
            self._refresh(self.objects, self.review)  # all that a new slice changes
        elif self._dirty:
            self.refresh()

    def _onSlice(self, _name: str, _index: int) -> None:
        self._markDirty()

    def _onMessage(self, message: Any) -> None:
        if message.level == "info":
            self.say(message.text)
            self._passing = True
        else:
            self.warn(message.text)

    def _onTimer(self) -> None:
        try:
            self.logic.poll(_POLL_MS)
        except MedSAM2Error as error:
            self.warn(str(error))
            self.refresh()
        self.engineSection.tick()
        self.autosave.tick()


def _helpText() -> str:
    keys = (
        ("B", _("box: two clicks in a slice view")),
        ("P / N", _("points on the object / beside it")),
        (_("Esc"), _("stop drawing, without a prompt")),
        (_("Space"), _("propagate, cancel")),
        ("]  [", _("to the next least sure slice, and back")),
        ("L", _("lock or unlock the slice")),
        ("Ctrl+Z, Ctrl+Shift+Z", _("undo, redo")),
    )
    rows = "".join(f"<tr><td><b>{key}</b>&nbsp;&nbsp;</td><td>{what}</td></tr>" for key, what in keys)
    return (
        f"<table>{rows}</table><p>"
        + _("The view that the first prompt is drawn in decides along which slices the object is followed.")
        + "</p><p>"
        + _(
            "Everything runs on this computer; nothing is sent anywhere. "
            "Research software, not a medical device: look at every mask."
        )
        + "</p>"
    )
