"""Prompts stay visible where they were drawn, for as long as the object has them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from MedSAM2SlicerLib.WidgetPlacement import removeDrawing

__all__ = ["WidgetDrawings"]


@dataclass
class _Drawing:
    objectName: str
    node: Any  # the markups node; only shown, the logic has the prompt
    promptId: str | None = None  # None: the engine has not answered yet


class WidgetDrawings:
    """Follows `SegmentationLogic.prompts`: a prompt that is undone, removed or refused takes its drawing along."""

    def __init__(self, scene: Any, logic: Any) -> None:
        self._scene, self._logic = scene, logic
        self._drawings: list[_Drawing] = []

    def keep(self, objectName: str, node: Any, sliceNode: Any, *, positive: bool) -> None:
        """Shows a node whose prompt was given to an object, from now on by itself and out of the lists of nodes."""
        node.SetHideFromEditors(True)
        if not positive:
            display = node.GetDisplayNode()
            display.SetGlyphType(display.Dash2D)  # a minus where it was clicked
            display.SetGlyphScale(2 * display.GetGlyphScale())  # it is thin
        if node.IsA("vtkMRMLMarkupsROINode") and sliceNode is not None:
            _flatten(node, sliceNode)
        self._drawings.append(_Drawing(objectName, node))

    def rename(self, objectName: str, newName: str) -> None:
        for drawing in self._drawings:
            if drawing.objectName == objectName:
                drawing.objectName = newName

    def refresh(self) -> None:
        names = {record.name: record for record in self._logic.objects()}
        ids = {name: [prompt.id for prompt in self._logic.prompts(name)] for name in names}
        for drawing in list(self._drawings):
            known = {each.promptId for each in self._drawings if each.objectName == drawing.objectName}
            fresh = [each for each in ids.get(drawing.objectName, []) if each not in known]
            if drawing.promptId is None and fresh:
                drawing.promptId = fresh[-1]
            waiting = drawing.promptId is None and self._logic.isBusy
            if not waiting and drawing.promptId not in ids.get(drawing.objectName, []):
                self._remove(drawing)
            elif drawing.objectName in names:
                self._show(drawing, names[drawing.objectName])

    def forget(self) -> None:
        """The scene is gone, and the nodes with it."""
        self._drawings = []

    def clear(self) -> None:
        for drawing in list(self._drawings):
            self._remove(drawing)

    def _show(self, drawing: _Drawing, record: Any) -> None:
        display = drawing.node.GetDisplayNode()
        if display is None:
            return
        if display.GetSelectedColor() != record.color:
            display.SetSelectedColor(*record.color)
        if bool(display.GetVisibility()) != record.visible:
            display.SetVisibility(record.visible)

    def _remove(self, drawing: _Drawing) -> None:
        self._drawings.remove(drawing)
        removeDrawing(self._scene, drawing.node)


def _flatten(roi: Any, sliceNode: Any) -> None:
    """A ROI drawn by two clicks is as deep as it is wide; the prompt is of one slice."""
    toRas, toNode = sliceNode.GetSliceToRAS(), roi.GetObjectToNodeMatrix()
    normal = [toRas.GetElement(row, 2) for row in range(3)]
    along = [abs(sum(normal[row] * toNode.GetElement(row, axis) for row in range(3))) for axis in range(3)]
    size = list(roi.GetSize())
    size[along.index(max(along))] = 0.5  # mm: seen on its own slice only
    roi.SetSize(size)
