"""A slice view: draws its slice, the segments and the markups, and does what a mouse does in Slicer's."""

from __future__ import annotations

from typing import Any

import numpy as np
import slicer
import vtk
from PySide6 import QtCore, QtGui, QtWidgets
from scipy.ndimage import map_coordinates
from scipy.spatial import ConvexHull
from vtk.util.numpy_support import vtk_to_numpy

_COLORS = {"Red": "#f34a33", "Green": "#6eb04b", "Yellow": "#edd54c"}


def _matrix(m: vtk.vtkMatrix4x4) -> Any:
    return np.array([[m.GetElement(row, column) for column in range(4)] for row in range(4)])


class SliceView(QtWidgets.QWidget):
    """One vtkMRMLSliceNode, drawn with numpy."""

    def __init__(self, application: Any, slice_node: Any) -> None:
        super().__init__()
        self.application, self.slice_node = application, slice_node
        self.name = slice_node.GetLayoutName()
        self.setMouseTracking(True)
        self.setMinimumSize(120, 120)
        self.setFocusPolicy(QtCore.Qt.FocusPolicy.ClickFocus)

    # ── where things are ──

    def resizeEvent(self, event: QtGui.QResizeEvent) -> None:  # noqa: N802
        self.slice_node.SetDimensions(self.width(), self.height(), 1)
        x, y, _ = self.slice_node.GetFieldOfView()
        side = max(x, y * self.width() / max(self.height(), 1))
        self.slice_node.SetFieldOfView(side, side * self.height() / max(self.width(), 1), 1)

    def fit(self, volume: Any) -> None:
        """Shows the whole volume, at its middle."""
        bounds = [0.0] * 6
        volume.GetRASBounds(bounds)
        centre = [(bounds[2 * axis] + bounds[2 * axis + 1]) / 2 for axis in range(3)]
        self.slice_node.JumpSliceByCentering(*centre)
        to_ras = _matrix(self.slice_node.GetSliceToRAS())
        extent = np.array([bounds[1] - bounds[0], bounds[3] - bounds[2], bounds[5] - bounds[4]])
        across, up = (np.abs(to_ras[:3, axis]) @ extent for axis in (0, 1))
        scale = max(across / self.width(), up / self.height()) * 1.05
        self.slice_node.SetFieldOfView(scale * self.width(), scale * self.height(), 1)
        self.slice_node.SetSliceOrigin(0, 0, 0)
        self.update()

    def ras(self, position: QtCore.QPointF) -> Any:
        """RAS mm under a pixel of the widget."""
        xy = np.array([position.x(), self.height() - 1 - position.y(), 0.0, 1.0])
        return (_matrix(self.slice_node.GetXYToRAS()) @ xy)[:3]

    def pixel(self, ras: Any) -> QtCore.QPoint:
        """The pixel of the widget where a RAS point is shown (its projection on the slice)."""
        xy = np.linalg.inv(_matrix(self.slice_node.GetXYToRAS())) @ np.array([*ras, 1.0])
        return QtCore.QPoint(round(xy[0]), round(self.height() - 1 - xy[1]))

    # ── drawing ──

    def paintEvent(self, event: QtGui.QPaintEvent) -> None:  # noqa: N802
        painter = QtGui.QPainter(self)
        painter.fillRect(self.rect(), QtGui.QColor("black"))
        picture = self._picture()
        if picture is not None:
            height, width, _ = picture.shape
            image = QtGui.QImage(picture.tobytes(), width, height, 3 * width, QtGui.QImage.Format.Format_RGB888)
            painter.drawImage(0, 0, image)
        painter.setRenderHint(QtGui.QPainter.RenderHint.Antialiasing)
        self._draw_markups(painter)
        color = QtGui.QColor(_COLORS.get(self.name, "#888888"))
        painter.fillRect(0, 0, self.width(), 4, color)
        painter.setPen(color)
        offset = self.slice_node.GetSliceOffset()
        painter.drawText(8, 20, f"{self.name[0]}   {self.slice_node.GetOrientation()}   {offset:.1f} mm")
        painter.end()

    def _grid(self) -> Any:
        """(rows, columns, 4) homogeneous RAS points of the widget's pixels."""
        columns, rows = np.meshgrid(np.arange(self.width()), np.arange(self.height())[::-1])
        xy = np.stack([columns, rows, np.zeros_like(rows), np.ones_like(rows)], axis=-1).astype(float)
        return xy @ _matrix(self.slice_node.GetXYToRAS()).T

    def _picture(self) -> Any:
        volume = self.application.background_volume()
        if volume is None or volume.GetImageData() is None:
            return None
        ras = self._grid()
        to_ijk = vtk.vtkMatrix4x4()
        volume.GetRASToIJKMatrix(to_ijk)
        transform = volume.GetParentTransformNode()
        if transform is not None:
            world_to_local = vtk.vtkMatrix4x4()
            transform.GetMatrixTransformFromWorld(world_to_local)
            vtk.vtkMatrix4x4.Multiply4x4(to_ijk, world_to_local, to_ijk)
        values, inside = _interpolate(slicer.util.arrayFromVolume(volume), ras @ _matrix(to_ijk).T)
        display = volume.GetDisplayNode()
        low, high = _window(display, values[inside] if inside.any() else values)
        gray = np.clip((values - low) / max(high - low, 1e-6), 0, 1) * 255 * inside
        picture = np.repeat(gray[..., None], 3, axis=-1)
        for node in self.application.nodes("vtkMRMLSegmentationNode"):
            picture = self._with_segments(picture, node, ras)
        return picture.astype(np.uint8)

    def _with_segments(self, picture: Any, node: Any, ras: Any) -> Any:
        display = node.GetDisplayNode()
        if display is None or not display.GetVisibility():
            return picture
        for segment_id in node.GetSegmentation().GetSegmentIDs():
            if not display.GetSegmentVisibility(segment_id):
                continue
            segment = node.GetSegmentation().GetSegment(segment_id)
            image = segment.GetRepresentation("Binary labelmap")
            if image is None or image.GetPointData().GetScalars() is None:
                continue
            dimensions, extent = image.GetDimensions(), image.GetExtent()
            array = vtk_to_numpy(image.GetPointData().GetScalars()).reshape(dimensions[::-1])
            to_ijk = vtk.vtkMatrix4x4()
            image.GetWorldToImageMatrix(to_ijk)
            ijk = ras @ _matrix(to_ijk).T
            ijk[..., :3] -= [extent[0], extent[2], extent[4]]
            values, inside = _sample(array, ijk)
            mask = inside & (values == segment.GetLabelValue())
            edge = mask & ~(np.roll(mask, 1, 0) & np.roll(mask, -1, 0) & np.roll(mask, 1, 1) & np.roll(mask, -1, 1))
            color = np.array(segment.GetColor()) * 255
            picture[mask] = 0.65 * picture[mask] + 0.35 * color
            picture[edge] = color
        return picture

    def _draw_markups(self, painter: QtGui.QPainter) -> None:
        for node in self.application.nodes(
            "vtkMRMLMarkupsFiducialNode", "vtkMRMLMarkupsLineNode", "vtkMRMLMarkupsCurveNode", "vtkMRMLMarkupsROINode"
        ):
            display = node.GetDisplayNode()
            if display is not None and not display.GetVisibility():
                continue
            color = QtGui.QColor.fromRgbF(*(display.GetSelectedColor() if display is not None else (1, 0.6, 0)))
            painter.setPen(QtGui.QPen(color, 2))
            points = [np.array(node.GetNthControlPointPositionWorld(n)) for n in range(node.GetNumberOfControlPoints())]
            if node.IsA("vtkMRMLMarkupsROINode"):
                self._draw_roi(painter, node)
                continue
            near = [self.pixel(point) for point in points if abs(self._distance(point)) < 1.5]
            if not node.IsA("vtkMRMLMarkupsFiducialNode") and len(near) > 1:
                painter.drawPolyline(near)
            for pixel in near:
                painter.drawEllipse(pixel, 4, 4)

    def _draw_roi(self, painter: QtGui.QPainter, node: Any) -> None:
        """Where the edges of a ROI cross the slice, or its outline where it is flat."""
        if node.GetNumberOfControlPoints() == 0:
            return
        half = np.array(node.GetSize()) / 2
        signs = np.array(np.meshgrid((-1, 1), (-1, 1), (-1, 1))).T.reshape(-1, 3)
        corners = (_matrix(node.GetObjectToWorldMatrix()) @ np.c_[signs * half, np.ones(8)].T).T[:, :3]
        depths = np.array([self._distance(corner) for corner in corners])
        reach = self.application.slice_spacing(self.slice_node) / 2
        if depths.min() > reach or depths.max() < -reach:
            return
        pixels = QtGui.QPolygon([self.pixel(corner) for corner in corners])
        across = np.ptp([[point.x(), point.y()] for point in pixels.toList()], axis=0)
        outline = pixels if across.min() < 3 else _hull(pixels)
        painter.drawPolygon(outline)

    def _distance(self, ras: Any) -> float:
        """mm from the slice's plane."""
        to_ras = _matrix(self.slice_node.GetSliceToRAS())
        return float(to_ras[:3, 2] @ (np.asarray(ras) - to_ras[:3, 3]))

    # ── the mouse ──

    def mouseMoveEvent(self, event: QtGui.QMouseEvent) -> None:  # noqa: N802
        self._cursor_to(event)

    def mouseReleaseEvent(self, event: QtGui.QMouseEvent) -> None:  # noqa: N802
        # vtkSlicerMarkupsWidget: in place mode a point is placed when the button is released, wherever it was pressed.
        ras = self._cursor_to(event)
        node = self._node_to_place()
        if node is None:
            return
        interaction = self.application.interaction_node()
        if event.button() == QtCore.Qt.MouseButton.RightButton:
            interaction.SetCurrentInteractionMode(interaction.ViewTransform)
            return
        node.AddControlPointWorld(vtk.vtkVector3d(*ras))
        required = node.GetRequiredNumberOfControlPoints()
        reached = required > 0 and node.GetNumberOfControlPoints() >= required
        if not interaction.GetPlaceModePersistence() and (reached or required <= 0):
            interaction.SetCurrentInteractionMode(interaction.ViewTransform)

    def wheelEvent(self, event: QtGui.QWheelEvent) -> None:  # noqa: N802
        step = 1 if event.angleDelta().y() > 0 else -1
        self.slice_node.SetSliceOffset(
            self.slice_node.GetSliceOffset() + step * self.application.slice_spacing(self.slice_node)
        )
        self.update()

    def _cursor_to(self, event: QtGui.QMouseEvent) -> Any:
        position = event.position()
        self.application.crosshair_node().SetCursorPositionXYZ(
            [position.x(), self.height() - 1 - position.y(), 0.0], self.slice_node
        )
        return self.ras(position)

    def _node_to_place(self) -> Any:
        interaction, selection = self.application.interaction_node(), self.application.selection_node()
        if interaction.GetCurrentInteractionMode() != interaction.Place:
            return None
        return self.application.scene.GetNodeByID(selection.GetActivePlaceNodeID() or "")


