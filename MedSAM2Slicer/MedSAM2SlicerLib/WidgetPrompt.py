"""Prompt: telling the network what is meant, by drawing in a slice view."""

from __future__ import annotations

from functools import partial
from typing import Any

import qt
from slicer.i18n import tr as _

from MedSAM2SlicerLib.WidgetKit import Section, button, explain, row, toolButton

__all__ = ["WidgetPrompt"]


class WidgetPrompt(Section):
    def __init__(self, panel: Any, layout: Any) -> None:
        super().__init__(_("Prompt"), "MedSAM2PromptSection", layout)
        self._panel = panel
        self._listed: list[Any] = []
        box = qt.QVBoxLayout(self.frame)
        box.setContentsMargins(8, 6, 8, 8)

        self.tools: dict[str, Any] = {}
        self._tips = {tool: tip for tool, _text, tip in _tools()}
        grid = qt.QGridLayout()
        grid.setSpacing(4)
        for place, (tool, text, _tip) in enumerate(_tools()):
            made = toolButton(text, tool, partial(panel.toggleTool, tool), f"MedSAM2Tool_{tool}", checkable=True)
            self.tools[tool] = made
            grid.addWidget(made, place // 4, place % 4)
        self.paintButton = toolButton(_("Painted"), "paint", panel.adoptPainted, "MedSAM2Tool_paint")
        grid.addWidget(self.paintButton, 1, 2)
        box.addLayout(grid)

        self.positiveButton = toolButton(_("+ belongs to it"), None, lambda: panel.setPositive(True), "MedSAM2Positive", True)
        self.negativeButton = toolButton(_("− does not"), None, lambda: panel.setPositive(False), "MedSAM2Negative", True)
        self.positiveButton.toolTip = _("Points and scribbles say where the object is (N switches).")
        self.negativeButton.toolTip = _("Points and scribbles say where the object is not (N switches).")
        box.addWidget(row(self.positiveButton, self.negativeButton))

        self.list = qt.QListWidget()
        self.list.objectName = "MedSAM2Prompts"
        self.list.toolTip = _("The prompts of the selected object. Double-click one to see its slice.")
        self.list.setFixedHeight(64)
        self.list.connect("itemSelectionChanged()", self._refreshRemove)
        self.list.connect("doubleClicked(QModelIndex)", self._onShow)
        box.addWidget(self.list)

        self.undoButton = button(_("Undo"), panel.undo, "MedSAM2Undo")
        self.redoButton = button(_("Redo"), panel.redo, "MedSAM2Redo")
        self.removeButton = button(_("Remove prompt"), self._onRemove, "MedSAM2RemovePrompt")
        box.addWidget(row(self.undoButton, self.redoButton, self.removeButton))

    def _onRemove(self) -> None:
        prompt = self._selected()
        name = self._panel.logic.currentObject
        if prompt is not None:
            self._panel.attempt(lambda: self._panel.logic.removePrompt(name, prompt.id))

    def _onShow(self) -> None:
        prompt = self._selected()
        if prompt is not None:
            self._panel.jumpTo(self._panel.logic.currentObject, prompt.sliceIndex)

    def _selected(self) -> Any:
        index = self.list.currentRow
        return self._listed[index] if 0 <= index < len(self._listed) else None

    def refresh(self) -> None:
        logic, panel = self._panel.logic, self._panel
        blocked = panel.whyNoPrompt()
        for tool, made in self.tools.items():
            explain(made, self._tips[tool], blocked)
            made.checked = panel.placement.tool == tool
        explain(
            self.paintButton,
            _("Takes over what was painted or erased in Segment Editor on the slice of the active view."),
            blocked
            or (_("There is no object yet; add one, and paint it in Segment Editor.") if logic.currentObject is None else None),
        )
        self.positiveButton.checked = panel.positive
        self.negativeButton.checked = not panel.positive
        running = panel.whyNoChange()
        explain(
            self.undoButton,
            _("Takes the last step back (Ctrl+Z)."),
            running or (None if logic.canUndo else _("Nothing to undo.")),
        )
        explain(
            self.redoButton,
            _("Does again what was undone (Ctrl+Shift+Z)."),
            running or (None if logic.canRedo else _("Nothing to redo.")),
        )
        self._refreshList()
        self._refreshRemove()

    def _refreshList(self) -> None:
        name = self._panel.logic.currentObject
        prompts = self._panel.logic.prompts(name) if name is not None else []
        if prompts != self._listed:
            self._listed = prompts
            self.list.clear()
            for prompt in prompts:
                self.list.addItem(_("{kind} on slice {slice}").format(kind=_kind(prompt), slice=prompt.sliceIndex))

    def _refreshRemove(self) -> None:
        running = self._panel.whyNoChange()
        unselected = None if self._selected() is not None else _("Select a prompt in the list first.")
        explain(self.removeButton, _("Takes the selected prompt away; its slice is worked out anew."), running or unselected)


def _tools() -> list[tuple[str, str, str]]:
    return [
        ("box", _("Box"), _("A box around the object on one slice (B): two clicks.")),
        ("point", _("Point"), _("Clicks on the object, or beside it (P). N switches between the two.")),
        ("line", _("Diameter"), _("The longest diameter of a lesion (RECIST line): two clicks.")),
        ("outline", _("Outline"), _("A closed curve; what it surrounds is taken to the pixel.")),
        ("scribble", _("Scribble"), _("A curve inside the object, or beside it.")),
        ("box3d", _("3D box"), _("A box whose depth says how far through the slices the object may reach.")),
    ]


def _kind(prompt: Any) -> str:
    names = {"box": _("Box"), "line": _("Diameter"), "mask": _("Painted"), "box3d": _("3D box")}
    return names.get(prompt.kind, _("Points +") if prompt.positive else _("Points −"))
