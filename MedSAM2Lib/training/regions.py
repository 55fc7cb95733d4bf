"""Pseudo-targets: regions of even brightness in any scan, labelled or not, that look like a thing to outline."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from MedSAM2Lib.training.fields import log_uniform
from MedSAM2Lib.training.volumes import Target, TrainingVolume

__all__ = ["grow_region"]

_CT_RANGE = (-200.0, 400.0)  # HU; what tolerances below are fractions of
_BACKGROUND = 0.08  # of the range: darker seeds are air
_BLOCK_SIDES = (14, 44)  # voxels from the seed to the block's sides
_TOLERANCES = (0.03, 0.15)  # of the range
_LEAST_AREA = 30  # voxels of the seed's slice
_MOST_RAGGED = 45.0  # border^2 / area of the seed's slice; a disc has 4 pi


def grow_region(rng: np.random.Generator, volume: TrainingVolume, axis: int, length: int) -> Target | None:
    """What is connected to a random voxel and as bright, in a block around it; `axis` is what clips are sliced along.

    None if it is too small to be a thing, runs out of the block's sides, or is too ragged to have an outline.
    """
    assert volume.image is not None
    low, high = _CT_RANGE if volume.is_ct else volume.intensity_range()
    image = np.moveaxis(volume.image, axis, 0)
    shape = np.array(image.shape)
    for _ in range(6):
        seed = rng.integers(shape)
        if low + _BACKGROUND * (high - low) < float(image[tuple(seed)]) <= high:
            break
    reach = np.array([max(4, 2 * length), *rng.integers(*_BLOCK_SIDES, 2)])
    first, last = np.maximum(seed - reach, 0), np.minimum(seed + reach + 1, shape)
    block = image[first[0] : last[0], first[1] : last[1], first[2] : last[2]]
    at = seed - first
    sigma, tolerance = rng.uniform(0.7, 2.0), log_uniform(rng, *_TOLERANCES) * (high - low)

    def smooth(slices: npt.NDArray[np.generic]) -> npt.NDArray[np.float32]:
        blurred: npt.NDArray[np.float32] = ndimage.gaussian_filter(slices.astype(np.float32), (0, sigma, sigma), truncate=2.5)
        return blurred

    # The seed's own slice first: most seeds fail there, at a fraction of the block's cost.
    start = smooth(block[at[0] : at[0] + 1])
    wanted = start[0, at[1], at[2]]
    if not _looks_like_a_thing(_opened(np.abs(start - wanted) < tolerance)[0], (at[1], at[2])):
        return None
    alike = _opened(np.abs(smooth(block) - wanted) < tolerance)
    pieces, _ = ndimage.label(alike)
    region = pieces == pieces[tuple(at)]
    if _runs_out(region, first, last, shape):
        return None
    codes = np.moveaxis(region, 0, axis).astype(np.uint8)
    k, j, i = (int(part) for part in np.insert(first[1:], axis, first[0]))
    return Target("region", codes, np.array([False, True]), (k, j, i))


def _opened(alike: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    """Without thin bridges in the plane; (slices, rows, columns)."""
    return np.asarray(ndimage.binary_opening(alike, np.ones((1, 3, 3))))


def _looks_like_a_thing(alike: npt.NDArray[np.bool_], at: tuple[int, int]) -> bool:
    """Whether the piece at `at` of a slice is large and compact enough."""
    if not alike[at]:
        return False
    pieces, _ = ndimage.label(alike)
    piece = pieces == pieces[at]
    area = int(piece.sum())
    border = area - int(ndimage.binary_erosion(piece).sum())
    return area >= _LEAST_AREA and border**2 <= _MOST_RAGGED * area


def _runs_out(
    region: npt.NDArray[np.bool_], first: npt.NDArray[np.int64], last: npt.NDArray[np.int64], shape: npt.NDArray[np.int64]
) -> bool:
    """Whether the region touches a side of its block, in the plane, that is not a side of the volume."""
    for axis in (1, 2):
        if (first[axis] > 0 and region.take(0, axis).any()) or (last[axis] < shape[axis] and region.take(-1, axis).any()):
            return True
    return False
