"""Images of label maps in contrasts that no scanner was set to: CT-like, MR-like and some ultrasound-like.

The recipe is SynthSeg's (Billot et al., Medical Image Analysis 2023): per label a mean and a spread, then blur, a smooth
bias field and noise; mottling, streaks, speckle and uneven slices are added. Arrays are (k, j, i).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from MedSAM2Lib.errors import TrainingError
from MedSAM2Lib.training.fields import log_uniform, smooth_field

__all__ = ["paint_tissue", "render_labels", "scan", "tissues_of"]

FloatArray = npt.NDArray[np.float32]
LabelArray = npt.NDArray[np.uint8]

_GREYS = 12  # tissues that what has no label is divided into
_OBJECT = 255 - _GREYS  # the code of the object itself
_MODALITY_CHANCES = (0.45, 0.47, 0.08)  # CT, MR, US


def render_labels(label: LabelArray, rng: np.random.Generator, *, tissues: npt.NDArray[np.integer] | None = None) -> FloatArray:
    """An image (k, j, i) float32, 0..1, of a label map (k, j, i) uint8 in a contrast of its own.

    `tissues` (256,) maps a label to its tissue class, so that left and right look alike; by default each is a class.
    Label 0, outside, is black in three images out of four.
    """
    if label.ndim != 3 or label.dtype != np.uint8:
        raise TrainingError(f"A label map is (k, j, i) uint8, but {label.dtype} of shape {label.shape} came; convert it first.")
    classes = np.arange(256) if tissues is None else tissues
    means = rng.uniform(0.0, 1.0, 256).astype(np.float32)
    spreads = (rng.uniform(0.0, 0.1, 256) * (rng.random(256) < 0.7)).astype(np.float32)
    textures = (rng.uniform(0.0, 0.08, 256) * (rng.random(256) < 0.5)).astype(np.float32)
    means, spreads, textures = means[classes], spreads[classes], textures[classes]
    if rng.random() < 0.75:
        means[0] = 0.0
    spreads[0] = textures[0] = 0.0
    image = paint_tissue(rng, label, means, spreads, textures)
    return scan(rng, image)


def tissues_of(values: FloatArray, label: LabelArray, mask: npt.NDArray[np.bool_]) -> LabelArray:
    """A map of tissues of a scan, to be rendered: its labels, the object in `mask` as one, and greys in steps elsewhere.

    values  (k, j, i), 0..1; label and mask likewise
    """
    smooth = ndimage.uniform_filter(values, (1, 3, 3))
    greys = np.clip(smooth * _GREYS, 0, _GREYS - 1).astype(np.uint8)
    darkest_first = np.where(greys > 0, greys + (255 - _GREYS), 0)  # 0 is outside
    return np.where(mask, _OBJECT, np.where(label > 0, np.minimum(label, _OBJECT - 1), darkest_first)).astype(np.uint8)


def paint_tissue(
    rng: np.random.Generator, label: LabelArray, means: FloatArray, spreads: FloatArray, textures: FloatArray
) -> FloatArray:
    """means[label], plus white noise of spreads[label] and mottling of textures[label]; blurred as a scanner would."""
    image = means[label]
    if textures.any():
        image += textures[label] * smooth_field(rng, label.shape, _field_cells(label.shape, rng.uniform(2.5, 7.0)))
    if spreads.any():
        image += spreads[label] * rng.standard_normal(label.shape, dtype=np.float32)
    in_plane = log_uniform(rng, 0.25, 1.1)
    return _blur(image, (rng.uniform(0.0, 0.6), in_plane, in_plane))


def scan(rng: np.random.Generator, image: FloatArray) -> FloatArray:
    """Bias field, noise and artefacts of a random modality on tissue (k, j, i); the result is float32, 0..1."""
    modality = rng.choice(["CT", "MR", "US"], p=_MODALITY_CHANCES)
    if modality == "US":
        image = _as_ultrasound(rng, image)
    elif modality == "MR":
        bias = smooth_field(rng, image.shape, (1, 2, 2)) * rng.uniform(0, 0.25)
        image = _add_noise(rng, image * np.exp(bias, dtype=np.float32), rician=True)
        if rng.random() < 0.3:  # slices of an interleaved acquisition differ in brightness
            image = image * (1 + 0.05 * rng.standard_normal((len(image), 1, 1), dtype=np.float32))
    else:
        if rng.random() < 0.15:
            image = _add_streaks(rng, image)
        image = _add_noise(rng, image, rician=False)
    sample = image[:, ::2, ::2]
    low, high = np.percentile(sample, (0.1, 99.9))
    image = np.clip((image - low) / max(high - low, 1e-3), 0.0, 1.0)
    return np.asarray(image, np.float32)


def _blur(image: FloatArray, sigmas: Sequence[float]) -> FloatArray:
    for axis, sigma in enumerate(sigmas):
        if sigma > 0.2 and image.shape[axis] > 1:
            image = ndimage.gaussian_filter1d(image, sigma, axis=axis, truncate=3.0, mode="nearest")
    return image


def _field_cells(shape: Sequence[int], cell: float) -> tuple[int, int, int]:
    return (max(1, round(shape[0] / cell)), max(1, round(shape[1] / cell)), max(1, round(shape[2] / cell)))


def _add_noise(rng: np.random.Generator, image: FloatArray, *, rician: bool) -> FloatArray:
    level = log_uniform(rng, 0.004, 0.07)
    noise = rng.standard_normal(image.shape, dtype=np.float32)
    if rng.random() < 0.4:  # a reconstruction kernel correlates the noise
        width = rng.uniform(0.5, 1.1)
        noise = _blur(noise, (0.0, width, width)) * np.float32(1 + 1.6 * width)
    image = image + level * noise
    if rician:
        image = np.hypot(image, level * rng.standard_normal(image.shape, dtype=np.float32))
    return image


def _add_streaks(rng: np.random.Generator, image: FloatArray) -> FloatArray:
    """Dark and bright rays from one point, on the slices near it, as metal leaves them in CT."""
    slices, rows, columns = image.shape
    row, column = rng.uniform(0.2, 0.8) * rows, rng.uniform(0.2, 0.8) * columns
    y, x = np.ogrid[:rows, :columns]
    y, x = (y - row).astype(np.float32), (x - column).astype(np.float32)
    angle = np.arctan2(y, x)
    rays = sum(np.cos(int(rng.integers(3, 24)) * angle + rng.uniform(0, 6.28)) for _ in range(4))
    fade = 1 / (1 + np.hypot(y, x) / (0.15 * rows))
    near = np.exp(-0.5 * ((np.arange(slices) - rng.uniform(0, slices)) / rng.uniform(1, 5)) ** 2)
    pattern = (near[:, None, None] * (np.asarray(rays) * fade)[None]).astype(np.float32)
    return np.asarray(image + rng.uniform(0.01, 0.08) * pattern, np.float32)


def _as_ultrasound(rng: np.random.Generator, image: FloatArray) -> FloatArray:
    """Multiplicative speckle, wider across the beam than along it, attenuation with depth, and a fan-shaped view."""
    across = rng.uniform(0.8, 2.0)
    real, imaginary = (_blur(rng.standard_normal(image.shape, dtype=np.float32), (0.6, 0.6, across)) for _ in range(2))
    speckle = np.hypot(real, imaginary)
    speckle /= speckle.mean() + 1e-6
    strength = rng.uniform(0.3, 1.0)
    _, rows, columns = image.shape
    depth = np.linspace(0, 1, rows, dtype=np.float32)[None, :, None]
    image = (image + 0.1) * (1 - strength + strength * speckle) * np.exp(-rng.uniform(0, 1.5) * depth)
    if rng.random() < 0.6:
        y, x = np.mgrid[:rows, :columns].astype(np.float32)
        angle = np.arctan2(x - columns / 2, y + rng.uniform(0.05, 0.4) * rows)
        image = image * (np.abs(angle) < rng.uniform(0.5, 0.9))[None]
    return np.asarray(image, np.float32)
