"""Clips to train on: one object through consecutive slices, seen through one square crop.

A clip comes from one of four kinds of source: labelled scans, label maps without an image (rendered in a fresh contrast),
pseudo-targets grown in any scan, and synthetic volumes. Whatever is drawn depends only on the random generator and the
step that are handed in; the caches hold nothing that could not be computed again, so a run can be resumed anywhere.

Arrays are (k, j, i); inside a slice the axes are (row, column). Spacing is in mm along (k, j, i).
"""

from __future__ import annotations

import json
import math
import zipfile
from collections import OrderedDict
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from scipy import ndimage
from torch.nn import functional
from torch.utils.data import IterableDataset, get_worker_info

from MedSAM2Lib.errors import TrainingError
from MedSAM2Lib.training.synthetic import DEFAULT_SHAPE, render_labels, smooth_field, synthetic_volume

__all__ = ["ALWAYS_LEFT_OUT", "Clip", "ClipDataset", "ClipSource"]

FloatArray = npt.NDArray[np.float32]
BoolArray = npt.NDArray[np.bool_]
AnyArray = npt.NDArray[np.generic]

# Probably the very person of an evaluation case, in other sequences (shared/train/README.md).
ALWAYS_LEFT_OUT = ("mr_cord_sct_t1w", "mr_cord_sct_mt1")

# Chance of a source group among labelled scans; a group that is not named here gets the last figure.
_GROUP_WEIGHTS = {
    "OpenKBP": 0.27,
    "TotalSegmentator": 0.25,
    "open_ms_data cross-sectional": 0.14,
    "open_ms_data longitudinal": 0.06,
    "spinal cord": 0.12,
    "various": 0.16,
}
_OTHER_GROUP_WEIGHT = 0.15
_GRADE_WEIGHTS = {"A": 1.0, "B": 1.0, "C": 0.6}
_SUPERVOXEL_SHARE = 0.08
_LABEL_MAP_SHARE = 0.22  # of what synthetic volumes and supervoxels leave, label maps take 0.22 / (0.22 + 0.35)
_LABELLED_SHARE = 0.35

# CT windows (level, width) in HU that readers use.
_CT_WINDOWS = ((40, 400), (60, 150), (-600, 1500), (400, 1800), (40, 80), (40, 40), (50, 350))
_LEAST_CONTRAST = 0.06  # of a drawn image, between an object and its surroundings; see _is_visible

_DROPPED_SHARE = 0.8  # of drawn objects that cannot be seen

_SMALLEST_AREA = 12  # voxels of the prompted slice; half of the largest slice if the object never gets there
_SMALLEST_SIDE = 12.0  # voxels of the finer in-plane axis: the least a crop shows
_LEAST_PIXELS = 0.0007  # of the crop's area on the prompted slice: 11 pixels at S = 128
_SMALLEST_PIECE = 30  # voxels of a piece of a scattered label that is worth a turn
_FILLED_SHARE = 0.3  # of synthetic targets include what they enclose: a vessel with its lumen, an organ with its lesion
_CROP_FACTORS = (1.3, 3.5)
_WHOLE_SLICE_SHARE = 0.10
_MOST_ANISOTROPY = 2.5  # slice along j or i only where the voxels are not more elongated than this
_STEP_MM = (0.8, 6.0)
_LARGEST_STEP = 3
_LEAVING_WEIGHT = 0.5  # of windows at whose end the object is gone, against those where it is still there
_ATTEMPTS = 200

# Synthetic volumes: `step % streams` chooses a pool, so that workers of one DataLoader (1, 2, 4, 8 or 16 of them)
# do not all build all volumes; one volume of a pool is replaced every _POOL_STEPS of its steps.
_STREAMS = 16
_POOL_SIZE = 6
_POOL_STEPS = 1
_CACHED_VOLUMES = _STREAMS * _POOL_SIZE
_SYNTHETIC_SPACING = (2.0, 1.0, 1.0)  # the middle of what synthetic_volume draws


@dataclass(frozen=True)
class Clip:
    """One object through T slices in one S x S crop; `masks[0]`, the prompted slice, is not empty.

    images  (T, S, S) float32, 0..1
    masks   (T, S, S) bool; empty where the object has ended
    kind    "scan", "label map", "supervoxel" or "synthetic"
    name    volume and structure, for people
    """

    images: FloatArray
    masks: BoolArray
    kind: str = ""
    name: str = ""


# --- volumes and objects ----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Profile:
    """An object along one axis: `areas[n]` voxels and `boxes[n]` = (row0, column0, row1, column1) on slice `first` + n."""

    first: int
    areas: npt.NDArray[np.int64]
    boxes: npt.NDArray[np.int64]


