"""What an object is, chosen among Slicer's own terms: the list that Segment Editor asks with, in a window of its own."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import qt
import slicer
from slicer.i18n import tr as _

from MedSAM2SlicerLib.WidgetKit import button, row

__all__ = ["WidgetTerminology"]

_LAST_LISTS = "Terminology/LastTerminologyContexts"  # a setting of Slicer's
_NO_COLOR = (127, 127, 127)  # of a term that recommends none (Slicer: vtkSlicerTerminologyType::INVALID_COLOR)


class WidgetTerminology:
    """Does not wait for the answer, as qSlicerTerminologySelectorDialog would: slices go on arriving meanwhile.

    onChosen(object, term, name, color)  called when somebody took a term: `term` as vtkSegment keeps it, the name that
                                         Slicer makes of it, and its recommended colour, or None
    """

    def __init__(self, onChosen: Callable[[str, str, str, tuple[float, float, float] | None], object]) -> None:
        self._onChosen = onChosen
        self._object = ""
        self._dialog: Any = None  # made when it is asked for first: the lists of terms are long

    def ask(self, objectName: str, term: str) -> None:
        """Opens the window, with an object's present term selected."""
        if self._dialog is None:
            self._build()
        self._object = objectName
        self._dialog.windowTitle = _("What is {name}?").format(name=objectName)
        self._onValidity(False)
        entry = slicer.vtkSlicerTerminologyEntry()
        if slicer.vtkSlicerTerminologiesModuleLogic.DeserializeTerminologyEntry(term, entry):
            # The text does not say that a type has modifiers (left, right); without that the navigator drops the modifier.
            slicer.modules.terminologies.logic().UpdateEntryFromLoadedTerminologies(entry, [], [])
        self.navigator.setTerminologyEntry(entry)  # without a term too: the lists are filled by it
        self._dialog.open()

    def close(self) -> None:
        if self._dialog is not None:
            self._dialog.reject()
            self._dialog.deleteLater()
            self._dialog = None

    def _build(self) -> None:
        self._dialog = qt.QDialog(slicer.util.mainWindow())
        self._dialog.objectName = "MedSAM2Terminology"
        layout = qt.QVBoxLayout(self._dialog)
        _forgetOnlyList()
        self.navigator = slicer.qSlicerTerminologyNavigatorWidget()
        self.navigator.overrideSectionVisible = False  # name and colour have their own places in the panel
        layout.addWidget(self.navigator)
        self.selectButton = button(_("Select"), self._dialog.accept, "MedSAM2SelectTerm")
        self.cancelButton = button(_("Cancel"), self._dialog.reject, "MedSAM2CancelTerm")
        layout.addWidget(row(self.selectButton, self.cancelButton))
        self.navigator.connect("selectionValidityChanged(bool)", self._onValidity)
        self.navigator.connect("typeDoubleClicked()", self._dialog.accept)
        self._dialog.connect("accepted()", self._onAccepted)

    def _onValidity(self, valid: bool) -> None:
        self.selectButton.enabled = valid
        self.selectButton.toolTip = "" if valid else _("Select a type in the list first.")

    def _onAccepted(self) -> None:
        entry = slicer.vtkSlicerTerminologyEntry()
        if not self.navigator.terminologyEntry(entry):
            return
        color = self.navigator.recommendedColorFromTerminology(entry)
        rgb = tuple(round(255 * part) for part in (color.redF(), color.greenF(), color.blueF()))
        self._onChosen(
            self._object,
            slicer.vtkSlicerTerminologiesModuleLogic.SerializeTerminologyEntry(entry),
            str(self.navigator.nameFromTerminology(entry)),
            None if rgb == _NO_COLOR else (color.redF(), color.greenF(), color.blueF()),
        )


def _forgetOnlyList() -> None:
    """Slicer 5.10 shows no terms at all where its settings remember exactly one list of terms (mended in 5.12)."""
    settings = slicer.app.userSettings()
    if isinstance(settings.value(_LAST_LISTS), str):  # several are a sequence
        settings.remove(_LAST_LISTS)
