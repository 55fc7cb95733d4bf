"""Objects: what is being segmented, one row each."""

from __future__ import annotations

from typing import Any

import ctk
import qt
from slicer.i18n import tr as _

from MedSAM2SlicerLib.WidgetKit import Section, button, explain, row
from MedSAM2SlicerLib.WidgetTerminology import WidgetTerminology

__all__ = ["WidgetObjects"]

_SHOWN, _COLOR, _NAME, _VOLUME, _CONFIDENCE = range(5)
_MOST_ROWS = 6  # shown without scrolling
_ROW_HEIGHT = 26  # pixels


class WidgetObjects(Section):
    def __init__(self, panel: Any, layout: Any) -> None:
        super().__init__(_("Objects"), "MedSAM2ObjectsSection", layout)
        self._panel = panel
        self._records: list[Any] = []
        box = qt.QVBoxLayout(self.frame)
        box.setContentsMargins(8, 6, 8, 8)

        self.table = qt.QTableWidget()
        self.table.objectName = "MedSAM2Objects"
        self.table.columnCount = 5
        self.table.setHorizontalHeaderLabels([_("Show"), "", _("Name"), _("Volume (mL)"), _("Confidence")])
        self.table.verticalHeader().setVisible(False)
        self.table.horizontalHeader().setSectionResizeMode(qt.QHeaderView.ResizeToContents)
        self.table.horizontalHeader().setSectionResizeMode(_NAME, qt.QHeaderView.Stretch)
        self.table.setSelectionBehavior(qt.QAbstractItemView.SelectRows)
        self.table.setSelectionMode(qt.QAbstractItemView.SingleSelection)
        self.table.verticalHeader().setDefaultSectionSize(_ROW_HEIGHT)
        self.table.horizontalHeader().setFixedHeight(_ROW_HEIGHT)
        self.table.toolTip = _("Prompts go to the selected object. Double-click a name to change it.")
        self.table.connect("itemSelectionChanged()", self._onSelection)
        self.table.connect("cellChanged(int,int)", self._onCell)
        box.addWidget(self.table)

        self.addButton = button(_("Add"), self._onAdd, "MedSAM2AddObject")
        self.renameButton = button(_("Rename"), self._onRename, "MedSAM2RenameObject")
        self.termButton = button(_("Term"), self._onTerm, "MedSAM2ObjectTerm")
        self.deleteButton = button(_("Delete"), self._onDelete, "MedSAM2DeleteObject")
        box.addWidget(row(self.addButton, self.renameButton, self.termButton, self.deleteButton))
        self.terminology = WidgetTerminology(self._onTermChosen)

    # ── what the user does ──

    def _onAdd(self) -> None:
        self._panel.attempt(lambda: self._panel.logic.addObject())

    def _onRename(self) -> None:
        self.table.editItem(self.table.item(self.table.currentRow(), _NAME))

    def _onTerm(self) -> None:
        record = next((each for each in self._records if each.name == self._panel.logic.currentObject), None)
        if record is not None:
            self.terminology.ask(record.name, record.terminology)

    def _onTermChosen(self, name: str, term: str, termName: str, color: tuple[float, float, float] | None) -> None:
        newName = self._panel.attempt(lambda: self._panel.logic.setObjectTerm(name, term, termName, color))
        if newName is not None:
            self._panel.drawings.rename(name, newName)

    def _onDelete(self) -> None:
        name = self._panel.logic.currentObject
        self._panel.attempt(lambda: self._panel.logic.removeObject(name))

    def _onSelection(self) -> None:
        index = self.table.currentRow()
        if not self._panel.refreshing and 0 <= index < len(self._records):
            self._panel.attempt(lambda: self._panel.logic.setCurrentObject(self._records[index].name))

    def _onCell(self, index: int, column: int) -> None:
        if self._panel.refreshing:
            return
        name, item = self._records[index].name, self.table.item(index, column)
        if column == _SHOWN:
            shown = item.checkState() == qt.Qt.Checked
            self._panel.attempt(lambda: self._panel.logic.setObjectVisible(name, shown))
        elif column == _NAME and item.text().strip() != name:
            self._panel.attempt(lambda: self._rename(name, item.text().strip()))

    def _rename(self, name: str, newName: str) -> None:
        self._panel.logic.renameObject(name, newName)
        self._panel.drawings.rename(name, newName)

    def _onColor(self, name: str, color: Any) -> None:
        if not self._panel.refreshing:
            rgb = (color.redF(), color.greenF(), color.blueF())
            self._panel.attempt(lambda: self._panel.logic.setObjectColor(name, rgb))

    # ── what is shown ──

    def refresh(self) -> None:
        logic = self._panel.logic
        noVolume = _("Choose a volume first.") if logic.volumeNode is None else None
        noObject = noVolume or (_("There is no object yet.") if logic.currentObject is None else None)
        running = self._panel.whyNoChange()
        explain(self.addButton, _("Adds an object; prompts then go to it."), noVolume or running)
        explain(self.renameButton, _("Names the selected object."), noObject or running)
        explain(
            self.termButton,
            _("Says what the selected object is, in terms of a standard (SNOMED CT), as DICOM files have them."),
            noObject,
        )
        explain(self.deleteButton, _("Removes the selected object and its mask. Undo brings it back."), noObject or running)

        records = logic.objects()
        if [record.name for record in records] != [record.name for record in self._records]:
            self._rebuild(records)
        self._records = records
        for index, record in enumerate(records):
            self._fill(index, record)
        names = [record.name for record in records]
        if logic.currentObject in names:
            self.table.selectRow(names.index(logic.currentObject))
        self._fitHeight()

    def _rebuild(self, records: list[Any]) -> None:
        self.table.rowCount = len(records)
        for index, record in enumerate(records):
            for column in (_SHOWN, _NAME, _VOLUME, _CONFIDENCE):
                self.table.setItem(index, column, qt.QTableWidgetItem())
            fixed = qt.Qt.ItemIsEnabled | qt.Qt.ItemIsSelectable
            self.table.item(index, _SHOWN).setFlags(fixed | qt.Qt.ItemIsUserCheckable)
            self.table.item(index, _NAME).setFlags(fixed | qt.Qt.ItemIsEditable)
            for column in (_VOLUME, _CONFIDENCE):
                self.table.item(index, column).setFlags(fixed)
                self.table.item(index, column).setTextAlignment(qt.Qt.AlignRight | qt.Qt.AlignVCenter)
            picker = ctk.ctkColorPickerButton()
            picker.displayColorName = False
            picker.toolTip = _("The object's colour")
            picker.connect("colorChanged(QColor)", lambda color, name=record.name: self._onColor(name, color))
            self.table.setCellWidget(index, _COLOR, picker)

    def _fill(self, index: int, record: Any) -> None:
        self.table.item(index, _SHOWN).setCheckState(qt.Qt.Checked if record.visible else qt.Qt.Unchecked)
        self.table.cellWidget(index, _COLOR).color = qt.QColor.fromRgbF(*record.color)
        self.table.item(index, _NAME).setText(record.name)
        self.table.item(index, _NAME).setToolTip(record.term or _("No term yet. Double-click to change the name."))
        self.table.item(index, _VOLUME).setText(f"{record.volumeMl:.2f}" if record.prompted else "–")
        known = record.confidence is not None
        self.table.item(index, _CONFIDENCE).setText(f"{100 * record.confidence:.0f} %" if known else "–")
        self.table.item(index, _CONFIDENCE).setToolTip(
            _("Mean overlap (IoU) that the network expects of its own masks. An estimate, not a measurement.")
        )

    def _fitHeight(self) -> None:
        rows = min(max(len(self._records), 1), _MOST_ROWS)
        self.table.setFixedHeight((rows + 1) * _ROW_HEIGHT + 4)