class _Object:
    """One thing to segment: the voxels of `codes` (k, j, i) whose value is marked in the table `wanted`.

    `offset` is where `codes` lies in its volume.
    """

    def __init__(self, name: str, codes: AnyArray, wanted: BoolArray, offset: tuple[int, int, int] = (0, 0, 0)) -> None:
        self.name = name
        self.codes = codes
        self.wanted = wanted
        self.offset = offset
        self._profiles: dict[int, _Profile] = {}

    def profile(self, axis: int) -> _Profile:
        if axis not in self._profiles:
            self._profiles[axis] = self._measure(axis)
        return self._profiles[axis]

    def _measure(self, axis: int) -> _Profile:
        mask = np.moveaxis(self.wanted[self.codes], axis, 0)
        occupied = np.flatnonzero(mask.any(axis=(1, 2)))
        if not len(occupied):
            return _Profile(0, np.zeros(0, np.int64), np.zeros((0, 4), np.int64))
        first, last = int(occupied[0]), int(occupied[-1])
        mask = mask[first : last + 1]
        rows, columns = mask.any(axis=2), mask.any(axis=1)
        row_offset, column_offset = (part for a, part in enumerate(self.offset) if a != axis)
        boxes = np.stack(
            [
                rows.argmax(1) + row_offset,
                columns.argmax(1) + column_offset,
                rows.shape[1] - 1 - rows[:, ::-1].argmax(1) + row_offset,
                columns.shape[1] - 1 - columns[:, ::-1].argmax(1) + column_offset,
            ],
            axis=1,
        )
        return _Profile(first + self.offset[axis], mask.sum(axis=(1, 2), dtype=np.int64), boxes)

    def cut(self, axis: int, indices: npt.NDArray[np.int64], rows: slice, columns: slice) -> BoolArray:
        """The mask (len(indices), rows, columns) on slices of the volume, in a window of the volume's slice."""
        codes = np.moveaxis(self.codes, axis, 0)
        row_offset, column_offset = (part for a, part in enumerate(self.offset) if a != axis)
        out = np.zeros((len(indices), rows.stop - rows.start, columns.stop - columns.start), bool)
        row0, row1 = max(rows.start, row_offset), min(rows.stop, row_offset + codes.shape[1])
        column0, column1 = max(columns.start, column_offset), min(columns.stop, column_offset + codes.shape[2])
        if row1 <= row0 or column1 <= column0:
            return out
        part = codes[:, row0 - row_offset : row1 - row_offset, column0 - column_offset : column1 - column_offset]
        for n, index in enumerate(indices - self.offset[axis]):
            if 0 <= index < len(codes):
                out[n, row0 - rows.start : row1 - rows.start, column0 - columns.start : column1 - columns.start] = self.wanted[part[index]]
        return out


