"""The training volumes of a folder (shared/train/README.md) and the things in them that can be segmented.

Arrays are (k, j, i); spacing is in mm along (k, j, i). Inside a slice the axes are (row, column), the volume's axes that
are left in their order.
"""

from __future__ import annotations

import json
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from MedSAM2Lib.errors import TrainingError
from MedSAM2Lib.masks import bounding_box

__all__ = [
    "ManifestEntry", "Profile", "Target", "TrainingVolume", "label_targets", "load_volume", "mask_targets", "read_manifest",
]  # fmt: skip

BoolArray = npt.NDArray[np.bool_]
LabelArray = npt.NDArray[np.uint8]

_SMALLEST_PIECE = 30  # voxels of a piece of a scattered structure that is worth a turn
_SCATTERED_SHARE = 0.6  # a structure is scattered if its largest of more than 3 pieces holds less of it


@dataclass(frozen=True)
class ManifestEntry:
    """What manifest.json says about one volume. A structure is its name and the label values that make it up."""

    name: str
    path: Path
    group: str  # source, such as "OpenKBP"
    grade: str  # of the labels: "A", "B", "C", or "None"
    is_ct: bool
    has_image: bool
    has_label: bool
    display_window: tuple[float, float] | None  # low, high
    structures: tuple[tuple[str, tuple[int, ...]], ...]


@dataclass(frozen=True)
class Profile:
    """A target along one axis: `areas[n]` voxels and `boxes[n]` = (row0, column0, row1, column1) on slice `first` + n."""

    first: int
    areas: npt.NDArray[np.int64]
    boxes: npt.NDArray[np.int64]


class Target:
    """One thing to segment: the voxels of `codes` (k, j, i) whose value is marked in the table `wanted`.

    `offset` (k, j, i) is where `codes` lies in its volume. Profiles are measured when first asked for and kept.
    """

    def __init__(self, name: str, codes: LabelArray, wanted: BoolArray, offset: tuple[int, int, int] = (0, 0, 0)) -> None:
        self.name = name
        self._codes = codes
        self._wanted = wanted
        self._offset = offset
        self._profiles: dict[int, Profile] = {}

    def profile(self, axis: int) -> Profile:
        if axis not in self._profiles:
            self._profiles[axis] = self._measure(axis)
        return self._profiles[axis]

    def _measure(self, axis: int) -> Profile:
        mask = np.moveaxis(self._wanted[self._codes], axis, 0)
        occupied = np.flatnonzero(mask.any(axis=(1, 2)))
        if not len(occupied):
            return Profile(0, np.zeros(0, np.int64), np.zeros((0, 4), np.int64))
        first, last = int(occupied[0]), int(occupied[-1])
        mask = mask[first : last + 1]
        rows: BoolArray = np.asarray(mask.any(axis=2))
        columns: BoolArray = np.asarray(mask.any(axis=1))
        row_offset, column_offset = self._plane_offset(axis)
        box_sides = [
            rows.argmax(1) + row_offset,
            columns.argmax(1) + column_offset,
            rows.shape[1] - 1 - rows[:, ::-1].argmax(1) + row_offset,
            columns.shape[1] - 1 - columns[:, ::-1].argmax(1) + column_offset,
        ]
        return Profile(first + self._offset[axis], mask.sum(axis=(1, 2), dtype=np.int64), np.stack(box_sides, axis=1))

    def _plane_offset(self, axis: int) -> tuple[int, int]:
        row_offset, column_offset = (part for a, part in enumerate(self._offset) if a != axis)
        return row_offset, column_offset

    def cut(self, axis: int, indices: npt.NDArray[np.int64], rows: slice, columns: slice) -> BoolArray:
        """The mask (len(indices), rows, columns) on slices of the volume, in a window of the volume's slice."""
        return self._wanted[self.codes(axis, indices, rows, columns)]

    def codes(self, axis: int, indices: npt.NDArray[np.int64], rows: slice, columns: slice) -> LabelArray:
        """The same of the codes themselves; 0 where there are none."""
        codes = np.moveaxis(self._codes, axis, 0)
        row_offset, column_offset = self._plane_offset(axis)
        out = np.zeros((len(indices), rows.stop - rows.start, columns.stop - columns.start), np.uint8)
        top, bottom = max(rows.start, row_offset), min(rows.stop, row_offset + codes.shape[1])
        left, right = max(columns.start, column_offset), min(columns.stop, column_offset + codes.shape[2])
        if bottom <= top or right <= left:
            return out
        part = codes[:, top - row_offset : bottom - row_offset, left - column_offset : right - column_offset]
        inner = (slice(top - rows.start, bottom - rows.start), slice(left - columns.start, right - columns.start))
        for n, index in enumerate(indices - self._offset[axis]):
            if 0 <= index < len(codes):
                out[n][inner] = part[index]
        return out


