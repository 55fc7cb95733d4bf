"""How a volume is cut into slices: along an axis of its array, or along any direction in space, and back.

A slice view that is turned shows a plane that is no plane of the array. Prompts drawn there are worked on in a stack of
slices that is parallel to the view and passes through it, resampled from the volume; masks go back to the nearest voxel.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from MedSAM2Lib.errors import OptionError
from MedSAM2Lib.geometry import Geometry
from MedSAM2Lib.masks import VoxelBox, union
from MedSAM2Lib.volume import Volume
from MedSAM2Lib.volume_io.itk import image_from_array, quiet_itk

__all__ = ["Region", "SliceStack", "resample", "unit_vector"]

_Mask = npt.NDArray[np.bool_]
_Voxel = TypeVar("_Voxel", bound=np.generic)
# Which of a voxel's (i, j, k) is the column x, the row y and the slice, by array axis (0 = k, 1 = j, 2 = i).
_ORDER = ((0, 1, 2), (0, 2, 1), (1, 2, 0))
_PART = 128  # voxels along the volume that an oblique slice is put into at a time
_ROUNDING = 1e-6  # of a step, by which a voxel may lie beyond the last slice


@dataclass(frozen=True)
class Region:
    """What a slice's mask says about the voxels of the volume.

    box       the part of the (k, j, i) array that is spoken of
    governed  bool, the box's shape: voxels whose nearest slice this is; about the others nothing is said
    mask      bool, the box's shape: voxels of the object, all of them governed
    """

    box: VoxelBox
    governed: _Mask
    mask: _Mask


@dataclass(frozen=True)
class SliceStack:
    """Slices of one shape at equal distances.

    grid      of the volume
    geometry  of the array that is sliced: the grid itself, or that of an oblique stack
    axis      the axis of that array (0 = k, 1 = j, 2 = i) along which slices are counted

    Points are (..., 3): world in LPS mm, or (x, y, slice): column, row and slice as prompts have them.
    """

    grid: Geometry
    geometry: Geometry
    axis: int

    @classmethod
    def along(cls, grid: Geometry, axis: int) -> SliceStack:
        """The planes of the array that are normal to an array axis (0 = k, 1 = j, 2 = i)."""
        return cls(grid, grid, axis)

    @classmethod
    def oblique(cls, grid: Geometry, right: npt.ArrayLike, down: npt.ArrayLike, through: npt.ArrayLike) -> SliceStack:
        """Planes parallel to `right` and `down` (LPS unit vectors), one of them through a point (LPS mm).

        The stack covers the volume. Between slices, and between pixels, lies the distance in which a voxel is crossed,
        pixels are square.
        """
        x, y = unit_vector(right), unit_vector(down)
        if abs(float(x @ y)) > 1e-3:
            raise OptionError(f"The two directions of a slice must be at right angles, but {x.tolist()} and {y.tolist()} came.")
        y = unit_vector(y - (x @ y) * x)
        axes = np.stack((x, y, np.cross(x, y)), axis=1)  # columns: the LPS unit vectors of x, y and the slice's normal
        steps = np.array([_step_along(grid, direction) for direction in axes.T])
        steps[:2] = steps[:2].min()
        point = np.asarray(through, dtype=np.float64)
        low, high = _reach(grid, axes, steps, point)
        origin = point + axes @ (low * steps)
        i, j, k = (int(count) for count in high - low + 1)
        return cls(
            grid,
            Geometry(
                (k, j, i),
                (float(steps[0]), float(steps[1]), float(steps[2])),
                (float(origin[0]), float(origin[1]), float(origin[2])),
                tuple(float(value) for value in axes.ravel()),
            ),
            0,
        )

    def moved(self, grid: Geometry) -> SliceStack:
        """These slices after the volume was moved, turned or scaled: they are where their voxels are.

        Raises VolumeError where that leaves no right angles.
        """
        if not self.is_oblique:
            return SliceStack.along(grid, self.axis)
        matrix = _matrix(grid) @ np.linalg.inv(_matrix(self.grid)) @ _matrix(self.geometry)
        steps = np.linalg.norm(matrix[:3, :3], axis=0)
        si, sj, sk = (float(step) for step in steps)
        x, y, z = (float(value) for value in matrix[:3, 3])
        directions = tuple(float(value) for value in (matrix[:3, :3] / steps).ravel())
        return SliceStack(grid, Geometry(self.geometry.shape, (si, sj, sk), (x, y, z), directions), self.axis)

    @property
    def is_oblique(self) -> bool:
        return self.geometry != self.grid

    @property
    def slice_count(self) -> int:
        return self.geometry.shape[self.axis]

    @property
    def slice_shape(self) -> tuple[int, int]:
        """Rows and columns of a slice."""
        rows, columns = (size for axis, size in enumerate(self.geometry.shape) if axis != self.axis)
        return rows, columns

    def from_world(self, points: npt.ArrayLike) -> npt.NDArray[np.float64]:
        """(..., 3) LPS mm to (x, y, slice), not rounded."""
        return self.geometry.world_to_index(points)[..., _ORDER[self.axis]]

    def to_world(self, points: npt.ArrayLike) -> npt.NDArray[np.float64]:
        """(..., 3) (x, y, slice) to LPS mm."""
        placed = np.asarray(points, dtype=np.float64)
        index = np.empty_like(placed)
        index[..., _ORDER[self.axis]] = placed
        return self.geometry.index_to_world(index)

    # ── masks ─────────────────────────────────────────────────────────────────────────────────────────────────

    def cut(self, mask: _Mask, index: int) -> _Mask:
        """(rows, columns) of a mask on the volume's grid, (k, j, i) bool: at each pixel the nearest voxel; a copy."""
        if not self.is_oblique:
            plane: _Mask = np.take(mask, index, axis=self.axis)
            return plane
        rows, columns = self.slice_shape
        x, y = np.meshgrid(np.arange(columns), np.arange(rows))
        world = self.to_world(np.stack((x, y, np.full_like(x, index)), axis=-1))
        nearest = np.floor(self.grid.world_to_index(world) + 0.5).astype(int)[..., ::-1]  # (k, j, i)
        inside = ((nearest >= 0) & (nearest < mask.shape)).all(axis=-1)
        found = np.zeros((rows, columns), dtype=bool)
        found[inside] = mask[tuple(nearest[inside].T)]
        return found

    def on_grid(self, stacked: npt.NDArray[_Voxel]) -> npt.NDArray[_Voxel]:
        """(k, j, i) on the volume's grid: at each voxel the nearest of an array on the grid of the slices."""
        if not self.is_oblique:
            return stacked
        found = np.zeros(self.grid.shape, dtype=stacked.dtype)
        matrix, offset = self._grid_to_slices()
        rows, columns = np.meshgrid(np.arange(self.grid.shape[1]), np.arange(self.grid.shape[2]), indexing="ij")
        for k, plane in enumerate(found):
            voxels = np.stack((np.full_like(rows, k), rows, columns), axis=-1)
            nearest = np.floor(voxels @ matrix.T + offset + 0.5).astype(int)[..., ::-1]  # (slice, y, x)
            inside = ((nearest >= 0) & (nearest < stacked.shape)).all(axis=-1)
            plane[inside] = stacked[tuple(nearest[inside].T)]
        return found

    def regions(self, index: int, mask: _Mask, also: VoxelBox | None = None) -> list[Region]:
        """Where a slice's mask (rows, columns) lies in the volume: several small parts where the slice runs obliquely.

        also  part of the (k, j, i) array of which the regions must speak too, such as where the object was before
        """
        if not self.is_oblique:
            placed = np.expand_dims(mask, self.axis)
            box = [slice(0, size) for size in self.grid.shape]
            box[self.axis] = slice(index, index + 1)
            return [Region(tuple(box), np.ones_like(placed), placed)]
        whole = union(self._box_of(index, mask), also)
        return [] if whole is None else [self._oblique_region(index, mask, part) for part in self._along_slice(index, whole)]

    def _along_slice(self, index: int, box: VoxelBox) -> Iterator[VoxelBox]:
        """Parts of a box that hold what a slice governs of it. The box itself may be mostly air: the slice is one diagonal."""
        (_, _, slopes), (_, _, origin) = self._grid_to_slices()
        walk = int(np.argmax(np.abs(slopes)))
        steep = max((axis for axis in range(3) if axis != walk), key=lambda axis: abs(slopes[axis]))
        for start in range(box[steep].start, box[steep].stop, _PART):
            part = list(box)
            part[steep] = slice(start, min(start + _PART, box[steep].stop))
            ends = [(part[axis].start, part[axis].stop - 1) for axis in range(3) if axis != walk]
            others = [slopes[axis] for axis in range(3) if axis != walk]
            places = [origin + others[0] * one + others[1] * other for one, other in product(*ends)]
            reach = [(index + side - place) / slopes[walk] for side in (-0.5, 0.5) for place in places]
            low, high = max(math.floor(min(reach)), box[walk].start), min(math.ceil(max(reach)) + 1, box[walk].stop)
            if low < high:
                part[walk] = slice(low, high)
                yield tuple(part)

    def _box_of(self, index: int, mask: _Mask) -> VoxelBox | None:
        """The part of the volume that the mask's pixels may touch."""
        rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
        if not rows.size:
            return None
        corners = product((columns[0] - 0.5, columns[-1] + 0.5), (rows[0] - 0.5, rows[-1] + 0.5), (index - 0.5, index + 0.5))
        places = self.grid.world_to_index(self.to_world(list(corners)))[:, ::-1]  # (8, 3) as (k, j, i)
        low = np.clip(np.ceil(places.min(0)), 0, self.grid.shape).astype(int)
        high = np.clip(np.floor(places.max(0)) + 1, low, self.grid.shape).astype(int)
        return tuple(slice(int(start), int(stop)) for start, stop in zip(low, high, strict=True))

    def _oblique_region(self, index: int, mask: _Mask, box: VoxelBox) -> Region:
        """Walks along the array axis most normal to the slices, where each column of voxels crosses the slice's slab
        in a few of them: the work grows with the slice's area, not with the box around it."""
        shape = tuple(part.stop - part.start for part in box)
        governed, placed = np.zeros(shape, dtype=bool), np.zeros(shape, dtype=bool)
        matrix, offset = self._grid_to_slices()
        slopes = matrix[2]  # how much (k, j, i) steps change the slice coordinate
        walk = int(np.argmax(np.abs(slopes)))
        across = [axis for axis in range(3) if axis != walk]
        ranges = [np.arange(box[axis].start, box[axis].stop, dtype=np.float64) for axis in across]
        first, second = np.meshgrid(*ranges, indexing="ij")
        at_zero = offset[2] + slopes[across[0]] * first + slopes[across[1]] * second
        ends = np.stack([(index - 0.5 - at_zero) / slopes[walk], (index + 0.5 - at_zero) / slopes[walk]])
        start = np.ceil(ends.min(0) - 1e-9)
        for step in range(int(np.ceil(1 / abs(slopes[walk]))) + 1):
            voxel = np.empty((*first.shape, 3))
            voxel[..., across[0]], voxel[..., across[1]], voxel[..., walk] = first, second, start + step
            nearest = np.floor(voxel @ matrix.T + offset + 0.5).astype(int)  # (x, y, slice)
            here = (nearest[..., 2] == index) & (voxel[..., walk] >= box[walk].start) & (voxel[..., walk] < box[walk].stop)
            place = tuple((voxel[here][:, axis].astype(int) - box[axis].start) for axis in range(3))
            governed[place] = True
            x, y = nearest[here][:, 0], nearest[here][:, 1]
            on_slice = (x >= 0) & (x < mask.shape[1]) & (y >= 0) & (y < mask.shape[0])
            values = np.zeros(len(x), dtype=bool)
            values[on_slice] = mask[y[on_slice], x[on_slice]]
            placed[place] = values
        return Region(box, governed, placed)

    def _grid_to_slices(self) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
        """The affine map (matrix, offset) from voxels (k, j, i) of the grid to (x, y, slice)."""
        offset = self.from_world(self.grid.index_to_world((0.0, 0.0, 0.0)))
        columns = [self.from_world(self.grid.index_to_world(unit)) - offset for unit in np.eye(3)[::-1]]
        return np.stack(columns, axis=1), offset