@dataclass
class _Volume:
    """A decoded volume. `image` or `label`, not both, may be None; `tissues` (256,) only where the image is rendered."""

    name: str
    spacing: tuple[float, float, float]
    image: AnyArray | None
    label: npt.NDArray[np.uint8] | None
    is_ct: bool = False
    display_window: tuple[float, float] | None = None
    tissues: npt.NDArray[np.int64] | None = None
    objects: dict[str, list[_Object]] = field(default_factory=dict)
    _range: tuple[float, float] | None = None

    @property
    def shape(self) -> tuple[int, int, int]:
        array = self.label if self.image is None else self.image
        assert array is not None  # the constructor's caller has seen to it
        return (array.shape[0], array.shape[1], array.shape[2])

    def intensity_range(self) -> tuple[float, float]:
        """Percentiles 0.5 and 99.5 of the non-zero voxels."""
        if self._range is None:
            assert self.image is not None
            sample = self.image.reshape(-1)[:: max(1, self.image.size // 200_000)]
            sample = sample[sample != 0]
            low, high = np.percentile(sample, (0.5, 99.5)) if len(sample) else (0.0, 1.0)
            self._range = (float(low), float(max(high, low + 1e-3)))
        return self._range


@dataclass(frozen=True)
class _Entry:
    """One line of the manifest."""

    name: str
    path: Path
    group: str
    grade: str
    modality: str
    has_image: bool
    has_label: bool
    display_window: tuple[float, float] | None
    structures: tuple[tuple[str, tuple[int, ...]], ...]


def _read_manifest(train_dir: Path) -> list[_Entry]:
    path = train_dir / "manifest.json"
    if not path.is_file():
        raise TrainingError(f"Expected the training set's manifest.json in {train_dir}, but there is none; give the folder that holds it.")
    try:
        stored = json.loads(path.read_text(encoding="utf-8"))["volumes"]
        entries = [_read_entry(train_dir, item) for item in stored]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise TrainingError(
            f"{path} should list volumes with id, file, content and structures, but {type(error).__name__}: {error}; restore the file."
        ) from error
    if not entries:
        raise TrainingError(f"{path} lists no volume; give the folder of a training set with at least one.")
    return entries


def _read_entry(train_dir: Path, item: Mapping[str, object]) -> _Entry:
    window, structures = item.get("display_window"), item.get("structures") or []
    assert isinstance(structures, list)
    return _Entry(
        name=str(item["id"]),
        path=train_dir / str(item["file"]),
        group=str(item.get("source_group", "")),
        grade=str(item.get("label_grade")),
        modality=str(item.get("modality", "")),
        has_image="image" in str(item["content"]),
        has_label="label" in str(item["content"]),
        display_window=(float(window[0]), float(window[1])) if isinstance(window, (list, tuple)) else None,
        structures=tuple((str(s["name"]), tuple(int(v) for v in s["label_values"])) for s in structures),
    )


def _load_volume(entry: _Entry) -> _Volume:
    try:
        with np.load(entry.path) as stored:
            image = stored["image"] if entry.has_image else None
            label = stored["label"] if entry.has_label else None
            spacing = stored["spacing"]
    except FileNotFoundError as error:
        raise TrainingError(f"The manifest lists {entry.path}, but there is no such file; restore it or hold {entry.name} out.") from error
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise TrainingError(
            f"{entry.path} should be an .npz with {'image, ' * entry.has_image}{'label, ' * entry.has_label}spacing, "
            f"but it cannot be read ({error}); restore the file or hold {entry.name} out."
        ) from error
    for what, array in (("image", image), ("label", label)):
        if array is not None and array.ndim != 3:
            raise TrainingError(f"The {what} of {entry.path} should be (k, j, i), but its shape is {array.shape}; restore the file.")
    if image is not None and label is not None and image.shape != label.shape:
        raise TrainingError(
            f"Image and label of {entry.path} should have one shape, but {image.shape} and {label.shape} came; "
            f"restore the file or hold {entry.name} out."
        )
    mm = (float(spacing[0]), float(spacing[1]), float(spacing[2]))
    tissues = None if entry.has_image else _tissue_classes(entry.structures)
    return _Volume(entry.name, mm, image, label, entry.modality == "CT", entry.display_window, tissues)


def _tissue_classes(structures: Sequence[tuple[str, tuple[int, ...]]]) -> npt.NDArray[np.int64]:
    """(256,): one class for left and right of a name, so that they are rendered alike."""
    classes = np.arange(256)
    seen: dict[str, int] = {}
    for name, values in structures:
        plain = " ".join(word for word in name.split() if word not in ("left", "right"))
        for value in values:
            classes[value] = seen.setdefault(plain, value)
    return classes


def _label_objects(name: str, label: npt.NDArray[np.uint8], values: Sequence[int], *, split: bool) -> list[_Object]:
    """The structure as one object; as one per 3D piece when `split` and it is scattered. Empty if no voxel has it."""
    wanted = np.zeros(256, bool)
    wanted[list(values)] = True
    mask = wanted[label]
    bounds = [np.flatnonzero(mask.any(axis=tuple(a for a in range(3) if a != axis))) for axis in range(3)]
    if not len(bounds[0]):
        return []
    box = tuple(slice(int(b[0]), int(b[-1]) + 1) for b in bounds)
    offset = (box[0].start, box[1].start, box[2].start)
    if split:
        pieces, count = ndimage.label(mask[box], np.ones((3, 3, 3)))
        sizes = np.bincount(pieces.reshape(-1), minlength=count + 1)[1:]
        if "lesion" in name or (count > 3 and sizes.max() < 0.6 * sizes.sum()):
            boxes = ndimage.find_objects(pieces)
            smallest = min(_SMALLEST_PIECE, int(sizes.max()))
            return [_piece(f"{name} {n + 1}", pieces, n + 1, boxes[n], offset) for n in np.flatnonzero(sizes >= smallest)]
    return [_Object(name, label[box], wanted, offset)]


def _piece(name: str, pieces: npt.NDArray[np.int32], value: int, where: tuple[slice, ...], offset: tuple[int, int, int]) -> _Object:
    wanted = np.zeros(2, bool)
    wanted[1] = True
    start = (offset[0] + where[0].start, offset[1] + where[1].start, offset[2] + where[2].start)
    return _Object(name, (pieces[where] == value).astype(np.uint8), wanted, start)


# --- where to look ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _View:
    """Which slices, and where in the slice each output pixel lies: `rows` and `columns` (S, S), voxels."""

    axis: int
    indices: npt.NDArray[np.int64]
    rows: FloatArray
    columns: FloatArray
    shrink: tuple[float, float]  # voxels of (row, column) per output pixel


def _choose_axis(rng: np.random.Generator, volume: _Volume) -> int:
    """k mostly; j or i one time in four where voxels are near isotropic."""
    near_isotropic = max(volume.spacing) / min(volume.spacing) < _MOST_ANISOTROPY
    return int(rng.choice(3, p=(0.74, 0.13, 0.13))) if near_isotropic else 0


def _choose_slices(
    rng: np.random.Generator, profile: _Profile, size: int, spacing: float, length: int
) -> tuple[npt.NDArray[np.int64], tuple[int, int, int, int]] | None:
    """Slice indices (length,), the prompted one first, and the object's box there; None if no window fits."""
    if size < length or not len(profile.areas):
        return None
    wanted_mm = math.exp(rng.uniform(*np.log(_STEP_MM)))
    step = int(np.clip(round(wanted_mm / spacing), 1, _LARGEST_STEP))
    step = max(1, min(step, (size - 1) // max(1, length - 1)))
    direction = int(rng.choice((-1, 1)))
    enough = profile.areas >= min(_SMALLEST_AREA, max(4, profile.areas.max() / 2))
    weight = np.where(enough, np.sqrt(profile.areas), 0.0)
    position = profile.first + np.arange(len(profile.areas))
    for way in (direction, -direction):
        end = position + way * step * (length - 1)
        fits = weight * ((end >= 0) & (end < size))
        if fits.any():
            last = np.arange(len(fits)) + way * step * (length - 1)
            present = (last >= 0) & (last < len(fits)) & (profile.areas[np.clip(last, 0, len(fits) - 1)] > 0)
            fits = np.where(present, fits, _LEAVING_WEIGHT * fits)
            n = int(rng.choice(len(fits), p=fits / fits.sum()))
            row0, column0, row1, column1 = profile.boxes[n].tolist()
            return position[n] + way * step * np.arange(length), (row0, column0, row1, column1)
    return None


def _choose_view(
    rng: np.random.Generator, shape: tuple[int, int, int], spacing: tuple[float, float, float], thing: _Object, axis: int, size: int, length: int
) -> _View | None:
    """A random view of the object: slices, and a turned, flipped, sheared, slightly bent square around its box."""
    chosen = _choose_slices(rng, thing.profile(axis), shape[axis], spacing[axis], length)
    if chosen is None:
        return None
    indices, (row0, column0, row1, column1) = chosen
    in_plane = [a for a in range(3) if a != axis]
    slice_shape = np.array([shape[a] for a in in_plane], float)
    mm = np.array([spacing[a] for a in in_plane], float)
    mm = mm / mm.min() if rng.random() < 0.7 else np.ones(2)  # square in mm, or square in voxels
    if rng.random() < 0.5:
        mm[rng.integers(2)] *= math.exp(rng.uniform(-1, 1) * math.log(1.25))

    box_size = np.array([row1 - row0 + 1, column1 - column0 + 1]) * mm
    centre = np.array([row0 + row1, column0 + column1]) / 2
    turn = _crop_turn(rng)
    if rng.random() < _WHOLE_SLICE_SHARE:
        side = float((slice_shape * mm).max() * rng.uniform(0.9, 1.15))
        centre = (slice_shape - 1) / 2 * (1 - 0.2) + 0.2 * centre
    else:
        side = float(box_size.max() * np.exp(rng.uniform(*np.log(_CROP_FACTORS))))
    side = max(side, _SMALLEST_SIDE)
    # Jitter as far as the box, turned, stays inside the crop.
    reach = np.abs(np.linalg.inv(turn)) @ (box_size / 2)
    slack = np.clip(side / 2 - reach, 0, None) * 0.9
    centre = centre + (turn @ rng.uniform(-slack, slack)) / mm

    ticks = (np.arange(size, dtype=np.float32) + 0.5) / size - 0.5
    across = np.stack(np.meshgrid(ticks, ticks, indexing="ij")) * np.float32(side)  # (2, S, S)
    if rng.random() < 0.3:
        cells = int(rng.integers(2, 5))
        bend = np.stack([smooth_field(rng, (size, size), (cells, cells)) for _ in range(2)])
        across += bend * np.float32(side * rng.uniform(0.0, 0.04) / cells)
    matrix = (turn / mm[:, None]).astype(np.float32)
    rows = matrix[0, 0] * across[0] + matrix[0, 1] * across[1] + np.float32(centre[0])
    columns = matrix[1, 0] * across[0] + matrix[1, 1] * across[1] + np.float32(centre[1])
    return _View(axis, indices, rows, columns, (side / size / float(mm[0]), side / size / float(mm[1])))


def _crop_turn(rng: np.random.Generator) -> npt.NDArray[np.float64]:
    """(2, 2) from the crop's (row, column) to the slice's: rotation, shear and flips."""
    degrees = rng.uniform(-180, 180) if rng.random() < 0.2 else rng.uniform(-25, 25)
    angle, shear = math.radians(degrees), math.tan(math.radians(rng.uniform(-10, 10))) * (rng.random() < 0.3)
    turn = np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]]) @ np.array([[1.0, shear], [0.0, 1.0]])
    flips: npt.NDArray[np.float64] = turn * rng.choice((-1.0, 1.0), 2)
    return flips


def _bounds(coordinates: FloatArray, size: int) -> slice:
    """The indices that linear interpolation at `coordinates` touches, with one to spare; at least one."""
    first = min(max(0, int(coordinates.min()) - 2), size - 1)
    return slice(first, max(first + 1, min(size, int(coordinates.max()) + 4)))


def _resample(view: _View, layers: FloatArray, rows: slice, columns: slice) -> FloatArray:
    """(C, h, w), the window rows x columns of C slices, at the view's pixels: (C, S, S). Outside is 0."""
    stack = torch.from_numpy(layers)[None]  # (1, C, h, w)
    pool = (max(1, round(view.shrink[0])), max(1, round(view.shrink[1])))  # above 1.5 voxels per pixel: anti-aliasing
    if max(pool) > 1:
        stack = functional.avg_pool2d(stack, pool, ceil_mode=True, count_include_pad=False)
    height, width = stack.shape[-2:]
    y = (view.rows - rows.start + 0.5) * (2.0 / (pool[0] * height)) - 1.0
    x = (view.columns - columns.start + 0.5) * (2.0 / (pool[1] * width)) - 1.0
    grid = torch.from_numpy(np.stack([x, y], axis=-1).astype(np.float32))[None]
    sampled: FloatArray = functional.grid_sample(stack, grid, mode="bilinear", padding_mode="zeros", align_corners=False)[0].numpy()
    return sampled


# --- intensities ------------------------------------------------------------------------------------------------------


def _choose_window(rng: np.random.Generator, volume: _Volume, values: FloatArray, mask: BoolArray) -> tuple[float, float]:
    """Low and high for the crop `values`, the object being `mask` (both of the prompted slice)."""
    if not volume.is_ct:
        low, high = volume.intensity_range()
        width = high - low
        return low + width * rng.uniform(-0.08, 0.08), low + width * math.exp(rng.uniform(math.log(0.6), math.log(1.25)))
    inside, outside = values[mask], values[_surroundings(mask, max(3, min(mask.shape) // 12))]
    windows = [(level - width / 2, level + width / 2) for level, width in _CT_WINDOWS]
    if volume.display_window is not None:
        windows += [volume.display_window] * 2
    weights = []
    for low, high in windows:
        object_mean = float(np.clip((inside.mean() - low) / (high - low), 0, 1)) if len(inside) else 0.5
        other_mean = float(np.clip((outside.mean() - low) / (high - low), 0, 1)) if len(outside) else 0.0
        visible = 0.02 < object_mean < 0.98 or abs(object_mean - other_mean) > 0.3
        weights.append((0.02 + min(abs(object_mean - other_mean), 0.4)) if visible else 1e-3)
    total = np.asarray(weights)
    low, high = windows[int(rng.choice(len(windows), p=total / total.sum()))]
    width = (high - low) * math.exp(rng.uniform(-0.25, 0.25))
    level = (low + high) / 2 + width * rng.uniform(-0.1, 0.1)
    return level - width / 2, level + width / 2


def _surroundings(mask: BoolArray, reach: int) -> BoolArray:
    """The pixels within about `reach` of the mask (rows, columns), outside it; all outside it if there are none."""
    near = (ndimage.uniform_filter(mask.astype(np.float32), 2 * reach + 1, mode="nearest") > 1e-4) & ~mask
    return near if near.any() else ~mask


def _is_visible(image: FloatArray, mask: BoolArray) -> bool:
    """Whether the object differs from its surroundings, on average, by more than a fraction of their noise."""
    inside, outside = image[mask], image[_surroundings(mask, len(image) // 16)]
    if not len(outside):
        return False
    return abs(float(inside.mean() - outside.mean())) > _LEAST_CONTRAST * (0.3 + 3 * float(outside.std()))


def _augment(rng: np.random.Generator, images: FloatArray) -> FloatArray:
    """Intensities of a clip (T, S, S), 0..1, changed as scanners and windows change them; back in 0..1."""
    size = images.shape[-1]
    if rng.random() < 0.25:
        images = np.power(images, np.float32(math.exp(rng.uniform(-0.5, 0.5))))
    if rng.random() < 0.3:
        images = (images - 0.5) * np.float32(math.exp(rng.uniform(-0.4, 0.3))) + np.float32(0.5 + rng.uniform(-0.12, 0.12))
    if rng.random() < 0.15:
        images = images * np.exp(smooth_field(rng, (size, size), (2, 2)) * np.float32(rng.uniform(0, 0.3)))
    if rng.random() < 0.2:
        images = _soften(rng, images)
    if rng.random() < 0.3:
        images = images + np.float32(math.exp(rng.uniform(math.log(0.005), math.log(0.08)))) * rng.standard_normal(images.shape, dtype=np.float32)
    if rng.random() < 0.05:
        images = 1.0 - images
    if rng.random() < 0.05:
        height, width = rng.integers(size // 16, size // 4, 2)
        row, column = rng.integers(0, size - height), rng.integers(0, size - width)
        images = images.copy()
        images[:, row : row + height, column : column + width] = np.float32(rng.uniform(0, 1))
    return np.clip(images, 0.0, 1.0, dtype=np.float32)


def _soften(rng: np.random.Generator, images: FloatArray) -> FloatArray:
    """Blur, or fewer pixels and back."""
    if rng.random() < 0.5:
        sigma = rng.uniform(0.4, 1.5)
        softened: FloatArray = ndimage.gaussian_filter(images, (0, sigma, sigma), truncate=3.0)
        return softened
    stack, size = torch.from_numpy(np.ascontiguousarray(images, np.float32))[None], images.shape[-1]
    small = functional.interpolate(stack, size=max(8, int(size / rng.uniform(1.3, 3.0))), mode="bilinear", antialias=True)
    restored: FloatArray = functional.interpolate(small, size=size, mode="bilinear")[0].numpy()
    return restored


# --- the source -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Structure:
    """A structure name of one group, and the volumes that have it."""

    name: str
    values: dict[str, tuple[int, ...]]  # volume -> label values
    weight: float


class ClipSource:
    """Draws clips from a folder of training volumes (shared/train/README.md) and from synthetic volumes.

    `held_out` names volumes or whole source groups to leave out. `synthetic_share` of the clips are synthetic, 8 % are
    pseudo-targets, the rest are scans and rendered label maps; a kind that the folder lacks gives its share to the
    others. `only` restricts to some of the kinds "scan", "label map", "supervoxel", "synthetic".

    Volumes are decoded when first drawn and kept; `preload()` decodes all of them (about 0.5 GB), so that forked
    workers share them.
    """

    def __init__(
        self,
        train_dir: Path,
        *,
        synthetic_share: float = 0.35,
        held_out: Collection[str] = (),
        seed: int = 0,
        only: Collection[str] = (),
        synthetic_shape: tuple[int, int, int] = DEFAULT_SHAPE,
    ) -> None:
        if not 0.0 <= synthetic_share <= 1.0:
            raise TrainingError(f"The share of synthetic clips is a number from 0 to 1, but {synthetic_share} came.")
        self.seed = seed
        self._synthetic_shape = synthetic_shape
        entries = _read_manifest(Path(train_dir))
        known = {entry.name for entry in entries} | {entry.group for entry in entries}
        if unknown := sorted(set(held_out) - known):
            raise TrainingError(f"To hold out {unknown}, the manifest must list them as volumes or source groups; check the spelling.")
        left_out = {*held_out, *ALWAYS_LEFT_OUT}
        self._entries = {e.name: e for e in entries if e.name not in left_out and e.group not in left_out}
        self._volumes: dict[str, _Volume] = {}
        self._synthetic: OrderedDict[tuple[int, int, int], _Volume] = OrderedDict()
        self._groups = _structures_by_group(e for e in self._entries.values() if e.has_image and e.has_label)
        self._rendered = sorted(e.name for e in self._entries.values() if not e.has_image and e.structures)
        self._with_image = _names_by_group(e for e in self._entries.values() if e.has_image)
        self._draw = self._make_kinds(synthetic_share, only)

    @property
    def volume_names(self) -> tuple[str, ...]:
        """The volumes of the folder that clips may come from."""
        return tuple(self._entries)

    def _make_kinds(self, synthetic_share: float, only: Collection[str]) -> list[tuple[Callable[..., Clip | None], float]]:
        rest = 1.0 - synthetic_share
        real = (rest - _SUPERVOXEL_SHARE * rest / (rest or 1.0)) / (_LABEL_MAP_SHARE + _LABELLED_SHARE)
        kinds: dict[str, tuple[Callable[..., Clip | None], float, bool]] = {
            "scan": (self._draw_scan, real * _LABELLED_SHARE, bool(self._groups)),
            "label map": (self._draw_label_map, real * _LABEL_MAP_SHARE, bool(self._rendered)),
            "supervoxel": (self._draw_supervoxel, _SUPERVOXEL_SHARE * (rest > 0), bool(self._with_image)),
            "synthetic": (self._draw_synthetic, synthetic_share, True),
        }
        if unknown := sorted(set(only) - set(kinds)):
            raise TrainingError(f"Kinds of clips are {', '.join(kinds)}, but {unknown} came.")
        usable = [(draw, max(0.0, share)) for name, (draw, share, exists) in kinds.items() if exists and (not only or name in only)]
        if not sum(share for _, share in usable) > 0:
            raise TrainingError(
                f"Nothing is left to draw clips from: {len(self._entries)} volumes after holding out, synthetic share {synthetic_share}; "
                "hold out less or raise the share."
            )
        return usable

    def preload(self) -> None:
        """Decode every volume now."""
        for name in self._entries:
            self._volume(name)

    def sample(self, rng: np.random.Generator, image_size: int, length: int, *, step: int = 0) -> Clip:
        """A clip of `length` slices, `image_size` pixels across. `step` chooses the pool of synthetic volumes."""
        if image_size < 16 or length < 1:
            raise TrainingError(f"A clip has at least 1 slice of 16 x 16 pixels, but {length} of {image_size} x {image_size} were asked for.")
        shares = np.array([share for _, share in self._draw])
        for _ in range(_ATTEMPTS):
            draw = self._draw[int(rng.choice(len(shares), p=shares / shares.sum()))][0]
            clip = draw(rng, image_size, length, step)
            if clip is not None:
                return clip
        raise TrainingError(
            f"No object fits a clip of {length} slices after {_ATTEMPTS} attempts; ask for fewer slices, or add volumes with "
            "more slices and larger objects."
        )

    def sample_batch(
        self, rng: np.random.Generator, batch_size: int, image_size: int, length: int, *, step: int = 0
    ) -> tuple[FloatArray, BoolArray]:
        """images (B, T, S, S) float32, 0..1, and masks (B, T, S, S) bool."""
        clips = [self.sample(rng, image_size, length, step=step) for _ in range(batch_size)]
        return np.stack([clip.images for clip in clips]), np.stack([clip.masks for clip in clips])

    # The four kinds.

    def _draw_scan(self, rng: np.random.Generator, size: int, length: int, step: int) -> Clip | None:
        groups = sorted(self._groups)
        weights = np.array([_GROUP_WEIGHTS.get(group, _OTHER_GROUP_WEIGHT) for group in groups])
        structures = self._groups[groups[int(rng.choice(len(groups), p=weights / weights.sum()))]]
        chances = np.array([structure.weight for structure in structures])
        structure = structures[int(rng.choice(len(structures), p=chances / chances.sum()))]
        name = sorted(structure.values)[int(rng.integers(len(structure.values)))]
        return self._draw_object(rng, self._volume(name), structure.name, structure.values[name], "scan", size, length, split=True)

    def _draw_label_map(self, rng: np.random.Generator, size: int, length: int, step: int) -> Clip | None:
        name = self._rendered[int(rng.integers(len(self._rendered)))]
        structures = self._entries[name].structures
        structure, values = structures[int(rng.integers(len(structures)))]
        return self._draw_object(rng, self._volume(name), structure, values, "label map", size, length, split=True)

    def _draw_synthetic(self, rng: np.random.Generator, size: int, length: int, step: int) -> Clip | None:
        volume = self._synthetic_volume(step, int(rng.integers(_POOL_SIZE)))
        assert volume.label is not None
        value = int(rng.integers(1, max(2, int(volume.label.max()) + 1)))
        return self._draw_object(rng, volume, str(value), (value,), "synthetic", size, length, split=False)

    def _draw_object(
        self, rng: np.random.Generator, volume: _Volume, name: str, values: tuple[int, ...], kind: str, size: int, length: int, *, split: bool
    ) -> Clip | None:
        if name not in volume.objects:
            assert volume.label is not None
            volume.objects[name] = _label_objects(name, volume.label, values, split=split)
        things = volume.objects[name]
        if not things:
            return None
        thing = things[int(rng.integers(len(things)))]
        return _make_clip(rng, volume, thing, _choose_axis(rng, volume), kind, size, length)

    def _draw_supervoxel(self, rng: np.random.Generator, size: int, length: int, step: int) -> Clip | None:
        groups = sorted(self._with_image)
        names = self._with_image[groups[int(rng.integers(len(groups)))]]
        volume = self._volume(names[int(rng.integers(len(names)))])
        axis = _choose_axis(rng, volume)
        thing = _grow_region(rng, volume, axis, length)
        return None if thing is None else _make_clip(rng, volume, thing, axis, "supervoxel", size, length)

    # Caches.

    def _volume(self, name: str) -> _Volume:
        if name not in self._volumes:
            self._volumes[name] = _load_volume(self._entries[name])
        return self._volumes[name]

    def _synthetic_volume(self, step: int, slot: int) -> _Volume:
        """Slot of the pool that `step` draws from; a function of (seed, step, slot) alone."""
        stream, turn = step % _STREAMS, step // _STREAMS // _POOL_STEPS
        version = (turn + slot) // _POOL_SIZE
        key = (stream, slot, version)
        if key not in self._synthetic:
            rng = np.random.default_rng((self.seed, 77, *key))
            image, label = synthetic_volume(rng, self._synthetic_shape)
            stored = np.rint(image * 255).astype(np.uint8)
            self._synthetic[key] = _Volume(f"synthetic {stream}.{slot}.{version}", _SYNTHETIC_SPACING, stored, label)
            while len(self._synthetic) > _CACHED_VOLUMES:
                self._synthetic.popitem(last=False)
        self._synthetic.move_to_end(key)
        return self._synthetic[key]


def _structures_by_group(entries: Iterator[_Entry]) -> dict[str, list[_Structure]]:
    """group -> its structures; a structure's weight is the best of its volumes' grades."""
    found: dict[str, dict[str, _Structure]] = {}
    for entry in entries:
        weight = _GRADE_WEIGHTS.get(entry.grade, min(_GRADE_WEIGHTS.values()))
        for name, values in entry.structures:
            known = found.setdefault(entry.group, {}).get(name)
            volumes = {**(known.values if known else {}), entry.name: values}
            # Many pieces under one name deserve more turns than a trivial outline.
            factor = 3.0 if "lesion" in name or "tumour" in name else 1.0
            found[entry.group][name] = _Structure(name, volumes, max(weight * factor, known.weight if known else 0.0))
    return {group: [structures[name] for name in sorted(structures)] for group, structures in found.items()}


def _names_by_group(entries: Iterator[_Entry]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for entry in entries:
        found.setdefault(entry.group, []).append(entry.name)
    return {group: sorted(names) for group, names in found.items()}


def _grow_region(rng: np.random.Generator, volume: _Volume, axis: int, length: int) -> _Object | None:
    """A pseudo-target: voxels like a random seed's, connected to it, in a block around it; None if too small or large."""
    assert volume.image is not None
    half = np.where(np.arange(3) == axis, max(4, 2 * length), rng.integers(14, 44))
    image, shape = volume.image, np.array(volume.shape)
    low, high = volume.intensity_range()
    if volume.is_ct:
        low, high = -200.0, 400.0
    for _ in range(6):  # not in the air
        seed = rng.integers(shape)
        if low + 0.08 * (high - low) < float(image[tuple(seed)]) < high:
            break
    first, last = np.maximum(seed - half, 0), np.minimum(seed + half + 1, shape)
    block = image[first[0] : last[0], first[1] : last[1], first[2] : last[2]].astype(np.float32)
    block = np.clip((block - low) / (high - low), -0.2, 1.2)
    sigma = np.where(np.arange(3) == axis, rng.uniform(0, 0.8), rng.uniform(0.7, 2.0))
    smooth = ndimage.gaussian_filter(block, sigma, truncate=2.5)
    at = tuple(seed - first)
    tolerance = math.exp(rng.uniform(math.log(0.03), math.log(0.15)))
    alike = np.abs(smooth - smooth[at]) < tolerance
    if rng.random() < 0.5:
        alike = ndimage.binary_opening(alike, ndimage.generate_binary_structure(3, 1)) | (alike & (np.abs(smooth - smooth[at]) < tolerance / 3))
    pieces, _ = ndimage.label(alike)
    region = pieces == pieces[at]
    areas = region.sum(axis=tuple(a for a in range(3) if a != axis))
    limit = 0.45 * region.size / region.shape[axis]
    if pieces[at] == 0 or areas.max() < 30 or areas.max() > limit:
        return None
    return _Object("region", region.astype(np.uint8), np.array([False, True]), (int(first[0]), int(first[1]), int(first[2])))


def _make_clip(
    rng: np.random.Generator, volume: _Volume, thing: _Object, axis: int, kind: str, size: int, length: int
) -> Clip | None:
    """See the object through a random view; None if no slices fit or the object is lost at this size."""
    view = _choose_view(rng, volume.shape, volume.spacing, thing, axis, size, length)
    if view is None:
        return None
    plane = [part for a, part in enumerate(volume.shape) if a != axis]
    rows, columns = _bounds(view.rows, plane[0]), _bounds(view.columns, plane[1])
    mask = thing.cut(axis, view.indices, rows, columns)
    if kind == "synthetic" and rng.random() < _FILLED_SHARE:
        mask = np.stack([ndimage.binary_fill_holes(part) for part in mask])
    if volume.image is not None:
        values = np.moveaxis(volume.image, axis, 0)[view.indices, rows, columns].astype(np.float32)
        low, high = _choose_window(rng, volume, values[0], mask[0])
        values = np.clip((values - low) / (high - low), 0.0, 1.0)
    else:
        assert volume.label is not None
        label = np.moveaxis(volume.label, axis, 0)[view.indices, rows, columns]
        values = render_labels(np.ascontiguousarray(label), rng, tissues=volume.tissues)
    layers = np.concatenate([values.astype(np.float32, copy=False), mask.astype(np.float32)])
    sampled = _resample(view, layers, rows, columns)
    masks = sampled[length:] >= 0.5
    if masks[0].sum() < max(4.0, _LEAST_PIXELS * size * size):
        return None
    if kind in ("synthetic", "label map") and not _is_visible(sampled[0], masks[0]) and rng.random() < _DROPPED_SHARE:
        return None
    return Clip(_augment(rng, sampled[:length]), masks, kind, f"{volume.name}: {thing.name}")


# --- for a DataLoader -------------------------------------------------------------------------------------------------


class ClipDataset(IterableDataset[tuple[torch.Tensor, torch.Tensor]]):
    """Whole batches for `DataLoader(dataset, batch_size=None)`: images (B, T, S, S) float32, 0..1, and masks, bool.

    Batch n is a function of (seed, n) and the source alone, whatever the number of workers; to resume a run, start at
    the step where it ended. T is drawn from `lengths` with chances `weights`; `batch_size` may depend on it. The
    number of workers should be 1, 2, 4, 8 or 16: then each builds only its share of the synthetic volumes.
    """

    def __init__(
        self,
        source: ClipSource,
        *,
        seed: int,
        batch_size: int | Mapping[int, int],
        image_size: int,
        lengths: Sequence[int] = (1,),
        weights: Sequence[float] | None = None,
        start: int = 0,
        stop: int | None = None,
    ) -> None:
        super().__init__()
        weights = [1.0] * len(lengths) if weights is None else weights
        if not lengths or len(lengths) != len(weights) or min(weights) < 0 or sum(weights) <= 0:
            raise TrainingError(f"Each clip length needs a weight of at least 0, one above 0; lengths {lengths}, weights {weights} came.")
        self.source, self.seed, self.image_size, self.start, self.stop = source, seed, image_size, start, stop
        self._lengths = tuple(lengths)
        self._chances = np.asarray(weights, np.float64) / sum(weights)
        self._batch_sizes = {n: batch_size if isinstance(batch_size, int) else batch_size.get(n, 0) for n in lengths}
        if min(self._batch_sizes.values()) < 1:
            raise TrainingError(f"Each clip length {tuple(lengths)} needs a batch size of at least 1, but {batch_size} came.")

    def batch(self, step: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Batch number `step`."""
        rng = np.random.default_rng((self.seed, step))
        length = self._lengths[int(rng.choice(len(self._lengths), p=self._chances))]
        images, masks = self.source.sample_batch(rng, self._batch_sizes[length], self.image_size, length, step=step)
        return torch.from_numpy(images), torch.from_numpy(masks)

    def __iter__(self) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        worker = get_worker_info()
        offset, stride = (worker.id, worker.num_workers) if worker else (0, 1)
        step = self.start + offset
        while self.stop is None or step < self.stop:
            yield self.batch(step)
            step += stride
