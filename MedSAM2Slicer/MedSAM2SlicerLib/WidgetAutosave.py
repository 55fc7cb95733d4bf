"""A line that offers the work of a Slicer that crashed; it waits, and is in nobody's way."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import qt
import slicer
from slicer.i18n import tr as _

from MedSAM2SlicerLib.Autosave import Autosave
from MedSAM2SlicerLib.WidgetKit import button, explain, row

__all__ = ["WidgetAutosave"]

_FOLDER = "MedSAM2-autosave"  # in Slicer's temporary folder


class WidgetAutosave:
    """Saves what is done in the panel, too: `tick` is called from its timer."""

    def __init__(self, panel: Any, layout: Any) -> None:
        self._panel = panel
        self._autosave = Autosave(slicer.mrmlScene, panel.logic, Path(str(slicer.app.temporaryPath)) / _FOLDER)
        self.text = qt.QLabel()
        self.text.objectName = "MedSAM2AutosaveText"
        self.text.wordWrap = True
        self.restoreButton = button(_("Restore"), self._onRestore, "MedSAM2Restore")
        self.discardButton = button(_("Discard"), self._onDiscard, "MedSAM2Discard")
        self.line = row(self.text, self.restoreButton, self.discardButton)
        self.line.visible = False
        layout.addWidget(self.line)

    def tick(self) -> None:
        self._autosave.poll()

    def close(self) -> None:
        self._autosave.close()

    def refresh(self) -> None:
        found = self._autosave.offered
        self.line.visible = found is not None
        if found is None:
            return
        self.text.text = _("Slicer ended in the middle of work on {volume} ({time}, objects: {count}).").format(
            volume=found.volume.name, time=time.strftime("%x %H:%M", time.localtime(found.saved)), count=found.objects
        )
        busy = _("It is being restored.") if self._autosave.isRestoring else None
        explain(
            self.restoreButton,
            _("Puts the masks, prompts and locks back into the scene, in a new segmentation."),
            busy or self._autosave.whyNot(),
        )
        explain(self.discardButton, _("Deletes what was saved of that work."), busy)

    def _onRestore(self) -> None:
        self._panel.attempt(self._autosave.restore)

    def _onDiscard(self) -> None:
        self._panel.attempt(self._autosave.discard)
