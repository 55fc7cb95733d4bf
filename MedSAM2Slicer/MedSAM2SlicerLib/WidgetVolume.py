"""Volume: which image is segmented, through which window the network sees it, and where the masks go."""

from __future__ import annotations

from typing import Any

import qt
import slicer
from slicer.i18n import tr as _

from MedSAM2Lib.geometry import Geometry
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
        noVolume = _("Choose a volume first.") if logic.volumeNode is None else None
        explain(
            self.window,
            _("The intensities that the network sees. New prompts use it; neither the voxels nor the display change."),
            noVolume or self._panel.whyNoChange(),
        )
        index = self.window.findData(logic.window) if logic.volumeNode is not None else 0
        if index < 0:  # LOW:HIGH, from a scene
            self.window.addItem(logic.window, logic.window)
            index = self.window.findData(logic.window)
        self.window.currentIndex = index
        self._refreshSegmentation(noVolume)
        self.info.text = "" if logic.geometry is None else _geometryText(logic.geometry)

    def _refreshSegmentation(self, noVolume: str | None) -> None:
        logic = self._panel.logic
        if self.segmentation.currentNode() is not logic.segmentationNode:
            self.segmentation.setCurrentNode(logic.segmentationNode)
        self.overwriting.currentIndex = self.overwriting.findData(logic.overwriting)
        explain(
            self.segmentation,
            _("Where objects are added: a new segmentation, or one of the scene, whose segments stay as they are."),
            noVolume or (_("The objects are in this one; remove them first.") if logic.objects() else None),
        )
        explain(
            self.overwriting,
            _("Whether masks take voxels away from other segments of the segmentation. Undo gives them back."),
            noVolume or self._panel.whyNoChange(),
        )


def _geometryText(geometry: Geometry) -> str:
    """Size, spacing and slicing plane of a volume, in a line."""
    planes = {"axial": _("axial"), "coronal": _("coronal"), "sagittal": _("sagittal")}
    k, j, i = geometry.shape
    text = _("{i} × {j} × {k} voxels of {spacing} mm, acquired in {plane} slices").format(
        i=i,
        j=j,
        k=k,
        spacing=" × ".join(f"{value:.3g}" for value in geometry.spacing),
        plane=next(text for plane, text in planes.items() if geometry.array_axis(plane) == 0),
    )
    return str(text)
