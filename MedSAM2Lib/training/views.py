"""Where a clip looks: a run of slices, and a turned, flipped, sheared, slightly bent square around the target.

Coordinates inside a slice are (row, column) voxels, centres at integers. Rotation, scaling and flipping follow appendix
C.2 of Zhu et al., Medical SAM 2 (arXiv 2408.00874), with ranges of our own.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch.nn import functional

from MedSAM2Lib.training.fields import log_uniform, smooth_field
from MedSAM2Lib.training.volumes import Profile, Target

__all__ = ["WHOLE_SLICE_SHARE", "Square", "View", "choose_axis", "choose_turn", "choose_view", "resample", "square_around"]

FloatArray = npt.NDArray[np.float32]

# Which slices.
_MOST_ANISOTROPY = 2.5  # slice along j or i only where the voxels are less elongated than this,
_SHORTEST_SIDE = 24  # and where the slices are at least so many voxels high and wide
_AXIS_CHANCES = (0.74, 0.13, 0.13)  # of k, j, i there
_STEP_MM = (0.8, 6.0)  # from slice to slice, as far as 1 to 3 voxels allow
_LARGEST_STEP = 3
_SMALLEST_AREA = 12  # voxels of the prompted slice; half of the largest area if the target never gets there
# After slices that were left out a pass is where the target still is, or a little beyond its end: it did not notice.
_PASSED_WEIGHT, _PASSED = 0.6, 3  # of those runs; slices, or a third of the target's
_LEAVING_WEIGHT = 0.8  # of runs at whose end the target is gone, against runs where it is still there

# Which square.
_CROP_FACTORS = (1.25, 2.6)  # side of the square over the longer side of the target's box
WHOLE_SLICE_SHARE = 0.10  # of the squares show the whole slice instead
_SMALLEST_SIDE = 20.0  # the least a square shows, in voxels of the finer axis
_LARGEST_SIDE = 1.15  # the most, over the longer side of the slice
_MILLIMETRE_SHARE = 0.7  # of the squares are square in mm, the others in voxels
_STRETCH = 1.25  # one side may be stretched by up to this
_SMALL_TURN, _ANY_TURN_SHARE = 25.0, 0.2  # degrees; share that is turned by anything
_SHEAR, _SHEAR_SHARE = 10.0, 0.3  # degrees
_BEND, _BEND_SHARE = 0.04, 0.3  # elastic displacement in sides of the square, over the number of waves


@dataclass(frozen=True)
class Square:
    """Where in a slice each output pixel lies."""

    rows: FloatArray  # (S, S) voxels
    columns: FloatArray  # (S, S) voxels
    shrink: tuple[float, float]  # voxels of (row, column) per output pixel

    def window(self, plane: tuple[int, int]) -> tuple[slice, slice]:
        """The rows and columns of a slice of shape `plane` that the square touches, at least one of each."""
        return _touched(self.rows, plane[0]), _touched(self.columns, plane[1])


@dataclass(frozen=True)
class View(Square):
    """The square of a clip, and its slices, the prompted one first."""

    axis: int
    indices: npt.NDArray[np.int64]  # (T, 3): the slice before, the slice, the slice after
    distances: FloatArray  # (T,) from the prompted slice, output pixels
    step: float  # from slice to slice, output pixels


def choose_axis(rng: np.random.Generator, shape: tuple[int, int, int], spacing: tuple[float, float, float]) -> int:
    """The axis to slice along: 0 (k) mostly, another one sometimes where its slices are worth looking at."""
    near_isotropic = max(spacing) / min(spacing) < _MOST_ANISOTROPY
    axis = int(rng.choice(3, p=_AXIS_CHANCES))
    return axis if near_isotropic and min(size for a, size in enumerate(shape) if a != axis) >= _SHORTEST_SIDE else 0


def choose_view(
    rng: np.random.Generator,
    shape: tuple[int, int, int],
    spacing: tuple[float, float, float],
    target: Target,
    axis: int,
    image_size: int,
    length: int,
    whole_slices: float = WHOLE_SLICE_SHARE,
    far: float = 0.0,
) -> View | None:
    """A random view of the target along `axis`, `length` slices of image_size^2 pixels; None if no run of slices fits.

    whole_slices  chance that it shows whole slices
    far           chance that slices are left out after the prompted one, and again before the last
    """
    chosen = _choose_slices(rng, target.profile(axis), shape[axis], spacing[axis], length, far)
    if chosen is None:
        return None
    indices, (row0, column0, row1, column1) = chosen
    in_plane = [a for a in range(3) if a != axis]
    plane = np.array([shape[a] for a in in_plane], float)
    scale = _plane_scale(rng, np.array([spacing[a] for a in in_plane]))

    # Lengths below are in scaled voxels, so that the square is one.
    box_size = np.array([row1 - row0 + 1, column1 - column0 + 1]) * scale
    centre = np.array([row0 + row1, column0 + column1]) / 2
    turn, largest = choose_turn(rng), _LARGEST_SIDE * float((plane * scale).max())
    if rng.random() < whole_slices:
        side = largest * rng.uniform(0.8, 1.0)
        centre = 0.8 * (plane - 1) / 2 + 0.2 * centre
    else:
        side = min(float(box_size.max()) * log_uniform(rng, *_CROP_FACTORS), largest)
    side = max(side, _SMALLEST_SIDE, float(box_size.max()) * _CROP_FACTORS[0])
    square = square_around(rng, image_size, side, centre, box_size, scale, turn)
    pixel_mm = math.sqrt(math.prod(square.shrink) * math.prod(spacing[a] for a in in_plane))
    distances = (np.abs(indices[:, 1] - indices[0, 1]) * (spacing[axis] / pixel_mm)).astype(np.float32)
    step = float(np.abs(np.diff(indices)).max()) * spacing[axis] / pixel_mm
    return View(square.rows, square.columns, square.shrink, axis, indices, distances, step)


def square_around(
    rng: np.random.Generator,
    image_size: int,
    side: float,
    centre: npt.NDArray[np.float64],
    box_size: npt.NDArray[np.float64],
    scale: npt.NDArray[np.float64],
    turn: npt.NDArray[np.float64],
) -> Square:
    """A turned square of image_size^2 pixels that shows a box, somewhere in it, rather near its middle.

    side      of the square, in units of `scale`
    centre    (row, column) of the box's middle, voxels
    box_size  (2,) its height and width, in units of `scale`
    scale     (2,) length of a voxel along (row, column)
    turn      (2, 2) of `choose_turn`
    """
    # Jitter as far as the box, turned, stays inside the square; rather a little than a lot.
    reach = np.abs(np.linalg.inv(turn)) @ (box_size / 2)
    slack = np.clip(side / 2 - reach, 0, None) * 0.9
    centre = centre + (turn @ (slack * rng.triangular(-1, 0, 1, 2))) / scale
    offsets = _square(rng, image_size, side)  # (2, S, S)
    matrix = (turn / scale[:, None]).astype(np.float32)
    rows, columns = (matrix[a, 0] * offsets[0] + matrix[a, 1] * offsets[1] + np.float32(centre[a]) for a in range(2))
    return Square(rows, columns, (side / image_size / float(scale[0]), side / image_size / float(scale[1])))


def _choose_slices(
    rng: np.random.Generator, profile: Profile, size: int, spacing: float, length: int, far: float
) -> tuple[npt.NDArray[np.int64], tuple[int, int, int, int]] | None:
    """Slices (length, 3) of an axis of `size`, the prompted one first, and the target's box on it. `far` is the chance that
    some are left out after the first, and likewise before the last.

    Each between its neighbours; where the volume ends, these stay inside.
    """
    if size < length or not len(profile.areas):
        return None
    step = int(np.clip(round(log_uniform(rng, *_STEP_MM) / spacing), 1, _LARGEST_STEP))
    step = max(1, min(step, (size - 1) // max(1, length - 1)))
    direction = int(rng.choice((-1, 1)))
    areas = profile.areas
    weight = np.where(areas >= min(_SMALLEST_AREA, areas.max() / 2), np.sqrt(areas), 0.0)
    number = np.arange(len(areas))

    def shows_target(at: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
        return (at >= 0) & (at < len(areas)) & (areas[np.clip(at, 0, len(areas) - 1)] > 0)

    def left_out(chance: float) -> int:
        return int(rng.integers(1, max(2, len(areas) // step))) if chance and rng.random() < chance else 0

    after_first, before_last = left_out(far if length > 1 else 0.0), left_out(far if length > 2 else 0.0)
    gaps = [(after_first, before_last), (after_first, 0), (0, before_last), (0, 0)]
    for way, (gap, last_gap) in ((way, both) for both in dict.fromkeys(gaps) for way in (direction, -direction)):
        number_in_clip = np.arange(length)
        places = number_in_clip + gap * (number_in_clip > 0) + last_gap * (number_in_clip == length - 1)
        last = number + way * step * places[-1]
        inside_volume = (profile.first + last >= 0) & (profile.first + last < size)
        chance = weight * inside_volume * np.where(shows_target(last), 1.0, _LEAVING_WEIGHT)
        if gap:
            resumed = number + way * step * places[1]
            passed = np.maximum(-resumed, resumed - (len(areas) - 1)) <= max(_PASSED, len(areas) // 3)
            chance *= np.where(shows_target(resumed), 1.0, _PASSED_WEIGHT * passed)
        if chance.any():
            n = int(rng.choice(len(chance), p=chance / chance.sum()))
            row0, column0, row1, column1 = profile.boxes[n].tolist()
            indices = profile.first + n + way * step * (places[:, None] + np.array([-1, 0, 1]))
            return np.clip(indices, 0, size - 1), (row0, column0, row1, column1)
    return None


def _plane_scale(rng: np.random.Generator, spacing: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """(2,) length of a voxel along (row, column): in mm over the finer one, or 1; one of them a little stretched."""
    scale = spacing / spacing.min() if rng.random() < _MILLIMETRE_SHARE else np.ones(2)
    if rng.random() < 0.5:
        scale[rng.integers(2)] *= log_uniform(rng, 1 / _STRETCH, _STRETCH)
    return scale


def choose_turn(rng: np.random.Generator) -> npt.NDArray[np.float64]:
    """(2, 2) from the square's (row, column) to the slice's: rotation, shear and flips."""
    degrees = rng.uniform(-180, 180) if rng.random() < _ANY_TURN_SHARE else rng.uniform(-_SMALL_TURN, _SMALL_TURN)
    angle = math.radians(degrees)
    shear = math.tan(math.radians(rng.uniform(-_SHEAR, _SHEAR))) if rng.random() < _SHEAR_SHARE else 0.0
    rotation = np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
    turn: npt.NDArray[np.float64] = rotation @ np.array([[1.0, shear], [0.0, 1.0]]) * rng.choice((-1.0, 1.0), 2)
    return turn


def _square(rng: np.random.Generator, image_size: int, side: float) -> FloatArray:
    """(2, S, S) offsets (row, column) of the pixels' centres from the middle of a square, bent a little sometimes."""
    ticks = (np.arange(image_size, dtype=np.float32) + 0.5) / image_size - 0.5
    offsets = np.stack(np.meshgrid(ticks, ticks, indexing="ij"))
    if rng.random() < _BEND_SHARE:
        waves = int(rng.integers(2, 5))
        bend = np.stack([smooth_field(rng, (image_size, image_size), (waves, waves)) for _ in range(2)])
        offsets += bend * np.float32(rng.uniform(0.0, _BEND) / waves)
    return np.asarray(offsets * np.float32(side), np.float32)


