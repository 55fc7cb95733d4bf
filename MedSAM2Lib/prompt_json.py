"""One prompt as JSON. docs/prompts.md describes the format for its writers."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from MedSAM2Lib.json_fields import MistakeError, fields_of, numbers, whole_number, whole_numbers
from MedSAM2Lib.packed_mask import PackedMask
from MedSAM2Lib.prompts import Box, Box3D, Points, RecistLine
from MedSAM2Lib.session_steps import Painted
from MedSAM2Lib.world_prompts import WorldPrompt, world_prompt_from_json, world_prompt_to_json

__all__ = ["FilePrompt", "MaskFile", "prompt_from_json", "prompt_to_json"]


@dataclass(frozen=True)
class MaskFile:
    """A mask prompt that lies in a file: each slice on which it has voxels is a prompt.

    label   the label to take; None when the file has only one
    slices  the slices to take; None for all that have voxels
    """

    path: Path
    label: int | None = None
    slices: tuple[int, ...] | None = None


FilePrompt = Box | Points | RecistLine | Box3D | Painted | MaskFile | WorldPrompt


def prompt_from_json(content: Any, where: str, folder: Path) -> FilePrompt:
    """A prompt; paths of masks are relative to `folder`. Raises MistakeError that says `where`, or PromptError."""
    kind = content.get("type") if isinstance(content, dict) else None
    if not (isinstance(kind, str) and kind in _READERS):
        raise MistakeError(f'{where}: expected "type" to be one of {", ".join(_READERS)}, but it is {json.dumps(kind)}')
    return world_prompt_from_json(content, where) or _READERS[kind](content, where, folder)


def _read_box(content: Any, where: str, _: Path) -> Box:
    fields = fields_of(content, where, required={"type", "slice", "box"})
    return Box(whole_number(fields["slice"], f"{where}.slice"), *numbers(fields["box"], 4, f"{where}.box"))


def _read_points(content: Any, where: str, _: Path) -> Points:
    fields = fields_of(content, where, required={"type", "slice", "points"})
    rows = fields["points"]
    well_formed = isinstance(rows, list) and all(isinstance(row, list) and len(row) == 3 and row[2] in ("+", "-") for row in rows)
    if not well_formed:
        raise MistakeError(f'{where}: expected "points" to be a list of [X, Y, "+"] or [X, Y, "-"]')
    xs, ys = zip(*(numbers(row[:2], 2, f"{where}.points") for row in rows), strict=True) if rows else ((), ())
    index = whole_number(fields["slice"], f"{where}.slice")
    return Points(index, tuple(xs), tuple(ys), tuple(row[2] == "+" for row in rows))


def _read_recist(content: Any, where: str, _: Path) -> RecistLine:
    fields = fields_of(content, where, required={"type", "slice", "line"})
    return RecistLine(whole_number(fields["slice"], f"{where}.slice"), *numbers(fields["line"], 4, f"{where}.line"))


def _read_box3d(content: Any, where: str, _: Path) -> Box3D:
    fields = fields_of(content, where, required={"type", "slices", "box"})
    first, last = whole_numbers(fields["slices"], 2, f"{where}.slices")
    return Box3D(first, last, *numbers(fields["box"], 4, f"{where}.box"))


def _read_mask(content: Any, where: str, folder: Path) -> MaskFile:
    fields = fields_of(content, where, required={"type", "file"}, optional={"label", "slices"})
    file, label, slices = fields["file"], fields.get("label"), fields.get("slices")
    if not (isinstance(file, str) and file):
        raise MistakeError(f'{where}: expected "file" to be a path, but it is {json.dumps(file)}')
    if label is not None:
        label = whole_number(label, f"{where}.label")
    if slices is not None:
        slices = tuple(whole_numbers(slices, None, f"{where}.slices"))
    return MaskFile(folder / file, label, slices)


def _read_painted(content: Any, where: str, _: Path) -> Painted:
    fields = fields_of(content, where, required={"type", "slice", "pixels"})
    pixels = fields_of(fields["pixels"], f"{where}.pixels", required={"shape", "box", "bits"})
    try:
        packed = PackedMask.from_json(pixels)
    except (TypeError, ValueError) as error:
        raise MistakeError(f"{where}.pixels: expected a mask as a session writes it ({error})") from error
    return Painted(whole_number(fields["slice"], f"{where}.slice"), packed)


_READERS: dict[str, Callable[[Any, str, Path], FilePrompt]] = {
    "box": _read_box,
    "points": _read_points,
    "recist": _read_recist,
    "box3d": _read_box3d,
    "mask": _read_mask,
    "painted": _read_painted,
}


def prompt_to_json(prompt: FilePrompt, folder: Path) -> dict[str, Any]:
    """What `prompt_from_json` reads back, for a file in `folder`: paths of masks are relative to it where they can be."""
    if isinstance(prompt, MaskFile):
        written: dict[str, Any] = {"type": "mask", "file": _relative(prompt.path, folder)}
        if prompt.label is not None:
            written["label"] = prompt.label
        if prompt.slices is not None:
            written["slices"] = list(prompt.slices)
        return written
    if isinstance(prompt, WorldPrompt):
        return world_prompt_to_json(prompt)
    if isinstance(prompt, Painted):
        return {"type": "painted", "slice": int(prompt.slice_index), "pixels": prompt.packed.to_json()}
    if isinstance(prompt, Points):
        places = zip(prompt.xs, prompt.ys, prompt.labels, strict=True)
        rows = [[float(x), float(y), "+" if label else "-"] for x, y, label in places]
        return {"type": "points", "slice": int(prompt.slice_index), "points": rows}
    corners = [float(value) for value in (prompt.x0, prompt.y0, prompt.x1, prompt.y1)]
    if isinstance(prompt, Box3D):
        return {"type": "box3d", "slices": [int(prompt.first), int(prompt.last)], "box": corners}
    if isinstance(prompt, RecistLine):
        return {"type": "recist", "slice": int(prompt.slice_index), "line": corners}
    return {"type": "box", "slice": int(prompt.slice_index), "box": corners}


def _relative(path: Path, folder: Path) -> str:
    try:
        return Path(os.path.relpath(path, folder)).as_posix()
    except ValueError:  # on another drive of a Windows machine
        return path.resolve().as_posix()
