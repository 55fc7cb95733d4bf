"""Prompts, or whole sessions, in a JSON file, and masks in image files as prompts. docs/prompts.md is for who writes them.

    {"format": "medsam2-prompts/1", "axis": "k", "range": [20, 60],
     "objects": [{"name": "liver", "prompts": [{"type": "box", "slice": 42, "box": [80, 60, 210, 190]}]}]}

A report of `medsam2 segment` holds the same under "prompts", and is read as well. Instead of "objects" there may be
"steps": what was done one after the other, as `Session.recording` writes it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from MedSAM2Lib.errors import PromptError
from MedSAM2Lib.geometry import AXIS_NAMES, Geometry
from MedSAM2Lib.json_fields import MistakeError, fields_of, numbers, text, whole_numbers
from MedSAM2Lib.prompt_json import FilePrompt, MaskFile, prompt_from_json, prompt_to_json
from MedSAM2Lib.prompts import MaskPrompt, Prompt
from MedSAM2Lib.session_steps import AddPrompt, SessionStep, said, spoken
from MedSAM2Lib.slice_plane import SlicePlane, plane_from_json, plane_to_json
from MedSAM2Lib.slice_stack import SliceStack
from MedSAM2Lib.step_json import AddMaskFile, AddWorldPrompt, FileStep, step_from_json, step_to_json
from MedSAM2Lib.volume_io.read import read_labels
from MedSAM2Lib.world_prompts import WorldPrompt

__all__ = [
    "PROMPTS_FORMAT", "FilePrompt", "MaskFile", "NamedPrompt", "PromptSet", "mask_prompts", "read_prompts", "read_recording",
    "recording_to_json", "resolve", "resolve_step", "to_json",
]  # fmt: skip

PROMPTS_FORMAT = "medsam2-prompts/1"

# A mask lies on the image's grid when no corner voxel of the two is further apart than this share of the spacing.
_SAME_GRID_TOLERANCE = 0.05


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
    """What a person wants segmented, or did. `axis`, `first`, `last` and `window` are None where nothing is said of them.

    steps   instead of prompts: what is to be done one after the other
    window  lowest and highest value that was shown
    plane   of oblique slices, on which it is said instead of on those along an axis
    """

    prompts: tuple[NamedPrompt, ...] = ()
    axis: str | None = None
    first: int | None = None
    last: int | None = None
    steps: tuple[FileStep, ...] = ()
    window: tuple[float, float] | None = None
    plane: SlicePlane | None = None


# ── reading ───────────────────────────────────────────────────────────────────────────────────────────────────────


def read_prompts(path: Path) -> PromptSet:
    """The prompts or steps of a JSON file or of a report. Raises PromptError that says where the file is wrong."""
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
    except MistakeError as error:
        raise PromptError(f"{path}: {error}; docs/prompts.md shows how prompts are written.") from error
    except PromptError as error:
        raise PromptError(f"{path}: {error}") from error


def read_recording(content: Mapping[str, Any]) -> list[SessionStep]:
    """The steps of what `recording_to_json` wrote. Raises ValueError or PromptError where it is something else."""
    steps = _prompt_set(content, Path()).steps
    own = [step for step in steps if not isinstance(step, (AddMaskFile, AddWorldPrompt))]
    if len(own) < len(steps):
        raise MistakeError("a recording names no files, and places as voxels")
    return own


def _prompt_set(content: Any, folder: Path) -> PromptSet:
    if isinstance(content, dict) and "steps" in content:
        fields = fields_of(content, "the file", required={"steps"}, optional={"format", "axis", "plane", "window"})
    else:
        fields = fields_of(content, "the file", required={"objects"}, optional={"format", "axis", "plane", "range"})
    written = fields.get("format", PROMPTS_FORMAT)
    if written != PROMPTS_FORMAT:
        raise MistakeError(f'expected "format": "{PROMPTS_FORMAT}", but it is {json.dumps(written)}')
    axis = fields.get("axis")
    if axis is not None and axis not in AXIS_NAMES:
        raise MistakeError(f'expected "axis" to be one of {", ".join(AXIS_NAMES)}, but it is {json.dumps(axis)}')
    plane = None if fields.get("plane") is None else plane_from_json(fields["plane"], "plane")
    if axis is not None and plane is not None:
        raise MistakeError('expected "axis" or "plane", but both are there')
    if "steps" in fields:
        low_high = None if fields.get("window") is None else numbers(fields["window"], 2, "window")
        window = None if low_high is None else (low_high[0], low_high[1])
        return PromptSet(axis=axis, window=window, steps=_steps(fields["steps"], folder), plane=plane)
    first, last = (None, None) if fields.get("range") is None else whole_numbers(fields["range"], 2, "range")
    if not isinstance(fields["objects"], list):
        raise MistakeError('expected "objects" to be a list')
    prompts: list[NamedPrompt] = []
    for place, content_of_object in enumerate(fields["objects"]):
        prompts += _object(content_of_object, f"objects[{place}]", folder)
    return PromptSet(tuple(prompts), axis, first, last, plane=plane)


def _steps(content: Any, folder: Path) -> tuple[FileStep, ...]:
    if not isinstance(content, list):
        raise MistakeError('expected "steps" to be a list')
    return tuple(step_from_json(one, f"steps[{place}]", folder) for place, one in enumerate(content))


def _object(content: Any, where: str, folder: Path) -> list[NamedPrompt]:
    fields = fields_of(content, where, required={"name", "prompts"})
    name = text(fields["name"], where, "name")
    if not (isinstance(fields["prompts"], list) and fields["prompts"]):
        raise MistakeError(f'{where}: expected "prompts" to be a list of at least one')
    prompts = (prompt_from_json(one, f"{where}.prompts[{place}]", folder) for place, one in enumerate(fields["prompts"]))
    return [NamedPrompt(name, prompt) for prompt in prompts]


# ── writing ───────────────────────────────────────────────────────────────────────────────────────────────────────


def to_json(prompts: PromptSet, folder: Path) -> dict[str, Any]:
    """What `read_prompts` reads back, for a file in `folder`: paths of masks are relative to it where they can be."""
    if prompts.steps:
        window = None if prompts.window is None else list(prompts.window)
        steps = [step_to_json(step, folder) for step in prompts.steps]
        return {"format": PROMPTS_FORMAT, **_slicing(prompts), "window": window, "steps": steps}
    objects: dict[str, list[dict[str, Any]]] = {}
    for named in prompts.prompts:
        objects.setdefault(named.name, []).append(prompt_to_json(named.prompt, folder))
    limits = None if prompts.first is None or prompts.last is None else [prompts.first, prompts.last]
    return {
        "format": PROMPTS_FORMAT,
        **_slicing(prompts),
        "range": limits,
        "objects": [{"name": name, "prompts": theirs} for name, theirs in objects.items()],
    }


def _slicing(prompts: PromptSet) -> dict[str, Any]:
    return {"axis": prompts.axis} if prompts.plane is None else {"plane": plane_to_json(prompts.plane)}


def recording_to_json(steps: Sequence[SessionStep], axis: str, window: tuple[float, float]) -> dict[str, Any]:
    """A session as a file of steps."""
    written = [step_to_json(step, Path()) for step in steps]
    return {"format": PROMPTS_FORMAT, "axis": axis, "window": list(window), "steps": written}


# ── masks in files ────────────────────────────────────────────────────────────────────────────────────────────────


def mask_prompts(file: MaskFile, stack: SliceStack) -> list[MaskPrompt]:
    """A prompt for each slice of the image on which the file's mask has voxels.

    Raises PromptError when the mask is not on the image's grid, or it is not clear what to take.
    """
    labels = read_labels(file.path)
    _check_same_grid(labels.geometry, stack.grid, file.path)
    present = labels.values()
    if not present:
        raise PromptError(f"{file.path} has no voxel with a label; paint the object on at least one slice.")
    if file.label is None and len(present) > 1:
        raise PromptError(f"{file.path} holds the labels {', '.join(map(str, present))}; say which one, as NAME=FILE:LABEL.")
    label = present[0] if file.label is None else file.label
    if label not in present:
        raise PromptError(f"{file.path} has no voxel with label {label}; it has {', '.join(map(str, present))}.")
    mask = labels.array == label
    cuts = {index: cut for index in range(stack.slice_count) if (cut := stack.cut(mask, index)).any()}
    painted = list(cuts)
    chosen = painted if file.slices is None else list(file.slices)
    if empty := sorted(set(chosen) - set(painted)):
        raise PromptError(f"{file.path} has no voxel on slice {empty[0]}; it has some on {painted[0]}..{painted[-1]}.")
    return [MaskPrompt(index, cuts[index]) for index in chosen]


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


def resolve(prompt: FilePrompt, stack: SliceStack) -> list[Prompt]:
    """A prompt as the session takes it: masks are read from their files, places in mm looked up on the slices."""
    if isinstance(prompt, WorldPrompt):
        return prompt.on(stack)
    return list(mask_prompts(prompt, stack)) if isinstance(prompt, MaskFile) else [said(prompt)]


def resolve_step(step: FileStep, stack: SliceStack) -> list[SessionStep]:
    """A step as the session takes it, or as many as there are slices that it is about."""
    match step:
        case AddMaskFile(name, file):
            prompts = resolve(file, stack)
        case AddWorldPrompt(name, prompt):
            prompts = resolve(prompt, stack)
        case _:
            return [step]
    return [AddPrompt(name, spoken(prompt)) for prompt in prompts]
