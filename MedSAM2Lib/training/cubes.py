"""Cubes to train drafts on: one object in the planes around a prompted one, of which some are known."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from MedSAM2Lib.training.appearance import HIDDEN_SHARE, seen_greys
from MedSAM2Lib.training.augmentation import augment, is_visible
from MedSAM2Lib.training.fields import log_uniform
from MedSAM2Lib.training.hints import astray
from MedSAM2Lib.training.sources import ObjectSource, SourceOptions
from MedSAM2Lib.training.views import choose_axis, choose_turn, resample, square_around
from MedSAM2Lib.training.volumes import Profile, Target, TrainingVolume

__all__ = ["PSEUDO_TARGET_SLICES", "Cube", "CubeBatch", "CubeSource", "make_cube"]

FloatArray = npt.NDArray[np.float32]
BoolArray = npt.NDArray[np.bool_]

_EVERYTHING = SourceOptions()
# Which plane is prompted: mostly one that shows much of the object.
_SMALLEST_AREA = 12  # voxels; half of the largest area if the target never gets there
_LEAST_SHARES = ((0.0, 0.125), (0.25, 0.375), (0.85, 0.5))  # of the largest area, and how often at least that is asked for
# Which cube around it.
_SIDES = (1.5, 2.3)  # of the cube, in sides of the object's box on the prompted plane
_SMALLEST_SIDE, _SMALLEST_BOX = 12, 3  # voxels of the finer axis
_STRETCH = (0.8, 1.4)  # from plane to plane, in cells, or slices where those are thicker
_SHIFTED_SHARE = 0.4  # of the prompted planes are not in the middle, but up to a quarter of the cube away
_MOST_VOXELS = 16_000_000  # to read for a cube; of objects that are larger still others are drawn
_LEAST_PIXELS = 0.0007  # of the prompted plane
# What is known of it.
_EXACT_SHARE = 0.4  # of the masks of prompted planes are the reference's; the others are led astray, as a network's answer is
_CORRECTED_SHARE, _MOST_CORRECTED, _EXACT_CORRECTION = 0.35, 3, 0.7  # of the cubes with more known planes; how many; exact ones
_ANYWHERE_SHARE = 0.3  # of those planes lie anywhere in the cube, the others where the object is
PSEUDO_TARGET_SLICES = 8


@dataclass(frozen=True)
class Cube:
    """One object in S planes of S x S cells."""

    grey: FloatArray  # (S, S, S), 0..1
    known: BoolArray  # (S,) planes of which a person has said what is on them
    told: BoolArray  # (S, S, S): what was said; nothing on other planes
    depth: float  # from plane to plane, cells
    mask: BoolArray  # (S, S, S): the object
    inside: BoolArray  # (S,) planes that lie in the volume
    kind: str  # "scan", "label map", "supervoxel", "lesion" or "synthetic"
    name: str  # volume and structure, for people


class CubeBatch(NamedTuple):
    """B cubes of one size."""

    grey: Tensor  # (B, S, S, S)
    known: Tensor  # (B, S) bool
    told: Tensor  # (B, S, S, S)
    depth: Tensor  # (B,)
    mask: Tensor  # (B, S, S, S) bool
    inside: Tensor  # (B, S) bool

    @classmethod
    def of(cls, cubes: Sequence[Cube]) -> CubeBatch:
        def stacked(name: str) -> Tensor:
            return torch.from_numpy(np.stack([getattr(cube, name) for cube in cubes]))

        depth = torch.tensor([cube.depth for cube in cubes])
        return cls(stacked("grey"), stacked("known"), stacked("told").float(), depth, stacked("mask"), stacked("inside"))

    def to(self, device: torch.device) -> CubeBatch:
        return CubeBatch(*(part.to(device) for part in self))


class CubeSource(ObjectSource[Cube]):
    """Draws cubes; `repainted` is the chance that a labelled scan is shown in a contrast of its own."""

    def __init__(self, train_dir: Path | None, options: SourceOptions = _EVERYTHING, *, repainted: float = 0.0) -> None:
        super().__init__(train_dir, partial(make_cube, repainted=repainted), options)

    def sample_batch(self, rng: np.random.Generator, batch_size: int, side: int, *, step: int = 0) -> CubeBatch:
        """A function of the source's and these arguments."""
        return CubeBatch.of([self.sample(rng, side, PSEUDO_TARGET_SLICES, step=step) for _ in range(batch_size)])


