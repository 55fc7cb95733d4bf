"""Volume: which image is segmented, and through which window the network sees it."""

from __future__ import annotations

from typing import Any

import qt
import slicer
from slicer.i18n import tr as _

from MedSAM2Lib.intensity import PRESETS
from MedSAM2SlicerLib.WidgetKit import Section, aside, formLayout

__all__ = ["WidgetVolume"]


class WidgetVolume(Section):
    def __init__(self, panel: Any, layout: Any) -> None:
        super().__init__(_("Volume"), "MedSAM2VolumeSection", layout)
        self._panel = panel
        form = formLayout(self.frame)

        self.selector = slicer.qMRMLNodeComboBox()
        self.selector.objectName = "MedSAM2VolumeSelector"
        self.selector.nodeTypes = ["vtkMRMLScalarVolumeNode"]
        self.selector.showChildNodeTypes = False
        self.selector.noneEnabled = True
        self.selector.addEnabled = False
        self.selector.removeEnabled = False
        self.selector.renameEnabled = False
        self.selector.setMRMLScene(slicer.mrmlScene)
        self.selector.toolTip = _("The CT or MR image to segment. Its voxels are never changed.")
        self.selector.connect("currentNodeChanged(vtkMRMLNode*)", self._onVolume)
        form.addRow(_("Volume:"), self.selector)

        self.window = qt.QComboBox()
        self.window.objectName = "MedSAM2Window"
        for key, text in self._windows():
            self.window.addItem(text, key)
        self.window.connect("currentIndexChanged(int)", self._onWindow)
        form.addRow(_("Window:"), self.window)

        self.info = aside()
        form.addRow("", self.info)

    @staticmethod
    def _windows() -> list[tuple[str, str]]:
        presets = [
            (name, f"{name.replace('-', ' ').capitalize()}  ({window.low:g} … {window.high:g} HU)")
            for name, window in PRESETS.items()
        ]
        return [("auto", _("Automatic")), ("displayed", _("As displayed")), ("percentiles", _("Percentiles")), *presets]

    def _onVolume(self, node: Any) -> None:
        if self._panel.refreshing or node is self._panel.logic.volumeNode:
            return
        self._panel.attempt(lambda: self._panel.logic.setVolume(node))

    def _onWindow(self, _index: int) -> None:
        if not self._panel.refreshing:
            self._panel.attempt(lambda: self._panel.logic.setWindow(self.window.currentData))

    def refresh(self) -> None:
        logic = self._panel.logic
        if self.selector.currentNode() is not logic.volumeNode:
            self.selector.setCurrentNode(logic.volumeNode)
        self.window.enabled = logic.volumeNode is not None
        self.window.toolTip = (
            _("The intensities that the network sees. New prompts use it; neither the voxels nor the display change.")
            if logic.volumeNode is not None
            else _("Choose a volume first.")
        )
        index = self.window.findData(logic.window) if logic.volumeNode is not None else 0
        if index < 0:  # LOW:HIGH, from a scene
            self.window.addItem(logic.window, logic.window)
            index = self.window.findData(logic.window)
        self.window.currentIndex = index
        self.info.text = logic.geometryOfEngine if logic.volumeNode is not None else ""
