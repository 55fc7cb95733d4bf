"""Finish: masks into files, or on to Segment Editor."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import ctk
import qt
from slicer.i18n import tr as _

from MedSAM2SlicerLib.WidgetKit import Section, button, explain, formLayout, row

__all__ = ["WidgetFinish"]

_FORMATS = (".seg.nrrd", ".nrrd", ".nii.gz")


class WidgetFinish(Section):
    def __init__(self, panel: Any, layout: Any) -> None:
        super().__init__(_("Finish"), "MedSAM2FinishSection", layout)
        self._panel = panel
        form = formLayout(self.frame)

        self.format = qt.QComboBox()
        for ending, text in zip(
            _FORMATS, (_("Segmentation (.seg.nrrd)"), _("Labelmap (.nrrd)"), _("Labelmap (.nii.gz)")), strict=True
        ):
            self.format.addItem(text, ending)
        self.format.toolTip = _("A segmentation keeps names and colours. A labelmap has numbers 1, 2, … on the volume's grid.")
        self.format.connect("currentIndexChanged(int)", lambda _index: self._matchEnding())
        self.onePerObject = qt.QCheckBox(_("one file per object"))
        form.addRow(_("Format:"), row(self.format, self.onePerObject))

        self.path = ctk.ctkPathLineEdit()
        self.path.objectName = "MedSAM2ExportPath"
        self.path.filters = ctk.ctkPathLineEdit.Files | ctk.ctkPathLineEdit.Writable
        self.path.nameFilters = [_("Masks (*.seg.nrrd *.nrrd *.nii.gz)")]
        self.path.connect("currentPathChanged(QString)", lambda _path: self.refresh())
        form.addRow(_("File:"), self.path)

        self.exportButton = button(_("Export"), self._onExport, "MedSAM2Export")
        self.editorButton = button(_("Open in Segment Editor"), panel.openSegmentEditor, "MedSAM2SegmentEditor")
        form.addRow(row(self.exportButton, self.editorButton))

    def _matchEnding(self) -> None:
        if self.path.currentPath:
            self.path.currentPath = re.sub(
                r"(\.seg\.nrrd|\.nii\.gz|\.nrrd)?$", self.format.currentData, self.path.currentPath, count=1
            )

    def _onExport(self) -> None:
        path = self.path.currentPath
        if not path.endswith(_FORMATS):
            path += self.format.currentData
        files = self._panel.attempt(lambda: self._panel.logic.export(Path(path), onePerObject=self.onePerObject.checked))
        if files:
            self._panel.say(_("Written and read back: {files}").format(files=", ".join(str(file) for file in files)))

    def refresh(self) -> None:
        logic = self._panel.logic
        empty = None if any(record.prompted for record in logic.objects()) else _("There is no mask yet.")
        running = self._panel.whyNoChange()
        unnamed = None if self.path.currentPath else _("Choose a file first.")
        explain(
            self.exportButton,
            _("Writes the masks on the volume's grid and compares what was written."),
            empty or running or unnamed,
        )
        explain(self.editorButton, _("Goes on in Slicer's Segment Editor with this segmentation."), empty or running)
