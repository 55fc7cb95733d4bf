"""From markups, drawn in the world, to prompts on a stack of slices."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations, product
from typing import Any

import numpy as np
import numpy.typing as npt

from MedSAM2Lib.errors import PromptError
from MedSAM2Lib.prompts import Box, Box3D, MaskPrompt, Points, Prompt, RecistLine
from MedSAM2Lib.slice_stack import SliceStack

__all__ = ["PromptBridge"]

_Points = npt.NDArray[np.float64]

_RAS_TO_LPS = np.array([-1.0, -1.0, 1.0])
_SMALLEST_SIDE = 0.5  # pixels; a box this thin was a click and no drag
_MARGIN = 0.25  # slices; a ROI is cut at least so far from its ends, where a turned one is only a corner
_SCRIBBLE_POINTS = 8  # of a scribble; more do not tell the network more (SAM 2 is trained with at most 8 clicks)
_EDGES = [
    (a, b)
    for a, b in combinations(range(8), 2)
    if bin(a ^ b).count("1") == 1  # corners that differ along one axis
]


class PromptBridge:
    """Reads markups nodes under whatever parent transforms; never changes them.

    Every method raises PromptError, with what to do, for what does not fit: outside the volume, no area, unfinished.
    """

    def __init__(self, stack: SliceStack) -> None:
        self.stack = stack

    def prompts(self, markupsNode: Any, shownSlice: int | None, positive: bool = True) -> list[Prompt]:
        """What a node says, by its kind; points on several slices make a prompt for each.

        shownSlice  the slice that the view shows; a box drawn deep through many slices is meant for this one
        """
        if markupsNode.IsA("vtkMRMLMarkupsROINode"):
            return [self.box(markupsNode, shownSlice)]
        if markupsNode.IsA("vtkMRMLMarkupsLineNode"):
            return [self.line(markupsNode)]
        if markupsNode.IsA("vtkMRMLMarkupsClosedCurveNode"):
            return [self.outline(markupsNode, positive)]
        if markupsNode.IsA("vtkMRMLMarkupsCurveNode"):
            return list(self.scribble(markupsNode, positive))
        if markupsNode.IsA("vtkMRMLMarkupsFiducialNode"):
            return list(self.points(markupsNode, positive))
        raise PromptError(f"{markupsNode.GetName()} is no prompt; draw a box (ROI), points, a line, a curve or a closed curve.")

    # ── boxes ─────────────────────────────────────────────────────────────────────────────────────────────────

    def box(self, roiNode: Any, shownSlice: int | None = None) -> Box:
        """The rectangle in which a ROI crosses the slice shown; where it does not reach that, the slice through its middle.

        The ROI's faces are the outer edges of the box's corner pixels. What lies beyond the slice is cut off.
        """
        corners = self._roiCorners(roiNode)
        low, high = float(corners[:, 2].min()), float(corners[:, 2].max())
        reaches = shownSlice is not None and low - 0.5 <= shownSlice <= high + 0.5
        index = shownSlice if shownSlice is not None and reaches else int(np.floor((low + high) / 2 + 0.5))
        self._checkSlice("box", index)
        if high - low <= 1:  # drawn in the view: flat, so that its faces are what was drawn
            return Box(index, *self._pixels(corners))
        return Box(index, *self._pixels(_crossing(corners, min(max(index, low + _MARGIN), high - _MARGIN))))

    def box3D(self, roiNode: Any) -> Box3D:
        """A ROI as a box on its middle slice, and the slices whose centres it holds."""
        corners = self._roiCorners(roiNode)
        first = max(int(np.ceil(corners[:, 2].min() - 1e-6)), 0)
        last = min(int(np.floor(corners[:, 2].max() + 1e-6)), self.stack.slice_count - 1)
        if first > last:
            raise PromptError(
                f"The 3D box must hold the middle of at least one of the volume's {self.stack.slice_count} slices; "
                "drag its faces apart, or draw it inside the volume."
            )
        return Box3D(first, last, *self._pixels(corners))

    def _roiCorners(self, roiNode: Any) -> _Points:
        """(8, 3) (x, y, slice); corner n is on the high side of axis a where bit a of n is set."""
        if roiNode.GetNumberOfDefinedControlPoints() < 1:
            raise PromptError("The box is not drawn yet; click its two corners in a slice view.")
        half = np.asarray(roiNode.GetSize()) / 2
        toNode = roiNode.GetObjectToNodeMatrix()
        world = []
        for signs in product((-1, 1), repeat=3):
            inNode = toNode.MultiplyPoint((*(half * signs[::-1]), 1.0))[:3]
            point = [0.0, 0.0, 0.0]
            roiNode.TransformPointToWorld(inNode, point)
            world.append(point)
        return self._placed(world)

    def _pixels(self, points: _Points) -> tuple[float, float, float, float]:
        """x0, y0, x1, y1 of the pixels within the points' bounds, cut at the slice's edge."""
        rows, columns = self.stack.slice_shape
        ends = []
        for name, axis, size in (("wide", 0, columns), ("high", 1, rows)):
            low, high = float(points[:, axis].min()), float(points[:, axis].max())
            if high < -0.5 or low > size - 0.5:
                raise PromptError("The box must lie on the volume, but it is drawn beside it; draw it on the image.")
            if high - low < _SMALLEST_SIDE:
                raise PromptError(
                    f"The box must be at least {_SMALLEST_SIDE} pixels {name}, but it is {high - low:.2g}; drag it larger."
                )
            middle = min(max((low + high) / 2, 0.0), size - 1.0)
            # Faces are outer edges; corners are pixels, whose centres lie half a pixel further in.
            ends.append((min(max(low + 0.5, 0.0), middle), max(min(high - 0.5, size - 1.0), middle)))
        (x0, x1), (y0, y1) = ends
        return x0, y0, x1, y1

    # ── lines and points ──────────────────────────────────────────────────────────────────────────────────────

    def line(self, lineNode: Any) -> RecistLine:
        """A line of two points, on one slice, as the longest diameter."""
        ends = self._controlPoints(lineNode)
        if len(ends) != 2:
            raise PromptError(f"The line needs two ends, but it has {len(ends)}; click both in the same slice.")
        indices = self._slicesOf("line", ends)
        if abs(ends[0, 2] - ends[1, 2]) > 1:
            raise PromptError(
                f"The line must lie on one slice, but it goes from slice {indices[0]} to {indices[1]}; "
                "draw it without paging, in the view along whose slices the object is followed."
            )
        index = int(np.floor(ends[:, 2].mean() + 0.5))
        (x0, y0), (x1, y1) = ends[:, :2].tolist()
        return RecistLine(index, x0, y0, x1, y1)

    def points(self, fiducialNode: Any, positive: bool) -> list[Points]:
        """The defined control points, one prompt for each slice they are on."""
        placed = self._controlPoints(fiducialNode)
        if not len(placed):
            raise PromptError("No point is placed yet; click on the object in a slice view.")
        return self._bySlice("point", placed, positive)

    def scribble(self, curveNode: Any, positive: bool) -> list[Points]:
        """Points along a curve, at equal distances."""
        path = self._curve(curveNode, fewest=2)
        steps = np.concatenate(([0.0], np.cumsum(np.linalg.norm(np.diff(path, axis=0), axis=1))))
        places = np.linspace(0, steps[-1], _SCRIBBLE_POINTS)
        sampled = np.stack([np.interp(places, steps, path[:, axis]) for axis in range(3)], axis=1)
        return self._bySlice("scribble", sampled, positive)

    def _bySlice(self, what: str, placed: _Points, positive: bool) -> list[Points]:
        indices = self._slicesOf(what, placed)
        prompts = []
        for index in dict.fromkeys(indices):
            here = placed[np.asarray(indices) == index]
            xs, ys = tuple(here[:, 0].tolist()), tuple(here[:, 1].tolist())
            prompts.append(Points(index, xs, ys, (positive,) * len(xs)))
        return prompts

    # ── outlines ──────────────────────────────────────────────────────────────────────────────────────────────

    def outline(self, curveNode: Any, positive: bool = True) -> MaskPrompt:
        """A closed curve: the pixels of its slice whose centres it surrounds."""
        if not positive:
            raise PromptError("An outline says where the object is; to say where it is not, use negative points or a scribble.")
        path = self._curve(curveNode, fewest=3)
        indices = self._slicesOf("outline", path)
        if max(indices) - min(indices) > 1:
            raise PromptError(
                f"The outline must lie on one slice, but it goes from slice {min(indices)} to {max(indices)}; "
                "draw it without paging, in the view along whose slices the object is followed."
            )
        index = int(np.floor(path[:, 2].mean() + 0.5))
        mask = _filled(path[:, :2], self.stack.slice_shape)
        if not mask.any():
            raise PromptError("The outline holds no pixel; draw it larger.")
        return MaskPrompt(index, mask)

    # ── places ────────────────────────────────────────────────────────────────────────────────────────────────

    def _controlPoints(self, node: Any) -> _Points:
        """(n, 3) (x, y, slice) of the control points that are placed."""
        world = []
        for number in range(node.GetNumberOfControlPoints()):
            if node.GetNthControlPointPositionStatus(number) == node.PositionDefined:
                point = [0.0, 0.0, 0.0]
                node.GetNthControlPointPositionWorld(number, point)
                world.append(point)
        return self._placed(world)

    def _curve(self, curveNode: Any, fewest: int) -> _Points:
        """(n, 3) (x, y, slice) along a curve."""
        points = curveNode.GetCurvePointsWorld()
        if curveNode.GetNumberOfDefinedControlPoints() < fewest or points is None or points.GetNumberOfPoints() < fewest:
            raise PromptError(f"The curve needs at least {fewest} points; go on drawing it, and end it with a double click.")
        return self._placed([points.GetPoint(n) for n in range(points.GetNumberOfPoints())])

    def _placed(self, ras: Sequence[Sequence[float]]) -> _Points:
        """World RAS mm to (x, y, slice)."""
        world = _RAS_TO_LPS * np.asarray(ras, dtype=np.float64).reshape(-1, 3)
        if not np.isfinite(world).all():
            raise PromptError("The drawing has a point that lies nowhere; remove it and draw again.")
        return self.stack.from_world(world)

    def _slicesOf(self, what: str, placed: _Points) -> list[int]:
        """The slice of each point; all lie on the volume."""
        rows, columns = self.stack.slice_shape
        edges = np.array([columns, rows, self.stack.slice_count]) - 0.5
        if (placed < -0.5).any() or (placed > edges).any():
            raise PromptError(f"The {what} must lie on the volume, but it is drawn beside it; draw it on the image.")
        highest = self.stack.slice_count - 1
        return [min(int(index), highest) for index in np.floor(placed[:, 2] + 0.5)]

    def _checkSlice(self, what: str, index: int) -> None:
        if not 0 <= index < self.stack.slice_count:
            raise PromptError(
                f"The {what} must lie on the volume, slices 0..{self.stack.slice_count - 1}, but it is drawn at slice {index}; "
                "draw it on the image."
            )


def _crossing(corners: _Points, place: float) -> _Points:
    """(n, 3): where the edges of a box (corners as of `_roiCorners`) cross the plane at a slice coordinate within it."""
    crossings = []
    for a, b in _EDGES:
        one, other = corners[a], corners[b]
        if (one[2] - place) * (other[2] - place) < 0:
            crossings.append(one + (place - one[2]) / (other[2] - one[2]) * (other - one))
    return np.asarray(crossings).reshape(-1, 3)


def _filled(polygon: _Points, shape: tuple[int, int]) -> npt.NDArray[np.bool_]:
    """(rows, columns) bool: pixels whose centres lie inside a closed polygon of (x, y), by the even-odd rule."""
    mask = np.zeros(shape, dtype=bool)
    x, y = polygon.T
    nextX, nextY = np.roll(x, -1), np.roll(y, -1)
    rows = range(max(int(np.ceil(y.min())), 0), min(int(np.floor(y.max())), shape[0] - 1) + 1)
    centres = np.arange(shape[1])
    for row in rows:
        cut = (y <= row) != (nextY <= row)
        crossings = x[cut] + (row - y[cut]) / (nextY[cut] - y[cut]) * (nextX[cut] - x[cut])
        mask[row] = np.searchsorted(np.sort(crossings), centres) % 2 == 1
    return mask
