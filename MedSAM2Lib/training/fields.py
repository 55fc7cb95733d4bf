"""Smooth noise and log-uniform numbers: what synthetic shapes, intensities and augmentation are drawn from."""

from __future__ import annotations

import functools
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

__all__ = ["log_uniform", "smooth_field"]

FloatArray = npt.NDArray[np.float32]

# A uniform cubic B-spline of unit normal coefficients has variance 0.479 per axis, averaged over the cell.
_SPLINE_DEVIATION = 0.479**0.5


@functools.lru_cache(maxsize=256)
def _spline_basis(size: int, cells: int) -> FloatArray:
    """(size, cells + 3) weights of the uniform cubic B-splines at `size` points spread over `cells` cells."""
    position = np.linspace(0.0, cells, size, endpoint=False) + 0.5 * cells / size
    cell = position.astype(np.int64)
    t = position - cell
    weights = np.stack([(1 - t) ** 3, 3 * t**3 - 6 * t**2 + 4, -3 * t**3 + 3 * t**2 + 3 * t + 1, t**3], axis=1) / 6
    basis = np.zeros((size, cells + 3), np.float32)
    for offset in range(4):
        basis[np.arange(size), cell + offset] = weights[:, offset]
    return basis


def smooth_field(rng: np.random.Generator, shape: Sequence[int], cells: Sequence[int]) -> FloatArray:
    """Smooth noise of the given shape, mean 0 and deviation about 1, that varies over `cells` cells per axis."""
    field = rng.standard_normal([count + 3 for count in cells], dtype=np.float32)
    for axis, (size, count) in enumerate(zip(shape, cells, strict=True)):
        field = np.moveaxis(np.tensordot(_spline_basis(size, count), field, axes=(1, axis)), 0, axis)
    return np.ascontiguousarray(field / np.float32(_SPLINE_DEVIATION ** len(cells)))


def log_uniform(rng: np.random.Generator, low: float, high: float) -> float:
    """A positive number whose logarithm is uniform between those of `low` and `high`."""
    return float(np.exp(rng.uniform(np.log(low), np.log(high))))
