"""Lesions that no patient has: rough blobs drawn into any scan, so that a target has real tissue, noise and neighbours around it.

The training set has lesions of the brain alone; users bring those of every organ.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from MedSAM2Lib.training.fields import log_uniform, smooth_field
from MedSAM2Lib.training.volumes import Target, TrainingVolume

__all__ = ["draw_lesion", "paint_lesion"]

FloatArray = npt.NDArray[np.float32]

_CT_RANGE = (-1000.0, 400.0)  # HU
_BACKGROUND = 0.08  # of the range: darker is air; the lung is not
_RADII_MM = (2.5, 30.0)
_LEAST_RADIUS = 2.0  # voxels in the plane
_MOST_RADIUS, _MOST_VOXELS = 0.2, 50  # of the volume's longest side, but no more than so many
_STRETCH = 0.35  # deviation of the logarithm of its radii
_SOLID = 128  # the code at a lesion's border; more lies inside, less around it
_CORE_SHARE = 0.25  # of lesions have a core of another grey


def draw_lesion(rng: np.random.Generator, volume: TrainingVolume) -> Target | None:
    """Where a lesion lies: codes from 0, beside it, over 128 at its border, to 255 well inside. None where there is only air."""
    assert volume.image is not None
    low, high = _CT_RANGE if volume.is_ct else volume.intensity_range()
    air = low + _BACKGROUND * (high - low)
    shape, spacing = np.array(volume.shape), np.array(volume.spacing)
    for _ in range(6):
        centre = rng.integers(shape)
        if float(volume.image[tuple(centre)]) > air:
            break
    else:
        return None
    radii = log_uniform(rng, *_RADII_MM) * np.exp(_STRETCH * rng.standard_normal(3)) / spacing
    radii = np.clip(radii, (0.6, _LEAST_RADIUS, _LEAST_RADIUS), min(_MOST_RADIUS * shape.max(), _MOST_VOXELS))
    reach = np.ceil(1.6 * radii).astype(int) + 1
    first, last = np.maximum(centre - reach, 0), np.minimum(centre + reach + 1, shape)
    axes = [(np.arange(a, b) - c) / r for a, b, c, r in zip(first, last, centre, radii, strict=True)]
    distance = np.sqrt(sum(np.square(axis) for axis in np.ix_(*axes)))
    waves = int(rng.integers(2, 6))
    distance = distance + rng.choice([0.0, 0.08, 0.16, 0.25]) * smooth_field(rng, distance.shape, (waves, waves, waves))
    sharpness = log_uniform(rng, 0.35, 2.0) * radii[1:].mean()  # of its border: one over voxels from inside to outside
    codes = np.clip(_SOLID + (_SOLID - 1) * sharpness * (1.0 - distance), 0, 255).astype(np.uint8)
    block = volume.image[first[0] : last[0], first[1] : last[1], first[2] : last[2]].astype(np.float32)
    codes[ndimage.uniform_filter(block, 3) <= air] = 0
    if not (codes >= _SOLID).any():
        return None
    k, j, i = (int(part) for part in first)
    return Target("lesion", codes, np.arange(256) >= _SOLID, (k, j, i))


def paint_lesion(rng: np.random.Generator, values: FloatArray, codes: npt.NDArray[np.uint8]) -> FloatArray:
    """Slices (N, h, w), 0..1, with a lesion of these codes in them: brighter or darker than what it lies in, of which more or
    less shows through."""
    share = codes.astype(np.float32) / 255.0
    inside = codes >= _SOLID
    if not inside.any():
        return values
    middle = float(values[inside].mean())
    step = log_uniform(rng, 0.05, 0.5) * rng.choice((-1.0, 1.0))
    grey = middle + (step if 0.0 <= middle + step <= 1.0 else -step)
    through = rng.uniform(0.0, 0.8)
    cells = [max(1, round(size / log_uniform(rng, 3.0, 12.0))) for size in values.shape]
    texture = rng.uniform(0.0, 0.06) * (rng.random() < 0.5) * smooth_field(rng, values.shape, cells)
    lesion = grey + through * (values - middle) + texture
    if rng.random() < _CORE_SHARE:
        core = codes >= rng.integers(_SOLID + 40, 256)
        lesion = np.where(core, lesion + rng.uniform(-0.35, 0.35), lesion)
    return np.asarray(np.clip(values + share * (lesion - values), 0.0, 1.0), np.float32)