@dataclass
class TrainingVolume:
    """A decoded volume. Either `image` or `label` may be None; `tissues` (256,) only where the image is to be rendered.

    `nested` maps a label to the labels it encloses, where that is known. `targets` is a cache, filled by the clip source.
    """

    name: str
    spacing: tuple[float, float, float]
    image: npt.NDArray[np.int16] | npt.NDArray[np.uint8] | npt.NDArray[np.float32] | None
    label: LabelArray | None
    is_ct: bool = False
    display_window: tuple[float, float] | None = None
    tissues: npt.NDArray[np.int64] | None = None
    nested: Mapping[int, Sequence[int]] = field(default_factory=dict)
    targets: dict[str, list[Target]] = field(default_factory=dict)
    _range: tuple[float, float] | None = None
    _boxes: list[tuple[slice, slice, slice] | None] | None = None

    @property
    def shape(self) -> tuple[int, int, int]:
        array = self.label if self.image is None else self.image
        assert array is not None  # load_volume and the synthetic pool see to it
        return (array.shape[0], array.shape[1], array.shape[2])

    def intensity_range(self) -> tuple[float, float]:
        """Percentiles 0.5 and 99.5 of the non-zero voxels of the image."""
        if self._range is None:
            assert self.image is not None
            sample = self.image.reshape(-1)[:: max(1, self.image.size // 200_000)]
            sample = sample[sample != 0]
            low, high = np.percentile(sample, (0.5, 99.5)) if len(sample) else (0.0, 1.0)
            self._range = (float(low), float(max(high, low + 1e-3)))
        return self._range

    def label_box(self, values: Sequence[int]) -> tuple[slice, slice, slice] | None:
        """The smallest window (k, j, i) that holds all voxels with one of the label values; None if there are none."""
        if self._boxes is None:
            assert self.label is not None
            self._boxes = ndimage.find_objects(self.label)
        boxes = [self._boxes[value - 1] for value in values if 0 < value <= len(self._boxes)]
        found = [box for box in boxes if box is not None]
        if not found:
            return None
        first = [min(box[axis].start for box in found) for axis in range(3)]
        last = [max(box[axis].stop for box in found) for axis in range(3)]
        return (slice(first[0], last[0]), slice(first[1], last[1]), slice(first[2], last[2]))


def label_targets(volume: TrainingVolume, name: str, values: Sequence[int], *, split: bool) -> list[Target]:
    """The structure as one target; as one per 3D piece when `split` and it is scattered. Empty if no voxel has it."""
    box = volume.label_box(values)
    if box is None:
        return []
    assert volume.label is not None
    codes = volume.label[box]
    offset = (box[0].start, box[1].start, box[2].start)
    wanted = np.zeros(256, bool)
    wanted[list(values)] = True
    return (_scattered_pieces(name, wanted[codes], offset) if split else []) or [Target(name, codes, wanted, offset)]


def mask_targets(name: str, mask: BoolArray) -> list[Target]:
    """The targets of a mask (k, j, i) by itself, as `label_targets` makes those of label values. Empty without a voxel."""
    box = bounding_box(mask)
    if box is None:
        return []
    offset = (box[0].start, box[1].start, box[2].start)
    whole = Target(name, mask[box].astype(np.uint8), np.array([False, True]), offset)
    return _scattered_pieces(name, mask[box], offset) or [whole]


def _scattered_pieces(name: str, mask: BoolArray, offset: tuple[int, int, int]) -> list[Target]:
    """The pieces of a scattered mask (lesions always are), without the specks; empty if it is not scattered."""
    pieces, count = ndimage.label(mask, np.ones((3, 3, 3)))
    sizes = np.bincount(pieces.reshape(-1), minlength=count + 1)[1:]
    if "lesion" not in name and (count <= 3 or sizes.max() >= _SCATTERED_SHARE * sizes.sum()):
        return []
    boxes = ndimage.find_objects(pieces)
    targets = []
    for n in np.flatnonzero(sizes >= min(_SMALLEST_PIECE, int(sizes.max()))).tolist():
        box = boxes[n]
        start = (offset[0] + box[0].start, offset[1] + box[1].start, offset[2] + box[2].start)
        targets.append(Target(f"{name} {n + 1}", (pieces[box] == n + 1).astype(np.uint8), np.array([False, True]), start))
    return targets


# --- reading ----------------------------------------------------------------------------------------------------------


def read_manifest(train_dir: Path) -> list[ManifestEntry]:
    """The entries of `train_dir`/manifest.json, in its order."""
    path = train_dir / "manifest.json"
    if not path.is_file():
        raise TrainingError(
            f"Expected the training set's manifest.json in {train_dir}, but there is none; give the folder that holds it."
        )
    try:
        entries = [_read_entry(train_dir, item) for item in json.loads(path.read_text(encoding="utf-8"))["volumes"]]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise TrainingError(
            f"{path} should list volumes, each with id, file, content and structures, but it does not "
            f"({type(error).__name__}: {error}); restore the file."
        ) from error
    if not entries:
        raise TrainingError(f"{path} should list at least one volume, but it lists none; give the folder of a training set.")
    return entries


def _read_entry(train_dir: Path, item: Mapping[str, object]) -> ManifestEntry:
    window, structures = item.get("display_window"), item.get("structures") or []
    if not isinstance(structures, list):
        raise TypeError("structures is not a list")
    return ManifestEntry(
        name=str(item["id"]),
        path=train_dir / str(item["file"]),
        group=str(item.get("source_group", "")),
        grade=str(item.get("label_grade")),
        is_ct=item.get("modality") == "CT",
        has_image="image" in str(item["content"]),
        has_label="label" in str(item["content"]),
        display_window=(float(window[0]), float(window[1])) if isinstance(window, list) else None,
        structures=tuple((str(s["name"]), tuple(int(v) for v in s["label_values"])) for s in structures),
    )


def load_volume(entry: ManifestEntry) -> TrainingVolume:
    """The volume of an entry, decoded and checked."""
    remedy = f"restore the file or hold {entry.name} out"
    expected = ["image"] * entry.has_image + ["label"] * entry.has_label + ["spacing"]
    try:
        with np.load(entry.path) as stored:
            arrays = {name: stored[name] for name in expected}
    except FileNotFoundError as error:
        raise TrainingError(f"The manifest lists {entry.path}, but there is no such file; {remedy}.") from error
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise TrainingError(
            f"{entry.path} should be an .npz of {', '.join(expected)}, but it is not ({error}); {remedy}."
        ) from error
    image, label = arrays.get("image"), arrays.get("label")
    for name, array in arrays.items():
        if name != "spacing" and array.ndim != 3:
            raise TrainingError(f"The {name} of {entry.path} should be (k, j, i), but its shape is {array.shape}; {remedy}.")
    if label is not None and label.dtype != np.uint8:
        raise TrainingError(f"The label of {entry.path} should be uint8, but it is {label.dtype}; {remedy}.")
    if image is not None and label is not None and image.shape != label.shape:
        raise TrainingError(
            f"Image and label of {entry.path} should have one shape, but have {image.shape} and {label.shape}; {remedy}."
        )
    k, j, i = (float(step) for step in arrays["spacing"])
    tissues = None if entry.has_image else _tissue_classes(entry.structures)
    return TrainingVolume(entry.name, (k, j, i), image, label, entry.is_ct, entry.display_window, tissues)


def _tissue_classes(structures: Sequence[tuple[str, tuple[int, ...]]]) -> npt.NDArray[np.int64]:
    """(256,) from label to class: left and right of a name are one class, so that they are rendered alike."""
    classes = np.arange(256)
    seen: dict[str, int] = {}
    for name, values in structures:
        plain = " ".join(word for word in name.split() if word not in ("left", "right"))
        for value in values:
            classes[value] = seen.setdefault(plain, value)
    return classes
