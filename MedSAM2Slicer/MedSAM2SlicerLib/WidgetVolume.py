"""Volume: which image is segmented, through which window the network sees it, and where the masks go."""

from __future__ import annotations

from typing import Any

import qt
import slicer
from slicer.i18n import tr as _

from MedSAM2Lib.intensity import PRESETS
from MedSAM2SlicerLib.WidgetKit import Section, aside, explain, formLayout

__all__ = ["WidgetVolume"]


class WidgetVolume(Section):
    def __init__(self, panel: Any, layout: Any) -> None:
        super().__init__(_("Volume"), "MedSAM2VolumeSection", layout)
        self._panel = panel
        form = formLayout(self.frame)

        self.selector = self._selector("vtkMRMLScalarVolumeNode", "MedSAM2VolumeSelector")
        self.selector.toolTip = _("The CT or MR image to segment. Its voxels are never changed.")
        self.selector.connect("currentNodeChanged(vtkMRMLNode*)", self._onVolume)
        form.addRow(_("Volume:"), self.selector)

        self.window = qt.QComboBox()
        self.window.objectName = "MedSAM2Window"
        for key, text in self._windows():
            self.window.addItem(text, key)
        self.window.connect("currentIndexChanged(int)", self._onWindow)
        form.addRow(_("Window:"), self.window)

        self.segmentation = self._selector("vtkMRMLSegmentationNode", "MedSAM2SegmentationSelector")
        self.segmentation.noneDisplay = _("New segmentation")
        # Not currentNodeChanged: that comes as well when nodes of the scene come and go.
        self.segmentation.connect("nodeActivated(vtkMRMLNode*)", self._onSegmentation)
        form.addRow(_("Segmentation:"), self.segmentation)

        self.overwriting = qt.QComboBox()
        self.overwriting.objectName = "MedSAM2Overwriting"
        for key, text in (
            ("none", _("Keep: segments may overlap")),
            ("visible", _("Overwrite visible segments")),
            ("all", _("Overwrite all segments")),
            ("editor", _("As set in Segment Editor, masking too")),
        ):
            self.overwriting.addItem(text, key)
        self.overwriting.connect("currentIndexChanged(int)", self._onOverwriting)
        form.addRow(_("Other segments:"), self.overwriting)

        self.info = aside()
        form.addRow("", self.info)

    @staticmethod
    def _selector(nodeType: str, name: str) -> Any:
        """Chooses a node of the scene, or none."""
        selector = slicer.qMRMLNodeComboBox()
        selector.objectName = name
        selector.nodeTypes = [nodeType]
        selector.showChildNodeTypes = False
        selector.noneEnabled = True
        selector.addEnabled = False
        selector.removeEnabled = False
        selector.renameEnabled = False
        selector.setMRMLScene(slicer.mrmlScene)
        return selector

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

    def _onSegmentation(self, node: Any) -> None:
        if node is not self._panel.logic.segmentationNode:
            self._panel.attempt(lambda: self._panel.logic.setSegmentation(node))

    def _onOverwriting(self, _index: int) -> None:
        if not self._panel.refreshing:
            self._panel.attempt(lambda: self._panel.logic.setOverwriting(self.overwriting.currentData))

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
        self._refreshSegmentation()
        self.info.text = logic.geometryOfEngine if logic.volumeNode is not None else ""

    def _refreshSegmentation(self) -> None:
        logic = self._panel.logic
        if self.segmentation.currentNode() is not logic.segmentationNode:
            self.segmentation.setCurrentNode(logic.segmentationNode)
        self.overwriting.currentIndex = self.overwriting.findData(logic.overwriting)
        noVolume = _("Choose a volume first.") if logic.volumeNode is None else None
        explain(
            self.segmentation,
            _("Where objects are added: a new segmentation, or one of the scene, whose segments stay as they are."),
            noVolume or (_("The objects are in this one; remove them first.") if logic.objects() else None),
        )
        explain(
            self.overwriting,
            _("Whether masks take voxels away from other segments of the segmentation. Undo gives them back."),
            noVolume or (_("Cancel the propagation first.") if logic.isPropagating else None),
        )
