"""The direction of oblique slices as a person says it: what they are at right angles to, or how a slice view lies."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from MedSAM2Lib.geometry import WORLD_SPACES, Geometry, to_lps
from MedSAM2Lib.json_fields import MistakeError, fields_of, numbers
from MedSAM2Lib.slice_stack import SliceStack, unit_vector

__all__ = ["SlicePlane", "plane_from_json", "plane_to_json"]

_Vector = tuple[float, float, float]

# How radiologists hang planes, by the LPS axis that is closest to the normal: where the picture's right and its lower edge lie.
_HANGINGS = (
    ((0.0, 1.0, 0.0), (0.0, 0.0, -1.0)),  # sagittal: to the back, to the feet
    ((1.0, 0.0, 0.0), (0.0, 0.0, -1.0)),  # coronal: to the patient's left, to the feet
    ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0)),  # axial: to the patient's left, to the back
)


@dataclass(frozen=True)
class SlicePlane:
    """One of a stack of parallel slices, LPS.

    right, down  directions in which columns and rows are counted, at right angles; slices are counted along right x down
    through      mm, a point on one of the slices; None: the middle of the image
    """

    right: _Vector
    down: _Vector
    through: _Vector | None = None

    @classmethod
    def normal_to(cls, normal: npt.ArrayLike, through: _Vector | None = None) -> SlicePlane:
        """At right angles to a direction (LPS, of any length and sign), hung as radiologists hang the plane closest to it."""
        across = unit_vector(normal)
        right_hand, feet = (np.array(one) for one in _HANGINGS[int(np.abs(across).argmax())])
        down = unit_vector(feet - (feet @ across) * across)
        right = np.cross(down, across)
        right *= np.sign(right @ right_hand)
        return cls(_vector(right), _vector(down), through)

    def stack(self, grid: Geometry) -> SliceStack:
        """The slices of a volume. Raises OptionError where the directions are not at right angles."""
        middle = grid.index_to_world((np.array(grid.shape[::-1]) - 1) / 2)
        return SliceStack.oblique(grid, self.right, self.down, middle if self.through is None else self.through)


def plane_from_json(content: Any, where: str) -> SlicePlane:
    """{"space": "ras", "normal": [R, A, S]} or {"space": "lps", "right": [L, P, S], "down": [L, P, S]}, either with a
    "through": [R, A, S]. Raises MistakeError."""
    directions = ["normal"] if isinstance(content, dict) and "normal" in content else ["right", "down"]
    fields = fields_of(content, where, required={"space", *directions}, optional={"through"})
    space = fields["space"]
    if space not in WORLD_SPACES:
        raise MistakeError(f'{where}: expected "space" to be one of {", ".join(WORLD_SPACES)}, but it is {space!r}')
    given = {name: to_lps(numbers(fields[name], 3, f"{where}.{name}"), space) for name in directions}
    point = fields.get("through")
    through = None if point is None else _vector(to_lps(numbers(point, 3, f"{where}.through"), space))
    if directions == ["normal"]:
        return SlicePlane.normal_to(given["normal"], through)
    return SlicePlane(_vector(given["right"]), _vector(given["down"]), through)


def plane_to_json(plane: SlicePlane) -> dict[str, Any]:
    """What `plane_from_json` reads back, the same to the bit."""
    through = {} if plane.through is None else {"through": list(plane.through)}
    return {"space": "lps", "right": list(plane.right), "down": list(plane.down), **through}


def _vector(values: Sequence[float] | npt.NDArray[np.float64]) -> _Vector:
    x, y, z = (float(value) for value in values)
    return x, y, z