def make_cube(
    rng: np.random.Generator,
    volume: TrainingVolume,
    target: Target,
    kind: str,
    side: int,
    length: int,
    axis: int | None = None,
    repainted: float = 0.0,
) -> Cube | None:
    """See the target in a random cube of side^3 cells; None if it is too small or too large, or is lost at this size or contrast.

    length     is not looked at: a cube has as many planes as cells
    repainted  chance that a labelled scan is shown in a contrast of its own
    """
    # 1. The prompted slice, and the square around the object there
    axis = choose_axis(rng, volume.shape, volume.spacing) if axis is None else axis
    profile = target.profile(axis)
    number = _choose_slice(rng, profile)
    if number is None:
        return None
    prompted = profile.first + number
    slice_mm = volume.spacing[axis]
    in_plane = [a for a in range(3) if a != axis]
    pixel_mm = np.array([volume.spacing[a] for a in in_plane])
    first, last = profile.boxes[number].reshape(2, 2).astype(float)
    box_mm = (last - first + 1) * pixel_mm
    if box_mm.max() < _SMALLEST_BOX * pixel_mm.min():
        return None
    side_mm = max(float(box_mm.max()) * log_uniform(rng, *_SIDES), _SMALLEST_SIDE * float(pixel_mm.min()))
    square = square_around(rng, side, side_mm, (first + last) / 2, box_mm, pixel_mm, choose_turn(rng))
    # 2. The planes, and the slices that they lie between
    cell_mm = side_mm / side
    plane_mm = max(cell_mm, slice_mm) * log_uniform(rng, *_STRETCH)
    shift = int(rng.integers(-side // 4, side // 4 + 1)) if rng.random() < _SHIFTED_SHARE else 0
    middle = side // 2 - shift  # the prompted plane
    places = prompted + (np.arange(side) - middle) * (plane_mm / slice_mm)
    slices = _slices_between(places, prompted, volume.shape[axis], max(1, int(plane_mm / slice_mm)))
    rows, columns = square.window((volume.shape[in_plane[0]], volume.shape[in_plane[1]]))
    if len(slices) * (rows.stop - rows.start) * (columns.stop - columns.start) > _MOST_VOXELS:
        return None
    # 3. What is seen there
    mask = target.cut(axis, slices, rows, columns)
    at = int(np.searchsorted(slices, prompted))
    values, drawn = seen_greys(rng, volume, target, kind, (axis, slices, rows, columns), (at, mask[at]), repainted)
    sampled = resample(square, np.concatenate([values, mask], dtype=np.float32), rows, columns)
    number_of_plane = (places - slices[0]) / max(1, slices[1] - slices[0]) if len(slices) > 1 else places - slices[0]
    inside = (number_of_plane > -0.75) & (number_of_plane < len(slices) - 0.25)  # half a slice beyond the outermost centres
    grey, shown = (_between(part, number_of_plane, inside) for part in (sampled[: len(slices)], sampled[len(slices) :]))
    wanted = shown >= 0.5
    if wanted[middle].sum() < max(4.0, _LEAST_PIXELS * side**2):
        return None
    if drawn and not is_visible(grey[middle], wanted[middle]) and rng.random() > HIDDEN_SHARE:
        return None
    # 4. What a person said of it
    grey = augment(rng, grey)
    turned = rng.random() < 0.5
    known, told = _say(rng, wanted, middle, inside, slice_mm / plane_mm)
    parts = [part[::-1] if turned else part for part in (grey, known, told, wanted, inside)]
    grey, known, told, wanted, inside = (np.ascontiguousarray(part) for part in parts)
    return Cube(grey, known, told, plane_mm / cell_mm, wanted, inside, kind, f"{volume.name}: {target.name}")


def _choose_slice(rng: np.random.Generator, profile: Profile) -> int | None:
    areas = profile.areas
    if not len(areas):
        return None
    least = _LEAST_SHARES[int(rng.choice(len(_LEAST_SHARES), p=[share for _, share in _LEAST_SHARES]))][0]
    enough = (areas >= min(_SMALLEST_AREA, areas.max() / 2)) & (areas >= least * areas.max())
    weight = np.sqrt(areas) * enough
    return int(rng.choice(len(weight), p=weight / weight.sum())) if weight.any() else None


def _slices_between(places: npt.NDArray[np.floating], prompted: int, count: int, stride: int) -> npt.NDArray[np.int64]:
    """Slices, the prompted one among them, `stride` apart, that planes at `places` lie between, as far as the volume goes."""
    first = max(0, math.floor(places[0]) - stride)
    last = min(count - 1, math.ceil(places[-1]) + stride)
    return np.arange(prompted - (prompted - first) // stride * stride, last + 1, stride)


def _between(layers: FloatArray, places: npt.NDArray[np.floating], inside: BoolArray) -> FloatArray:
    """Layers (N, S, S) interpolated at places among their numbers; 0 where those are not inside."""
    below = np.clip(np.floor(places).astype(int), 0, len(layers) - 1)
    above = np.minimum(below + 1, len(layers) - 1)
    share = np.clip(places - below, 0, 1).astype(np.float32)[:, None, None]
    out: FloatArray = (layers[below] * (1 - share) + layers[above] * share) * inside[:, None, None]
    return out


def _say(
    rng: np.random.Generator, wanted: BoolArray, prompted: int, inside: BoolArray, thickness: float
) -> tuple[BoolArray, BoolArray]:
    """Which planes are known (S,), and what is told of them (S, S, S); `thickness` is that of a slice, in planes."""
    side = len(wanted)
    known, told = np.zeros(side, bool), np.zeros_like(wanted)
    generator = torch.Generator().manual_seed(int(rng.integers(2**31)))

    def say(plane: int, exact: bool) -> None:
        mask = wanted[plane]
        if not exact and mask.any():
            mask = (astray(torch.from_numpy(mask)[None], generator)[0, 0] > 0).numpy()
        half = max(thickness, 1.0) / 2
        first = max(0, min(math.ceil(plane - half + 1e-6), plane))
        last = min(side - 1, max(math.floor(plane + half - 1e-6), plane))
        known[first : last + 1] = True
        told[first : last + 1] = mask

    say(prompted, rng.random() < _EXACT_SHARE)
    if rng.random() < _CORRECTED_SHARE:
        shows = np.flatnonzero(wanted.any(axis=(1, 2)))
        for _ in range(int(rng.integers(1, _MOST_CORRECTED + 1))):
            anywhere = rng.random() < _ANYWHERE_SHARE
            plane = int(rng.integers(0, side)) if anywhere else int(rng.integers(shows[0], shows[-1] + 1))
            if inside[plane]:
                say(plane, rng.random() < _EXACT_CORRECTION)
    return known, told