def _hull(points: QtGui.QPolygon) -> QtGui.QPolygon:
    """The points around all others, in their order round the middle."""
    places = np.array([[point.x(), point.y()] for point in points.toList()])
    if len(np.unique(places, axis=0)) < 4:
        return points
    around = places[ConvexHull(places, qhull_options="QJ").vertices]
    return QtGui.QPolygon([QtCore.QPoint(int(x), int(y)) for x, y in around])


def _sample(array: Any, ijk: Any) -> tuple[Any, Any]:
    """Nearest voxels at (rows, columns, ijk) positions, and where there are any."""
    index = np.rint(ijk[..., :3]).astype(int)
    inside = np.ones(index.shape[:2], bool)
    for axis in range(3):
        inside &= (index[..., axis] >= 0) & (index[..., axis] < array.shape[2 - axis])
    index[~inside] = 0
    return array[index[..., 2], index[..., 1], index[..., 0]].astype(float), inside


def _interpolate(array: Any, ijk: Any) -> tuple[Any, Any]:
    """As `_sample`, but linearly between voxels."""
    _, inside = _sample(array, ijk)
    places = np.moveaxis(ijk[..., [2, 1, 0]], -1, 0)
    return map_coordinates(array, places, order=1, output=float, mode="nearest"), inside


def _window(display: Any, values: Any) -> tuple[float, float]:
    if display is not None and not display.GetAutoWindowLevel():
        return display.GetLevel() - display.GetWindow() / 2, display.GetLevel() + display.GetWindow() / 2
    return float(np.percentile(values, 0.5)), float(np.percentile(values, 99.5))
