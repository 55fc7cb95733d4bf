"""Grey values of a clip: the window it is seen in, and the changes that scanners and readers make.

The list of changes follows appendix C.2 of Zhu et al., Medical SAM 2 (arXiv 2408.00874): noise, blur, intensity and
contrast, inversion, low resolution, gamma. A smooth bias and a cut-out are added; probabilities and ranges are ours.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from scipy import ndimage
from torch.nn import functional

from MedSAM2Lib.training.fields import log_uniform, smooth_field
from MedSAM2Lib.training.volumes import TrainingVolume

__all__ = ["augment", "choose_window", "is_visible"]

FloatArray = npt.NDArray[np.float32]
BoolArray = npt.NDArray[np.bool_]

# Windows that readers of CT use: level, width in HU.
_CT_WINDOWS = (
    (40, 400),  # soft tissue
    (60, 150),  # liver
    (-600, 1500),  # lung
    (400, 1800),  # bone
    (40, 80),  # brain
    (40, 40),  # stroke
    (50, 350),  # mediastinum
)
_WIDE_WINDOW = 300.0  # HU; narrower windows are drawn more rarely
_LEAST_CONTRAST = 0.02  # between an object and its surroundings, of 0..1,
_LEAST_CONTRAST_TO_NOISE = 0.18  # and that over the surroundings' deviation


def choose_window(rng: np.random.Generator, volume: TrainingVolume, values: FloatArray, mask: BoolArray) -> tuple[float, float]:
    """Low and high for a crop; `values` and `mask` (rows, columns) are its prompted slice.

    CT: one of the readers' windows or the volume's own, rather one in which the object stands out, jittered. Else: the
    percentiles of the volume, jittered.
    """
    if not volume.is_ct:
        low, high = volume.intensity_range()
        width = high - low
        return low + width * rng.uniform(-0.08, 0.08), low + width * log_uniform(rng, 0.6, 1.25)
    windows = [(level - width / 2, level + width / 2) for level, width in _CT_WINDOWS]
    if volume.display_window is not None:
        windows += [volume.display_window] * 2
    chance = np.array([_contrast_in(window, values, mask) for window in windows])
    chance *= np.clip([(high - low) / _WIDE_WINDOW for low, high in windows], 0.1, 1.0)  # narrow ones exaggerate noise
    low, high = windows[int(rng.choice(len(windows), p=chance / chance.sum()))]
    width = (high - low) * np.exp(rng.uniform(-0.25, 0.25))
    level = (low + high) / 2 + width * rng.uniform(-0.1, 0.1)
    return float(level - width / 2), float(level + width / 2)


def _contrast_in(window: tuple[float, float], values: FloatArray, mask: BoolArray) -> float:
    """How well an object shows in a window: its contrast, at most 0.4; next to nothing if it is lost in black or white."""
    low, high = window
    outside = _surroundings(mask, max(3, min(mask.shape) // 12))
    shown = np.clip((values - low) / (high - low), 0.0, 1.0)
    inside_mean = float(shown[mask].mean()) if mask.any() else 0.5
    outside_mean = float(shown[outside].mean()) if outside.any() else 0.0
    contrast = abs(inside_mean - outside_mean)
    return 0.02 + min(contrast, 0.4) if 0.02 < inside_mean < 0.98 or contrast > 0.3 else 1e-3


def _surroundings(mask: BoolArray, reach: int) -> BoolArray:
    """The pixels outside the mask (rows, columns) within about `reach` of it; all outside it if there are none."""
    near = (ndimage.uniform_filter(mask.astype(np.float32), 2 * reach + 1, mode="nearest") > 1e-4) & ~mask
    return near if near.any() else ~mask


def is_visible(image: FloatArray, mask: BoolArray) -> bool:
    """Whether an object differs from its surroundings, on average, by a fraction of their noise; both are (S, S)."""
    outside = image[_surroundings(mask, len(image) // 16)]
    if not len(outside):
        return False
    contrast = abs(float(image[mask].mean() - outside.mean()))
    return contrast > _LEAST_CONTRAST + _LEAST_CONTRAST_TO_NOISE * float(outside.std())


def augment(rng: np.random.Generator, images: FloatArray) -> FloatArray:
    """The slices of a clip (N, S, S), 0..1, with changed grey values, again 0..1."""
    size = images.shape[-1]
    if rng.random() < 0.25:
        images = np.power(images, np.float32(log_uniform(rng, 0.6, 1.65)))
    if rng.random() < 0.15:
        images = _recurve(rng, images)
    if rng.random() < 0.3:
        images = (images - 0.5) * np.float32(log_uniform(rng, 0.67, 1.35)) + np.float32(0.5 + rng.uniform(-0.12, 0.12))
    if rng.random() < 0.15:
        images = images * np.exp(smooth_field(rng, (size, size), (2, 2)) * np.float32(rng.uniform(0, 0.3)))
    if rng.random() < 0.2:
        images = _soften(rng, images)
    if rng.random() < 0.3:
        images = images + np.float32(log_uniform(rng, 0.005, 0.08)) * rng.standard_normal(images.shape, dtype=np.float32)
    if rng.random() < 0.05:
        images = 1.0 - images
    if rng.random() < 0.05:
        images = _cut_out(rng, images)
    return np.asarray(np.clip(images, 0.0, 1.0), np.float32)


def _recurve(rng: np.random.Generator, images: FloatArray) -> FloatArray:
    """Another contrast: grey values through a random curve, half a straight one so that few tissues come to look alike."""
    knots = int(rng.integers(4, 9))
    heights, places = rng.uniform(0, 1, knots), np.linspace(0, 1, knots)
    if rng.random() < 0.7:  # the order of tissues stays
        heights.sort()
    return np.asarray(np.interp(images, places, (heights + places) / 2), np.float32)


def _soften(rng: np.random.Generator, images: FloatArray) -> FloatArray:
    """Blur, or fewer pixels and back."""
    if rng.random() < 0.5:
        sigma = rng.uniform(0.4, 1.5)
        return np.asarray(ndimage.gaussian_filter(images, (0, sigma, sigma), truncate=3.0), np.float32)
    stack, size = torch.from_numpy(np.ascontiguousarray(images, np.float32))[None], images.shape[-1]
    small = functional.interpolate(stack, size=max(8, int(size / rng.uniform(1.3, 3.0))), mode="bilinear", antialias=True)
    return np.asarray(functional.interpolate(small, size=size, mode="bilinear")[0].numpy(), np.float32)


def _cut_out(rng: np.random.Generator, images: FloatArray) -> FloatArray:
    """One grey rectangle through all slices, a sixteenth to a quarter of the side."""
    size = images.shape[-1]
    height, width = rng.integers(size // 16, size // 4, 2)
    row, column = rng.integers(0, size - height), rng.integers(0, size - width)
    images = images.copy()
    images[:, row : row + height, column : column + width] = np.float32(rng.uniform(0, 1))
    return images
