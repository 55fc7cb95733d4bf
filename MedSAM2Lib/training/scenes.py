"""Scenes: an object in its neighbourhood as a small volume, for a session to work on."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt

from MedSAM2Lib.geometry import Geometry
from MedSAM2Lib.training.appearance import HIDDEN_SHARE, seen_greys
from MedSAM2Lib.training.augmentation import augment, is_visible
from MedSAM2Lib.training.cubes import PSEUDO_TARGET_SLICES, choose_slice
from MedSAM2Lib.training.fields import log_uniform
from MedSAM2Lib.training.sources import ObjectSource, SourceOptions
from MedSAM2Lib.training.views import choose_axis
from MedSAM2Lib.training.volumes import Profile, Target, TrainingVolume
from MedSAM2Lib.volume import Volume

__all__ = ["Scene", "SceneSource", "make_scene"]

BoolArray = npt.NDArray[np.bool_]

_EVERYTHING = SourceOptions()
_LEAST_SLICES = 3  # with the object
_LEAST_PIXELS = 6  # on the prompted slice
# Around the object: as far as a view may come to look, so that the end of the scene is not that of what can be seen.
_MARGIN, _MARGIN_PIXELS = 1.2, 4  # sides of its box on the prompted slice, and pixels
_LEAST_BEYOND = 10  # slices, or half of the object's own
_LEAST_SIDE = 16  # pixels
_MOST_SLICES = 160
_MOST_VOXELS = 6_000_000  # in larger ones a session would take too long
# Of the slices some are left out, as if they were thicker.
_ALL_SHARE = 0.4  # of the scenes leave out none
_STEP_MM, _LARGEST_STEP = (0.8, 6.0), 3


@dataclass(frozen=True)
class Scene:
    """One object in a volume of its own, sliced along k."""

    volume: Volume  # grey values 0..255
    mask: BoolArray  # (k, j, i): the object
    prompted: int  # the slice on which a person begins
    kind: str  # "scan", "label map", "supervoxel", "lesion" or "synthetic"
    name: str  # volume and structure, for people

    @property
    def spacing(self) -> tuple[float, float, float]:
        """(i, j, k) mm."""
        return self.volume.geometry.spacing


class SceneSource(ObjectSource[Scene]):
    """Draws scenes; `repainted` is the chance that a labelled scan is shown in a contrast of its own."""

    def __init__(self, train_dir: Path | None, options: SourceOptions = _EVERYTHING, *, repainted: float = 0.0) -> None:
        super().__init__(train_dir, partial(make_scene, repainted=repainted), options)

    def sample_scene(self, rng: np.random.Generator, *, step: int = 0) -> Scene:
        """A function of the source's and these arguments."""
        return self.sample(rng, _LEAST_SIDE, PSEUDO_TARGET_SLICES, step=step)


def make_scene(
    rng: np.random.Generator,
    volume: TrainingVolume,
    target: Target,
    kind: str,
    side: int,
    length: int,
    axis: int | None = None,
    repainted: float = 0.0,
) -> Scene | None:
    """Cut the target and what is around it out of its volume; None if it is too small or too large, or is lost at this contrast.

    side, length  are not looked at: a scene is as large as its object and its neighbourhood
    repainted     chance that a labelled scan is shown in a contrast of its own
    """
    # 1. Where
    axis = choose_axis(rng, volume.shape, volume.spacing) if axis is None else axis
    profile = target.profile(axis)
    number = choose_slice(rng, profile)
    if number is None or len(profile.areas) < _LEAST_SLICES:
        return None
    prompted = profile.first + number
    in_plane = [a for a in range(3) if a != axis]
    pixel_mm = np.array([volume.spacing[a] for a in in_plane])
    rows, columns = _window(profile, number, pixel_mm, (volume.shape[in_plane[0]], volume.shape[in_plane[1]]))
    slices = _choose_slices(rng, profile, prompted, volume.shape[axis], volume.spacing[axis])
    height, width = rows.stop - rows.start, columns.stop - columns.start
    if min(height, width) < _LEAST_SIDE or len(slices) * height * width > _MOST_VOXELS:
        return None
    # 2. What is seen there
    at = int(np.searchsorted(slices, prompted))
    mask = target.cut(axis, slices, rows, columns)
    if np.count_nonzero(mask[at]) < _LEAST_PIXELS:
        return None
    values, drawn = seen_greys(rng, volume, target, kind, (axis, slices, rows, columns), (at, mask[at]), repainted)
    if drawn and not is_visible(values[at], mask[at]) and rng.random() > HIDDEN_SHARE:
        return None
    image = np.rint(augment(rng, values) * 255).astype(np.uint8)
    if image.min() == image.max():
        return None
    # 3. From which side
    slice_mm = volume.spacing[axis] * (int(slices[1] - slices[0]) if len(slices) > 1 else 1)
    row_mm, column_mm = pixel_mm.tolist()
    for direction in (1, 2):
        if rng.random() < 0.5:
            image, mask = np.flip(image, direction), np.flip(mask, direction)
    if rng.random() < 0.5:
        image, mask, row_mm, column_mm = image.swapaxes(1, 2), mask.swapaxes(1, 2), column_mm, row_mm
    image, mask = np.ascontiguousarray(image), np.ascontiguousarray(mask)
    shape = (image.shape[0], image.shape[1], image.shape[2])
    name = f"{volume.name}: {target.name}"
    return Scene(Volume(image, Geometry(shape, (column_mm, row_mm, slice_mm)), source=name), mask, at, kind, name)


def _window(
    profile: Profile, number: int, pixel_mm: npt.NDArray[np.float64], plane: tuple[int, int]
) -> tuple[slice, slice]:
    """The rows and columns of a scene: of the object on all its slices, and a margin."""
    first, last = profile.boxes[:, :2].min(axis=0), profile.boxes[:, 2:].max(axis=0)
    prompted_first, prompted_last = profile.boxes[number].reshape(2, 2)
    longest_mm = float(((prompted_last - prompted_first + 1) * pixel_mm).max())
    margin = (_MARGIN * longest_mm / pixel_mm).astype(int) + _MARGIN_PIXELS
    starts, stops = np.maximum(first - margin, 0).tolist(), np.minimum(last + 1 + margin, plane).tolist()
    return slice(starts[0], stops[0]), slice(starts[1], stops[1])


def _choose_slices(
    rng: np.random.Generator, profile: Profile, prompted: int, count: int, slice_mm: float
) -> npt.NDArray[np.int64]:
    """Slices of an axis of `count`, evenly spaced, the prompted one among them: of the object, and beyond its ends."""
    own = len(profile.areas)
    thickened = int(np.clip(round(log_uniform(rng, *_STEP_MM) / slice_mm), 1, _LARGEST_STEP))
    step = 1 if rng.random() < _ALL_SHARE else max(1, min(thickened, own // _LEAST_SLICES))
    beyond = max(_LEAST_BEYOND * step, own // 2)
    first, last = max(0, profile.first - beyond), min(count - 1, profile.first + own - 1 + beyond)
    slices = np.arange(prompted - (prompted - first) // step * step, last + 1, step)
    begin = max(0, min(int(np.searchsorted(slices, prompted)) - _MOST_SLICES // 2, len(slices) - _MOST_SLICES))
    return slices[begin : begin + _MOST_SLICES]