def resample(volume: Volume, grid: Geometry) -> Volume:
    """The voxels of a volume on another grid, such as that of an oblique stack, linearly interpolated.

    Beyond the volume lies its lowest voxel, which on a CT or MR is what surrounds a patient.
    """
    with quiet_itk() as sitk:
        reference = sitk.Image(grid.shape[::-1], sitk.sitkUInt8)
        reference.SetSpacing(grid.spacing)
        reference.SetOrigin(grid.origin)
        reference.SetDirection(grid.direction)
        image = image_from_array(volume.array, volume.geometry)
        lowest = float(volume.array.min())
        sampled = sitk.Resample(image, reference, sitk.Transform(), sitk.sitkLinear, lowest, image.GetPixelID())
        array = sitk.GetArrayFromImage(sampled)
    return Volume(array, grid, volume.modality, volume.source)


def _matrix(geometry: Geometry) -> npt.NDArray[np.float64]:
    """(4, 4): voxels (i, j, k) to LPS mm."""
    matrix = np.eye(4)
    matrix[:3, :3] = geometry.direction_matrix * np.asarray(geometry.spacing)
    matrix[:3, 3] = geometry.origin
    return matrix


def unit_vector(vector: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """(3,) of length 1. Raises OptionError where the vector has no direction."""
    values = np.asarray(vector, dtype=np.float64)
    length = float(np.linalg.norm(values))
    if not (np.isfinite(length) and length > 0):
        raise OptionError(f"A direction needs a finite length above 0, but {values.tolist()} came.")
    scaled: npt.NDArray[np.float64] = values / length
    return scaled


def _step_along(grid: Geometry, direction: npt.NDArray[np.float64]) -> float:
    """mm along a direction in which the voxel coordinates change by 1; along an axis of the grid that is its spacing."""
    change = grid.direction_matrix.T @ direction / np.asarray(grid.spacing)
    return float(1 / np.linalg.norm(change))


def _reach(
    grid: Geometry, axes: npt.NDArray[np.float64], steps: npt.NDArray[np.float64], point: npt.NDArray[np.float64]
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """The first and last whole steps from a point, along the axes, within which all voxel centres lie."""
    k, j, i = grid.shape
    corners = grid.index_to_world(list(product((0, i - 1), (0, j - 1), (0, k - 1))))
    placed = (corners - point) @ axes / steps
    return np.floor(placed.min(0) + _ROUNDING), np.ceil(placed.max(0) - _ROUNDING)
