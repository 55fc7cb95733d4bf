"""Prompts in a JSON file, and masks in image files as prompts. docs/prompts.md describes the format for its writers.

    {"format": "medsam2-prompts/1", "axis": "k", "range": [20, 60],
     "objects": [{"name": "liver", "prompts": [{"type": "box", "slice": 42, "box": [80, 60, 210, 190]}]}]}

A report of `medsam2 segment` holds the same under "prompts", and is read as well.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from MedSAM2Lib.errors import PromptError
from MedSAM2Lib.geometry import AXIS_NAMES, Geometry
from MedSAM2Lib.prompts import Box, Box3D, MaskPrompt, Points, Prompt, RecistLine
from MedSAM2Lib.volume_io.read import read_labels

__all__ = ["PROMPTS_FORMAT", "FilePrompt", "MaskFile", "NamedPrompt", "PromptSet", "read_prompts", "resolve", "to_json"]

PROMPTS_FORMAT = "medsam2-prompts/1"

# A mask lies on the image's grid when no corner voxel of the two is further apart than this share of the spacing.
_SAME_GRID_TOLERANCE = 0.05


@dataclass(frozen=True)
class MaskFile:
    """A mask prompt that lies in a file: each slice on which it has voxels is a prompt.

    label   the label to take; None when the file has only one
    slices  the slices to take; None for all that have voxels
    """

    path: Path
    label: int | None = None
    slices: tuple[int, ...] | None = None


FilePrompt = Box | Points | RecistLine | Box3D | MaskFile


@dataclass(frozen=True)
class NamedPrompt:
    """One prompt of one object."""

    name: str
    prompt: FilePrompt

    def __post_init__(self) -> None:
        if not (self.name.strip() and self.name.isprintable()):
            raise PromptError(f"An object's name must be printable text, but {self.name!r} came.")


@dataclass(frozen=True)
class PromptSet:
    """What a person wants segmented. `axis`, `first` and `last` are None where nothing is said of them."""

    prompts: tuple[NamedPrompt, ...] = ()
    axis: str | None = None
    first: int | None = None
    last: int | None = None


# ── reading ───────────────────────────────────────────────────────────────────────────────────────────────────────


def read_prompts(path: Path) -> PromptSet:
    """The prompts of a JSON file or of a report. Raises PromptError that says where the file is wrong."""
    try:
        content: Any = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise PromptError(f"{path} cannot be read ({error.strerror}); give a JSON file of prompts.") from error
    except ValueError as error:
        raise PromptError(f"{path} is not JSON ({error}); docs/prompts.md shows how prompts are written.") from error
    if isinstance(content, dict) and isinstance(content.get("prompts"), dict):
        content = content["prompts"]
    try:
        return _prompt_set(content, path.parent)
    except _MistakeError as error:
        raise PromptError(f"{path}: {error}; docs/prompts.md shows how prompts are written.") from error
    except PromptError as error:
        raise PromptError(f"{path}: {error}") from error


class _MistakeError(ValueError):
    """Where the content of a file is not what it should be; the message has no path and no full stop yet."""


def _prompt_set(content: Any, folder: Path) -> PromptSet:
    fields = _fields(content, "the file", required={"objects"}, optional={"format", "axis", "range"})
    written = fields.get("format", PROMPTS_FORMAT)
    if written != PROMPTS_FORMAT:
        raise _MistakeError(f'expected "format": "{PROMPTS_FORMAT}", but it is {json.dumps(written)}')
    axis = fields.get("axis")
    if axis is not None and axis not in AXIS_NAMES:
        raise _MistakeError(f'expected "axis" to be one of {", ".join(AXIS_NAMES)}, but it is {json.dumps(axis)}')
    first, last = (None, None) if fields.get("range") is None else _whole_numbers(fields["range"], 2, "range")
    if not isinstance(fields["objects"], list):
        raise _MistakeError('expected "objects" to be a list')
    prompts: list[NamedPrompt] = []
    for place, content_of_object in enumerate(fields["objects"]):
        prompts += _object(content_of_object, f"objects[{place}]", folder)
    return PromptSet(tuple(prompts), axis, first, last)


def _object(content: Any, where: str, folder: Path) -> list[NamedPrompt]:
    fields = _fields(content, where, required={"name", "prompts"})
    name = fields["name"]
    if not (isinstance(name, str) and name.strip()):
        raise _MistakeError(f'{where}: expected "name" to be a text, but it is {json.dumps(name)}')
    if not (isinstance(fields["prompts"], list) and fields["prompts"]):
        raise _MistakeError(f'{where}: expected "prompts" to be a list of at least one')
    return [NamedPrompt(name, _prompt(one, f"{where}.prompts[{place}]", folder)) for place, one in enumerate(fields["prompts"])]


def _prompt(content: Any, where: str, folder: Path) -> FilePrompt:
    kind = content.get("type") if isinstance(content, dict) else None
    if kind not in _READERS:
        raise _MistakeError(f'{where}: expected "type" to be one of {", ".join(_READERS)}, but it is {json.dumps(kind)}')
    return _READERS[kind](content, where, folder)


def _read_box(content: Any, where: str, _: Path) -> Box:
    fields = _fields(content, where, required={"type", "slice", "box"})
    return Box(_slice(fields, where), *_numbers(fields["box"], 4, f"{where}.box"))


def _read_points(content: Any, where: str, _: Path) -> Points:
    fields = _fields(content, where, required={"type", "slice", "points"})
    rows = fields["points"]
    well_formed = isinstance(rows, list) and all(isinstance(row, list) and len(row) == 3 and row[2] in ("+", "-") for row in rows)
    if not well_formed:
        raise _MistakeError(f'{where}: expected "points" to be a list of [X, Y, "+"] or [X, Y, "-"]')
    xs, ys = zip(*(_numbers(row[:2], 2, f"{where}.points") for row in rows), strict=True) if rows else ((), ())
    return Points(_slice(fields, where), tuple(xs), tuple(ys), tuple(row[2] == "+" for row in rows))


def _read_recist(content: Any, where: str, _: Path) -> RecistLine:
    fields = _fields(content, where, required={"type", "slice", "line"})
    return RecistLine(_slice(fields, where), *_numbers(fields["line"], 4, f"{where}.line"))


def _read_box3d(content: Any, where: str, _: Path) -> Box3D:
    fields = _fields(content, where, required={"type", "slices", "box"})
    first, last = _whole_numbers(fields["slices"], 2, f"{where}.slices")
    return Box3D(first, last, *_numbers(fields["box"], 4, f"{where}.box"))


def _read_mask(content: Any, where: str, folder: Path) -> MaskFile:
    fields = _fields(content, where, required={"type", "file"}, optional={"label", "slices"})
    file, label, slices = fields["file"], fields.get("label"), fields.get("slices")
    if not (isinstance(file, str) and file):
        raise _MistakeError(f'{where}: expected "file" to be a path, but it is {json.dumps(file)}')
    if label is not None:
        (label,) = _whole_numbers([label], 1, f"{where}.label")
    if slices is not None:
        slices = tuple(_whole_numbers(slices, None, f"{where}.slices"))
    return MaskFile(folder / file, label, slices)


_READERS: dict[str, Callable[[Any, str, Path], FilePrompt]] = {
    "box": _read_box,
    "points": _read_points,
    "recist": _read_recist,
    "box3d": _read_box3d,
    "mask": _read_mask,
}


def _fields(content: Any, where: str, required: set[str], optional: Iterable[str] = ()) -> Mapping[str, Any]:
    """The content as a dictionary that has what it must have and nothing unknown: a misspelt key is not passed over."""
    if not isinstance(content, dict):
        raise _MistakeError(f"{where}: expected {{...}} with {_listed(required)}")
    if missing := required - content.keys():
        raise _MistakeError(f"{where} lacks {_listed(missing)}")
    if unknown := content.keys() - required - set(optional):
        raise _MistakeError(f"{where} has {_listed(unknown)}, but only {_listed(required | set(optional))} mean something there")
    return content


def _listed(keys: Iterable[str]) -> str:
    return ", ".join(f'"{key}"' for key in sorted(keys))


def _slice(fields: Mapping[str, Any], where: str) -> int:
    return _whole_numbers([fields["slice"]], 1, f"{where}.slice")[0]


def _numbers(values: Any, count: int | None, where: str) -> list[float]:
    well_formed = isinstance(values, list) and all(
        isinstance(value, (int, float)) and not isinstance(value, bool) for value in values
    )
    if not well_formed or count not in (None, len(values)):
        raise _MistakeError(
            f"{where}: expected {'a list of' if count is None else count} numbers, but it is {json.dumps(values)}"
        )
    try:
        return [float(value) for value in values]
    except OverflowError as error:
        raise _MistakeError(f"{where}: expected numbers, but one is too large") from error


def _whole_numbers(values: Any, count: int | None, where: str) -> list[int]:
    numbers = _numbers(values, count, where)
    if not all(number.is_integer() for number in numbers):
        raise _MistakeError(f"{where}: expected whole numbers, but it is {json.dumps(values)}")
    return [int(number) for number in numbers]


# ── writing ───────────────────────────────────────────────────────────────────────────────────────────────────────


def to_json(prompts: PromptSet, folder: Path) -> dict[str, Any]:
    """What `read_prompts` reads back, for a file in `folder`: paths of masks are relative to it where they can be."""
    objects: dict[str, list[dict[str, Any]]] = {}
    for named in prompts.prompts:
        objects.setdefault(named.name, []).append(_prompt_to_json(named.prompt, folder))
    limits = None if prompts.first is None or prompts.last is None else [prompts.first, prompts.last]
    return {
        "format": PROMPTS_FORMAT,
        "axis": prompts.axis,
        "range": limits,
        "objects": [{"name": name, "prompts": theirs} for name, theirs in objects.items()],
    }


def _prompt_to_json(prompt: FilePrompt, folder: Path) -> dict[str, Any]:
    if isinstance(prompt, MaskFile):
        written: dict[str, Any] = {"type": "mask", "file": _relative(prompt.path, folder)}
        if prompt.label is not None:
            written["label"] = prompt.label
        if prompt.slices is not None:
            written["slices"] = list(prompt.slices)
        return written
    if isinstance(prompt, Points):
        rows = [[x, y, "+" if label else "-"] for x, y, label in zip(prompt.xs, prompt.ys, prompt.labels, strict=True)]
        return {"type": "points", "slice": prompt.slice_index, "points": rows}
    corners = [prompt.x0, prompt.y0, prompt.x1, prompt.y1]
    if isinstance(prompt, Box3D):
        return {"type": "box3d", "slices": [prompt.first, prompt.last], "box": corners}
    if isinstance(prompt, RecistLine):
        return {"type": "recist", "slice": prompt.slice_index, "line": corners}
    return {"type": "box", "slice": prompt.slice_index, "box": corners}


def _relative(path: Path, folder: Path) -> str:
    try:
        return Path(os.path.relpath(path, folder)).as_posix()
    except ValueError:  # on another drive of a Windows machine
        return path.resolve().as_posix()


# ── masks in files ────────────────────────────────────────────────────────────────────────────────────────────────


def mask_prompts(file: MaskFile, geometry: Geometry, array_axis: int) -> list[MaskPrompt]:
    """A prompt for each slice (along an array axis) of the image on which the file's mask has voxels.

    Raises PromptError when the mask is not on the image's grid, or it is not clear what to take.
    """
    labels = read_labels(file.path)
    _check_same_grid(labels.geometry, geometry, file.path)
    present = labels.values()
    if not present:
        raise PromptError(f"{file.path} has no voxel with a label; paint the object on at least one slice.")
    if file.label is None and len(present) > 1:
        raise PromptError(f"{file.path} holds the labels {', '.join(map(str, present))}; say which one, as NAME=FILE:LABEL.")
    label = present[0] if file.label is None else file.label
    if label not in present:
        raise PromptError(f"{file.path} has no voxel with label {label}; it has {', '.join(map(str, present))}.")
    stack = np.moveaxis(labels.array == label, array_axis, 0)
    painted = [int(index) for index in np.flatnonzero(stack.any(axis=(1, 2)))]
    chosen = painted if file.slices is None else list(file.slices)
    if empty := sorted(set(chosen) - set(painted)):
        raise PromptError(f"{file.path} has no voxel on slice {empty[0]}; it has some on {painted[0]}..{painted[-1]}.")
    return [MaskPrompt(index, np.ascontiguousarray(stack[index])) for index in chosen]


def _check_same_grid(of_mask: Geometry, of_image: Geometry, path: Path) -> None:
    if of_mask.shape != of_image.shape:
        raise PromptError(
            f"{path} must be on the image's grid of {of_image.shape} voxels (k, j, i), but it has {of_mask.shape}; "
            "resample it to the image."
        )
    k, j, i = of_image.shape
    corners = np.array([(x, y, z) for x in (0, i - 1) for y in (0, j - 1) for z in (0, k - 1)])
    apart = np.linalg.norm(of_mask.index_to_world(corners) - of_image.index_to_world(corners), axis=1).max()
    if apart > _SAME_GRID_TOLERANCE * min(of_image.spacing):
        raise PromptError(
            f"{path} must lie where the image lies, but the two are up to {apart:.2f} mm apart; resample it to the image."
        )


def resolve(prompt: FilePrompt, geometry: Geometry, array_axis: int) -> list[Prompt]:
    """A prompt as the session takes it: masks are read from their files."""
    return list(mask_prompts(prompt, geometry, array_axis)) if isinstance(prompt, MaskFile) else [prompt]
