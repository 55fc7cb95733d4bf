"""A person's own cases: a folder of images, each with the segmentation that was corrected.

Image and segmentation belong together by name. Without its extension, a segmentation is called as its image is, with one
of `label`, `labels`, `seg`, `segmentation`, `mask` or `gt` behind it (after `_`, `-`, `.` or a blank), or it is a
`.seg.nrrd`; the image may have `image` behind its name, or nnU-Net's `_0000`. So these are three cases:

    anna.nrrd  anna.seg.nrrd        bert_image.nii.gz  bert_label.nii.gz        carl_0000.mha  carl-mask.mha

Instead, images may lie in a folder `images` (or `imagesTr`) and segmentations in `labels` (or `labelsTr`) beside it, under
the same name. `labels.json` in the folder, {"1": "spleen", ...}, names the values of maps of labels; without it they are
called `label 1` and so on. Segments of a `.seg.nrrd` have names of their own, and may overlap.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from MedSAM2Lib.errors import OptionError, UsageError, VolumeError
from MedSAM2Lib.evaluation.cases import SAME_PLACE, LoadedCase, Target
from MedSAM2Lib.evaluation.manifest import Case, Structure
from MedSAM2Lib.geometry import Geometry
from MedSAM2Lib.masks import bounding_box
from MedSAM2Lib.volume_io.read import read_volume
from MedSAM2Lib.volume_io.read_segments import read_segments

__all__ = ["CasePair", "case_of", "find_pairs", "load_pair"]

_EXTENSIONS = (".seg.nrrd", ".nii.gz", ".nii", ".nrrd", ".nhdr", ".mha", ".mhd", ".npz")
_LABEL_ENDING = re.compile(r"[_\-. ](labels?|seg|segmentation|mask|gt)$", re.IGNORECASE)
_IMAGE_ENDING = re.compile(r"[_\-. ](image|0000)$", re.IGNORECASE)
_FOLDERS = (("images", "labels"), ("imagesTr", "labelsTr"))
_NAMES = "labels.json"
_MATCHING = "a segmentation is called as its image, with _label, _seg or _mask behind the name, or ends in .seg.nrrd"


@dataclass(frozen=True)
class CasePair:
    """An image, its segmentation, and what the values of a map of labels mean (None: nobody said)."""

    id: str
    image: Path
    label: Path
    names: Mapping[int, str] | None = None


def find_pairs(folder: Path) -> list[CasePair]:
    """The cases of a folder by name. Nothing is read but names, and `labels.json`.

    Raises OptionError for a missing folder, UsageError that lists every image without segmentation, every segmentation
    without image and every name that occurs twice.
    """
    if not folder.is_dir():
        raise OptionError(f"{folder} must be a folder of images and their segmentations, but there is no such folder.")
    images, labels = _sorted_by_role(folder)
    problems = [*_twice(images, "image"), *_twice(labels, "segmentation")]
    problems += [f"{images[name][0].name} has no segmentation" for name in images if name not in labels]
    problems += [f"{labels[name][0].name} has no image" for name in labels if name not in images]
    if problems:
        raise UsageError(f"{folder}: {'; '.join(problems)}. In a folder of cases {_MATCHING}.")
    if not images:
        raise UsageError(f"{folder} holds no case. Put images and segmentations there: {_MATCHING}.")
    names = _read_names(folder / _NAMES)
    return [CasePair(name, images[name][0], labels[name][0], names) for name in sorted(images)]


def load_pair(pair: CasePair) -> LoadedCase:
    """Reads a case. A segment without a voxel is a problem of its own, the others are taken.

    Raises VolumeError where a file cannot be read, the two are not on one grid, a label value has no name, or no segment
    has a voxel.
    """
    volume, segments = read_volume(pair.image), read_segments(pair.label, pair.names)
    targets, problems = [], []
    for name, mask in segments.masks.items():
        if mask.any():
            placed = _placed(pair, mask, segments.geometry, volume.geometry)
            targets.append(Target(Structure(name, (), None, None), placed))
        else:
            problems.append(f"Case {pair.id!r}, structure {name!r} is empty in {pair.label.name}; it is left out.")
    if not targets:
        raise VolumeError(f"Case {pair.id!r}: {pair.label.name} has no voxel in any structure; segment it, or take it away.")
    return LoadedCase(case_of(pair, volume.modality or "unknown"), volume, tuple(targets), tuple(problems))


def case_of(pair: CasePair, modality: str = "unknown") -> Case:
    """What an evaluation calls the case; its structures are known when it is read."""
    stamps = [f"{path.name} {path.stat().st_size} {path.stat().st_mtime_ns}" for path in (pair.image, pair.label)]
    return Case(pair.id, pair.image, pair.label, modality, "own", None, {}, (), frozenset(), " ".join(stamps))


def _sorted_by_role(folder: Path) -> tuple[dict[str, list[Path]], dict[str, list[Path]]]:
    """Images and segmentations by the name of their case."""
    images: dict[str, list[Path]] = {}
    labels: dict[str, list[Path]] = {}
    for image_folder, label_folder in _FOLDERS:
        if (folder / image_folder).is_dir() and (folder / label_folder).is_dir():
            for file, stem, _ in _volumes(folder / image_folder):
                images.setdefault(_IMAGE_ENDING.sub("", stem), []).append(file)
            for file, stem, _ in _volumes(folder / label_folder):
                labels.setdefault(_LABEL_ENDING.sub("", stem), []).append(file)
            return images, labels
    for file, stem, extension in _volumes(folder):
        if extension == ".seg.nrrd" or _LABEL_ENDING.search(stem):
            labels.setdefault(_LABEL_ENDING.sub("", stem), []).append(file)
        else:
            images.setdefault(_IMAGE_ENDING.sub("", stem), []).append(file)
    return images, labels


def _volumes(folder: Path) -> Iterable[tuple[Path, str, str]]:
    """Files of a known extension with their name before it, in alphabetical order; hidden ones are litter."""
    for file in sorted(folder.iterdir()):
        extension = next((one for one in _EXTENSIONS if file.name.lower().endswith(one)), None)
        if extension and file.is_file() and not file.name.startswith("."):
            yield file, file.name[: -len(extension)], extension


def _twice(files: Mapping[str, list[Path]], what: str) -> list[str]:
    return [
        f"{' and '.join(path.name for path in paths)} are both the {what} of {name!r}"
        for name, paths in files.items()
        if len(paths) > 1
    ]


def _read_names(path: Path) -> dict[int, str] | None:
    if not path.exists():
        return None
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        return {int(value): str(name) for value, name in content.items()}
    except (OSError, ValueError, AttributeError) as error:
        raise UsageError(f'{path} must be {{"1": "name of label 1", ...}} ({error}); correct it, or remove it.') from error


def _placed(pair: CasePair, mask: npt.NDArray[np.bool_], own: Geometry, image: Geometry) -> npt.NDArray[np.bool_]:
    """The mask on the image's grid. Of a `.seg.nrrd`, a part of it will do: Slicer may save no more than the segments take.

    Raises VolumeError for any other grid, and where the mask reaches beyond the image.
    """
    what = f"Case {pair.id!r}: {pair.label.name} must be on the grid of {pair.image.name}, but"
    if own.shape != image.shape and not pair.label.name.lower().endswith(".seg.nrrd"):
        raise VolumeError(f"{what} has {own.shape} voxels (k, j, i) instead of {image.shape}; resample it to the image.")
    k, j, i = own.shape
    corners = np.array([(x, y, z) for x in (0, i - 1) for y in (0, j - 1) for z in (0, k - 1)])
    shifts = image.world_to_index(own.index_to_world(corners)) - corners
    shift = np.rint(shifts[0])
    apart = float(np.abs(shifts - shift).max())
    if apart > SAME_PLACE or not np.allclose(own.spacing, image.spacing, rtol=1e-3):
        raise VolumeError(
            f"{what} their voxels lie {apart:.3g} of a voxel apart (spacing {own.spacing} and {image.spacing} mm, (i, j, k)); "
            "resample the segmentation to the image."
        )
    found = bounding_box(mask)
    assert found is not None, "empty masks are not placed"
    moved = tuple(slice(part.start + step, part.stop + step) for part, step in zip(found, shift[::-1].astype(int), strict=True))
    if any(part.start < 0 or part.stop > size for part, size in zip(moved, image.shape, strict=True)):
        raise VolumeError(
            f"Case {pair.id!r}: {pair.label.name} reaches beyond {pair.image.name}, which has {image.shape} voxels (k, j, i); "
            "is it another image's?"
        )
    placed = np.zeros(image.shape, dtype=np.bool_)
    placed[moved] = mask[found]
    return placed