def _touched(coordinates: FloatArray, size: int) -> slice:
    """The indices below `size` that linear interpolation at `coordinates` touches, with one to spare."""
    first = min(max(0, int(coordinates.min()) - 2), size - 1)
    return slice(first, max(first + 1, min(size, int(coordinates.max()) + 4)))


def resample(square: Square, layers: FloatArray, rows: slice, columns: slice) -> FloatArray:
    """Layers (C, h, w) of the window rows x columns of a slice, at the square's pixels: (C, S, S). Outside is 0."""
    stack = torch.from_numpy(layers)[None]  # (1, C, h, w)
    pool = (max(1, round(square.shrink[0])), max(1, round(square.shrink[1])))  # from 1.5 voxels per pixel on: anti-aliasing
    if max(pool) > 1:
        stack = functional.avg_pool2d(stack, pool, ceil_mode=True, count_include_pad=False)
    height, width = stack.shape[-2:]
    # grid_sample puts -1 and 1 on the outer edges of the outer pixels.
    y = (square.rows - rows.start + 0.5) * (2.0 / (pool[0] * height)) - 1.0
    x = (square.columns - columns.start + 0.5) * (2.0 / (pool[1] * width)) - 1.0
    grid = torch.from_numpy(np.stack([x, y], axis=-1).astype(np.float32))[None]  # (1, S, S, 2)
    sampled: FloatArray = functional.grid_sample(stack, grid, mode="bilinear", padding_mode="zeros", align_corners=False)[
        0
    ].numpy()
    return sampled
