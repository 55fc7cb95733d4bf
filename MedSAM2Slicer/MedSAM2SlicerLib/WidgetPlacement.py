"""Drawing prompts in the slice views with Slicer's own markups."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import qt
import slicer
import vtk
from slicer.util import VTKObservationMixin

__all__ = ["TOOLS", "Placement", "removeDrawing"]

# By tool: the markups class that draws it.
TOOLS = {
    "box": "vtkMRMLMarkupsROINode",
    "point": "vtkMRMLMarkupsFiducialNode",
    "line": "vtkMRMLMarkupsLineNode",
    "outline": "vtkMRMLMarkupsClosedCurveNode",
    "scribble": "vtkMRMLMarkupsCurveNode",
    "box3d": "vtkMRMLMarkupsROINode",
}
_FEWEST_POINTS = {"point": 1, "line": 2, "outline": 3, "scribble": 2}
_NAME = "MedSAM2 prompt"
_STRAIGHT = math.cos(math.radians(0.5))  # of the angle between a view's axis and one of the scene's


class Placement(VTKObservationMixin):
    """One prompt being drawn at a time.

        placement = Placement(scene, applicationLogic, onBegun, onDrawn, onEnded)
        placement.start("box")      # the mouse now places a box
        onBegun(sliceNode)                   # called when its first corner is there; not for single points
        onDrawn("box", roiNode, sliceNode)   # called when it is drawn; the node is the caller's from then on
        onEnded()                            # called when nothing is being drawn any more

    Points go on until they are ended; everything else ends with its last point. Callbacks run from the event loop, never
    from within the event that placed a point: removing a node there crashes the markups widget.
    """

    def __init__(
        self,
        scene: Any,
        applicationLogic: Any,
        onBegun: Callable[[Any], None],
        onDrawn: Callable[[str, Any, Any], None],
        onEnded: Callable[[], None],
    ) -> None:
        super().__init__()
        self._scene = scene
        self._applicationLogic = applicationLogic
        self._onBegun, self._onDrawn, self._onEnded = onBegun, onDrawn, onEnded
        self._node: Any = None
        self._placed = 0  # points of it
        self._viewNode: Any = None
        self.color = (1.0, 0.7, 0.2)
        self.tool: str | None = None

    # Asked for each time: a scene that is emptied of its singletons gets others.

    @property
    def _interaction(self) -> Any:
        return self._applicationLogic.GetInteractionNode()

    @property
    def _selection(self) -> Any:
        return self._applicationLogic.GetSelectionNode()

    def start(self, tool: str) -> None:
        """Begins to draw; what was being drawn is dropped."""
        self.cancel()
        self.tool = tool
        self._newNode()
        self.addObserver(self._interaction, self._interaction.EndPlacementEvent, self._onEndOfPlacement)
        self._interaction.SetPlaceModePersistence(0 if tool in ("box", "box3d", "line") else 1)
        self._interaction.SetCurrentInteractionMode(self._interaction.Place)

    def cancel(self) -> None:
        """Ends drawing; what is not finished is removed."""
        if self.tool is None:
            return
        self.removeObservers()
        self.tool = None
        if self._interaction.GetCurrentInteractionMode() == self._interaction.Place:
            self._interaction.SetCurrentInteractionMode(self._interaction.ViewTransform)
        self._dropNode()
        self._onEnded()

    def forget(self) -> None:
        """The scene is gone, and with it the node being drawn."""
        self.removeObservers()
        self.tool, self._node = None, None

    # ── while drawing ──

    def _newNode(self) -> None:
        assert self.tool is not None
        className = TOOLS[self.tool]
        node = self._scene.AddNewNodeByClass(className, _NAME)
        node.SetSaveWithScene(False)  # the logic keeps the prompt; this is only its drawing
        node.CreateDefaultDisplayNodes()
        display = node.GetDisplayNode()
        display.SetSelectedColor(*self.color)
        display.SetPropertiesLabelVisibility(False)
        display.SetPointLabelsVisibility(False)
        display.SetVisibility3D(False)
        if node.IsA("vtkMRMLMarkupsROINode"):
            display.SetFillOpacity(0.1)
            display.SetHandlesInteractive(False)
        self._node, self._placed = node, 0
        self.addObserver(node, node.PointPositionDefinedEvent, self._onPoint)
        self._selection.SetReferenceActivePlaceNodeClassName(className)
        self._selection.SetActivePlaceNodeID(node.GetID())

    def _onPoint(self, node: Any, _event: str) -> None:
        self._viewNode = self._viewUnderCursor() or self._viewNode
        self._placed += 1
        if self.tool in ("box", "box3d") and self._placed == 1 and self._viewNode is not None:
            _turnIntoView(node, self._viewNode)
        if self.tool == "point":
            qt.QTimer.singleShot(0, lambda: self._takePoint(node))
        elif self._placed == 1 and (viewNode := self._viewNode) is not None:
            qt.QTimer.singleShot(0, lambda: self._onBegun(viewNode))

    def _takePoint(self, node: Any) -> None:
        if node is not self._node or self.tool is None:
            return
        self.removeObserver(node, node.PointPositionDefinedEvent, self._onPoint)
        self._newNode()  # the next point goes into a node of its own
        self._hand("point", node)

    def _onEndOfPlacement(self, _caller: Any, _event: str) -> None:
        qt.QTimer.singleShot(0, self._finish)

    def _finish(self) -> None:
        tool, node = self.tool, self._node
        if tool is None or node is None:
            return
        self.removeObservers()
        self.tool, self._node = None, None
        if _isComplete(tool, node):
            self._hand(tool, node)
        else:
            removeDrawing(self._scene, node)
        self._onEnded()

    def _hand(self, tool: str, node: Any) -> None:
        node.SetLocked(True)  # from here on it only shows what was drawn
        self._onDrawn(tool, node, self._viewNode or _viewThrough(node, self._scene))

    def _dropNode(self) -> None:
        if self._node is not None:
            removeDrawing(self._scene, self._node)
        self._node = None

    def _viewUnderCursor(self) -> Any:
        crosshair = self._scene.GetFirstNodeByClass("vtkMRMLCrosshairNode")
        return None if crosshair is None else crosshair.GetCursorPositionXYZ([0.0, 0.0, 0.0])


def removeDrawing(scene: Any, node: Any) -> None:
    """Takes a markups node out of the scene, and its display node, if the subject hierarchy has not yet."""
    if scene.IsNodePresent(node):
        display = node.GetDisplayNode()
        scene.RemoveNode(node)
        if scene.IsNodePresent(display):
            scene.RemoveNode(display)


def _isComplete(tool: str, node: Any) -> bool:
    defined = node.GetNumberOfDefinedControlPoints()
    if tool in ("box", "box3d"):  # needs two corners; when it has them, it keeps one point, its middle, and needs no other
        return bool(defined >= node.GetRequiredNumberOfControlPoints() and max(node.GetSize()) > 0)
    return bool(defined >= _FEWEST_POINTS[tool])


def _turnIntoView(roi: Any, sliceNode: Any) -> None:
    """In an oblique view, a ROI of which one corner is placed gets edges along the view; Slicer's have those of the scene."""
    toRas = sliceNode.GetSliceToRAS()
    axes = [[toRas.GetElement(row, column) for row in range(3)] for column in range(3)]
    lengths = [math.sqrt(sum(value * value for value in axis)) for axis in axes]
    straight = all(max(abs(value) for value in axis) > _STRAIGHT * length for axis, length in zip(axes, lengths, strict=True))
    if straight:
        return
    corner = roi.GetNthControlPointPositionWorld(0)
    turned = vtk.vtkMatrix4x4()
    for row in range(3):
        for column in range(3):
            # The view's first axis points to the patient's left: turned round, the three are right-handed.
            turned.SetElement(row, column, axes[column][row] / lengths[column] * (-1 if column == 0 else 1))
        turned.SetElement(row, 3, corner[row])
    roi.SetAndObserveObjectToNodeMatrix(turned)


def _viewThrough(node: Any, scene: Any) -> Any:
    """The slice view in whose plane a node's points lie best; where no cursor was seen (a script drew it)."""

    def distance(view: Any) -> float:
        toRas = view.GetSliceToRAS()
        normal = [toRas.GetElement(r, 2) for r in range(3)]
        origin = [toRas.GetElement(r, 3) for r in range(3)]
        points = [node.GetNthControlPointPositionWorld(n) for n in range(node.GetNumberOfControlPoints())]
        return max(abs(sum((p - o) * n for p, o, n in zip(point, origin, normal, strict=True))) for point in points)

    views = slicer.util.getNodesByClass("vtkMRMLSliceNode", scene)
    return min(views, key=distance) if views and node.GetNumberOfControlPoints() else None
