"""From a slice view to the slices it shows: along an axis of the volume, or obliquely."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from MedSAM2Lib.geometry import Geometry
from MedSAM2Lib.slice_stack import SliceStack

__all__ = ["ViewBridge"]

_RAS_TO_LPS = np.array([-1.0, -1.0, 1.0])
# A view this little turned counts as straight: over a 10 cm object the plane leaves its slice by less than 1 mm.
_STRAIGHT = np.cos(np.deg2rad(0.5))


class ViewBridge:
    """Reads a vtkMRMLSliceNode. Directions and places are LPS, as the library has them."""

    def __init__(self, sliceNode: Any) -> None:
        self.node = sliceNode

    def stack(self, grid: Geometry) -> SliceStack:
        """The slices of a volume that this view pages through: planes of the array where the view is parallel to them,
        else an oblique stack of which the plane shown is one."""
        normal = self._axis(2)
        alignment = np.abs(normal @ grid.direction_matrix)  # with the index axes i, j, k
        if alignment.max() >= _STRAIGHT:
            return SliceStack.along(grid, 2 - int(np.argmax(alignment)))
        return SliceStack.oblique(grid, self._axis(0), -self._axis(1), self._origin())

    def shows(self, stack: SliceStack) -> bool:
        """Whether the view is parallel to a stack's slices."""
        return bool(abs(self._axis(2) @ _normal(stack)) >= _STRAIGHT)

    def sliceIndex(self, stack: SliceStack) -> int | None:
        """The slice of a stack that the view shows, the nearest one; None where it shows another plane, or none of them."""
        if not self.shows(stack):
            return None
        index = int(np.floor(stack.from_world(self._origin())[2] + 0.5))
        return index if 0 <= index < stack.slice_count else None

    def jump(self, stack: SliceStack, index: int, at: tuple[float, float] | None = None) -> None:
        """Moves the view to a slice of a stack, centred on a pixel (x, y), or on the slice's middle."""
        rows, columns = stack.slice_shape
        x, y = at or ((columns - 1) / 2, (rows - 1) / 2)
        self.node.JumpSliceByCentering(*(_RAS_TO_LPS * stack.to_world((x, y, index))))

    def _axis(self, column: int) -> npt.NDArray[np.float64]:
        """LPS unit vector: 0 to the right of the view, 1 up, 2 towards the viewer or away."""
        vector = _RAS_TO_LPS * [self.node.GetSliceToRAS().GetElement(row, column) for row in range(3)]
        unit: npt.NDArray[np.float64] = vector / np.linalg.norm(vector)
        return unit

    def _origin(self) -> npt.NDArray[np.float64]:
        """LPS mm of the view's middle."""
        place: npt.NDArray[np.float64] = _RAS_TO_LPS * [self.node.GetSliceToRAS().GetElement(row, 3) for row in range(3)]
        return place


def _normal(stack: SliceStack) -> npt.NDArray[np.float64]:
    """LPS unit vector across a stack's slices."""
    normal: npt.NDArray[np.float64] = stack.geometry.direction_matrix[:, 2 - stack.axis]
    return normal
