"""Propagate: following the objects through the slices."""

from __future__ import annotations

from typing import Any

import qt
from slicer.i18n import tr as _

from MedSAM2SlicerLib.WidgetKit import Section, button, explain, formLayout, row

__all__ = ["WidgetPropagate"]


class WidgetPropagate(Section):
    def __init__(self, panel: Any, layout: Any) -> None:
        super().__init__(_("Propagate"), "MedSAM2PropagateSection", layout)
        self._panel = panel
        form = formLayout(self.frame)

        self.button = button(_("Propagate"), panel.propagateOrCancel, "MedSAM2Propagate")
        self.button.setMinimumHeight(36)
        self.button.setStyleSheet("font-weight: bold")
        form.addRow(self.button)

        self.progress = qt.QProgressBar()
        self.progress.objectName = "MedSAM2Progress"
        self.progress.maximum = 1
        self.progress.format = ""
        form.addRow(self.progress)

        self.direction = qt.QComboBox()
        for key, text in (
            ("both", _("Both ways")),
            ("up", _("Up: higher slice numbers")),
            ("down", _("Down: lower slice numbers")),
        ):
            self.direction.addItem(text, key)
        self.scope = qt.QComboBox()
        self.scope.addItem(_("all objects"), "all")
        self.scope.addItem(_("selected object"), "current")
        self.scope.toolTip = _("Which objects are followed. Several at once share the work on each slice.")
        form.addRow(_("Follow:"), row(self.scope, self.direction))

        self.limited = qt.QCheckBox(_("only slices"))
        self.limited.connect("toggled(bool)", lambda _checked: self._refreshRange())
        self.first, self.last = qt.QSpinBox(), qt.QSpinBox()
        self.hereButton = button(_("From here"), self._onHere, "MedSAM2FromHere")
        form.addRow(self.limited, row(self.first, qt.QLabel("–"), self.last, self.hereButton))

        self.stopAfter = qt.QSpinBox()
        self.stopAfter.objectName = "MedSAM2StopAfter"
        self.stopAfter.maximum = 99
        self.stopAfter.suffix = _(" empty slices")
        self.stopAfter.specialValueText = _("never")
        self.stopAfter.connect("valueChanged(int)", self._onStopAfter)
        form.addRow(_("Stop after:"), self.stopAfter)

        self.allTimes = qt.QCheckBox()
        self.allTimes.objectName = "MedSAM2AllTimes"
        self.allTimes.connect("toggled(bool)", lambda _checked: self.refresh())
        form.addRow(self.allTimes)

    def start(self) -> None:
        """Propagates as the controls say."""
        logic = self._panel.logic
        names = [logic.currentObject] if self.scope.currentData == "current" else None
        if self._isInTime():
            logic.propagateInTime(names)
        else:
            logic.propagate(names, **self._limits())

    def _isInTime(self) -> bool:
        return bool(self.allTimes.checked and self._panel.logic.timePoints > 1)

    def _limits(self) -> dict[str, Any]:
        """Direction and range, as `SegmentationLogic.propagate` takes them."""
        limited = self.limited.checked
        return {
            "direction": self.direction.currentData,
            "first": self.first.value if limited else None,
            "last": self.last.value if limited else None,
        }

    def _onStopAfter(self, value: int) -> None:
        if not self._panel.refreshing:
            self._panel.engine.setSetting("stopAfter", str(value))
            self._panel.renewEngine()

    def _onHere(self) -> None:
        """Starts at the slice that the view shows, and goes on in the chosen direction."""
        here = self._panel.sliceShown()
        if here is None:
            return
        self.limited.checked = True
        if self.direction.currentData == "down":
            self.last.value = here
        else:
            self.first.value = here

    def showProgress(self, progress: Any) -> None:
        self.progress.maximum = max(progress.total, 1)
        self.progress.value = progress.done
        parts = []
        if progress.parts > 1:
            words = _("direction {shown} of {count}") if self._panel.logic.isChecking else _("time point {shown} of {count}")
            parts.append(words.format(shown=progress.part + 1, count=progress.parts))
        parts.append(_("{done} of {total} slices").format(done=progress.done, total=progress.total))
        if progress.slicesPerSecond > 0:
            parts.append(_("{rate:.1f} slices/s").format(rate=progress.slicesPerSecond))
        if progress.secondsLeft is not None and progress.done < progress.total:
            parts.append(_("{seconds:.0f} s left").format(seconds=progress.secondsLeft))
        self.progress.format = " · ".join(parts)

    def refresh(self) -> None:
        logic = self._panel.logic
        if logic.isPropagating:
            self.button.text = _("Cancel")
            explain(self.button, _("Ends after the slice being worked on (Space). Masks that have arrived stay."), None)
        else:
            self.button.text = _("Propagate")
            explain(self.button, _("Follows the objects through the slices (Space)."), self._panel.whyNoPropagation())
            if self.progress.value < self.progress.maximum:
                self.progress.value = 0
                self.progress.format = ""
        self.stopAfter.value = int(self._panel.engine.setting("stopAfter"))
        explain(
            self.stopAfter,
            _("A direction ends after so many slices in a row without the object. For this computer, not for the scene."),
            self._panel.whyNoChange(),
        )
        self._refreshTime()
        self._refreshRange()

    def _refreshTime(self) -> None:
        logic = self._panel.logic
        count = logic.timePoints
        self.allTimes.visible = count > 1
        self.allTimes.text = _("all {count} time points").format(count=count)
        explain(
            self.allTimes,
            _("Goes on from the time point that is shown to all others; afterwards the masks page with the volume. No undo."),
            self._panel.whyNoChange(),
        )
        inTime = self._whyNoLimits()
        explain(self.direction, _("From the prompts, in which direction the object is followed."), inTime)
        explain(self.limited, _("Stays within these slices of the object's axis."), inTime)

    def _whyNoLimits(self) -> str | None:
        return _("All time points are followed both ways, through all slices.") if self._isInTime() else None

    def _refreshRange(self) -> None:
        marks = self._panel.timelineOfCurrent()
        highest = max(len(marks) - 1, 0)
        for box in (self.first, self.last):
            wasFull = box is self.last and box.value == box.maximum
            box.maximum = highest
            if wasFull:
                box.value = highest
            unlimited = None if self.limited.checked else _("Tick 'only slices' first.")
            explain(box, _("A slice number along the object's axis; both ends belong to it."), self._whyNoLimits() or unlimited)
        noAxis = None if marks else _("The object needs a prompt first: it decides the axis along which slices are counted.")
        explain(self.hereButton, _("Begins at the slice that the active view shows."), noAxis or self._whyNoLimits())
