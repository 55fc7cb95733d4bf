"""Where a voxel lies in the patient, and which array axis is which anatomical plane.

Arrays are (k, j, i). World coordinates are LPS millimetres, as ITK and NRRD keep them: x to the patient's left,
y to the back, z to the head. Index triples that go into or come out of world coordinates are (i, j, k), ITK's order.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from MedSAM2Lib.errors import OptionError, VolumeError

__all__ = ["AXIS_NAMES", "WORLD_SPACES", "Geometry", "to_lps"]

_ARRAY_AXES = {"k": 0, "j": 1, "i": 2}
# Row of the direction matrix (LPS) along which the plane's normal points.
_PLANE_NORMALS = {"sagittal": 0, "coronal": 1, "axial": 2}
AXIS_NAMES = (*_ARRAY_AXES, *_PLANE_NORMALS)
WORLD_SPACES = ("ras", "lps")  # as 3D Slicer counts, and as ITK, DICOM and this library do

# A direction matrix is accepted when its columns are orthonormal to within this; files round to 6-7 digits.
_ORTHONORMAL_TOLERANCE = 1e-3


@dataclass(frozen=True)
class Geometry:
    """The grid of a volume.

    shape      voxels along (k, j, i)
    spacing    mm between voxel centres along (i, j, k)
    origin     LPS mm of the centre of voxel (0, 0, 0)
    direction  3 x 3, row-major; column c is the LPS unit vector of index axis (i, j, k)[c]
    """

    shape: tuple[int, int, int]
    spacing: tuple[float, float, float] = (1.0, 1.0, 1.0)
    origin: tuple[float, float, float] = (0.0, 0.0, 0.0)
    direction: tuple[float, ...] = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0)

    def __post_init__(self) -> None:
        if len(self.shape) != 3 or min(self.shape) < 1:
            raise VolumeError(f"A volume has at least one voxel along k, j and i, but its size is {self.shape}; export it again.")
        if not all(np.isfinite(s) and s > 0 for s in self.spacing):
            raise VolumeError(
                f"Voxel spacing must be positive and finite, but it is {self.spacing} mm; correct the file's header."
            )
        if not np.all(np.isfinite(self.origin)):
            raise VolumeError(f"The origin must be finite, but it is {self.origin} mm; correct the file's header.")
        matrix = self.direction_matrix
        if not np.allclose(matrix.T @ matrix, np.eye(3), atol=_ORTHONORMAL_TOLERANCE):
            raise VolumeError(
                f"The direction matrix must have orthonormal columns, but it is {np.round(matrix, 4).tolist()}; "
                "resample a sheared (gantry-tilted) image first."
            )

    @property
    def direction_matrix(self) -> npt.NDArray[np.float64]:
        """(3, 3): columns are the LPS unit vectors of the index axes i, j, k."""
        if len(self.direction) != 9:
            raise VolumeError(f"A direction matrix has 9 numbers, but {len(self.direction)} came.")
        return np.asarray(self.direction, dtype=np.float64).reshape(3, 3)

    @property
    def voxel_volume_ml(self) -> float:
        return float(np.prod(self.spacing)) / 1000.0

    def index_to_world(self, index: npt.ArrayLike) -> npt.NDArray[np.float64]:
        """(..., 3) voxel coordinates (i, j, k), fractions allowed, to (..., 3) LPS mm."""
        scaled = np.asarray(index, dtype=np.float64) * np.asarray(self.spacing)
        world: npt.NDArray[np.float64] = scaled @ self.direction_matrix.T + np.asarray(self.origin)
        return world

    def world_to_index(self, world: npt.ArrayLike) -> npt.NDArray[np.float64]:
        """(..., 3) LPS mm to (..., 3) voxel coordinates (i, j, k), not rounded."""
        offset = np.asarray(world, dtype=np.float64) - np.asarray(self.origin)
        index: npt.NDArray[np.float64] = offset @ np.linalg.inv(self.direction_matrix).T / np.asarray(self.spacing)
        return index

    def array_axis(self, name: str) -> int:
        """The array axis (0 = k, 1 = j, 2 = i) that a slicing axis names.

        `k`, `j`, `i` name it directly. `axial`, `coronal`, `sagittal` choose the axis closest to that plane's
        normal; the three planes always get three different axes, on an oblique grid too.
        """
        if name in _ARRAY_AXES:
            return _ARRAY_AXES[name]
        if name not in _PLANE_NORMALS:
            raise OptionError(f"Unknown slicing axis {name!r}: use one of {', '.join(AXIS_NAMES)}.")
        weight = np.abs(self.direction_matrix)
        plane_of_index_axis = _best_assignment(weight)
        return 2 - plane_of_index_axis.index(_PLANE_NORMALS[name])

    def spacing_along(self, array_axis: int) -> float:
        """mm between slices along an array axis (0 = k, 1 = j, 2 = i)."""
        return self.spacing[2 - array_axis]


def to_lps(points: npt.ArrayLike, space: str) -> npt.NDArray[np.float64]:
    """(..., 3) places or directions of a world space, "ras" or "lps", in LPS."""
    signs = (-1.0, -1.0, 1.0) if space == "ras" else (1.0, 1.0, 1.0)
    turned: npt.NDArray[np.float64] = np.asarray(points, dtype=np.float64) * signs
    return turned


def _best_assignment(weight: npt.NDArray[np.float64]) -> tuple[int, int, int]:
    """For each column of a (3, 3) matrix the row it takes, no row twice, with the largest sum of weights."""
    permutations = [(0, 1, 2), (0, 2, 1), (1, 0, 2), (1, 2, 0), (2, 0, 1), (2, 1, 0)]
    return max(permutations, key=lambda rows: sum(weight[row, column] for column, row in enumerate(rows)))
