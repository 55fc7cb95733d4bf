"""Steps of a session as JSON. docs/prompts.md describes the format for its writers."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from MedSAM2Lib.json_fields import MistakeError, fields_of, text, whole_number, whole_numbers
from MedSAM2Lib.prompt_json import MaskFile, prompt_from_json, prompt_to_json
from MedSAM2Lib.session_steps import (
    AddPrompt,
    GoOn,
    Lock,
    Propagate,
    Redo,
    RemoveObject,
    RemovePrompt,
    RenameObject,
    Reset,
    SessionStep,
    Undo,
    Unlock,
)
from MedSAM2Lib.world_prompts import WorldPrompt

__all__ = ["AddMaskFile", "AddWorldPrompt", "FileStep", "step_from_json", "step_to_json"]


@dataclass(frozen=True)
class AddMaskFile:
    """A prompt for each slice on which a mask in a file has voxels."""

    object: str
    mask: MaskFile


@dataclass(frozen=True)
class AddWorldPrompt:
    """A prompt in millimetres; clicks on several slices are as many prompts."""

    object: str
    prompt: WorldPrompt


FileStep = SessionStep | AddMaskFile | AddWorldPrompt
_Fields = Mapping[str, Any]


@dataclass(frozen=True)
class _Form:
    """How a step is written, apart from its "do"."""

    required: frozenset[str]
    optional: frozenset[str]
    read: Callable[[_Fields, str, Path], FileStep]


def step_from_json(content: Any, where: str, folder: Path) -> FileStep:
    """A step; paths of masks are relative to `folder`. Raises MistakeError that says `where`, or PromptError."""
    kind = content.get("do") if isinstance(content, dict) else None
    if not (isinstance(kind, str) and kind in _FORMS):
        raise MistakeError(f'{where}: expected "do" to be one of {", ".join(_FORMS)}, but it is {json.dumps(kind)}')
    form = _FORMS[kind]
    return form.read(fields_of(content, where, {"do", *form.required}, form.optional), where, folder)


def _read_prompt(fields: _Fields, where: str, folder: Path) -> FileStep:
    name, prompt = _object(fields, where), prompt_from_json(fields["prompt"], f"{where}.prompt", folder)
    if isinstance(prompt, WorldPrompt):
        return AddWorldPrompt(name, prompt)
    return AddMaskFile(name, prompt) if isinstance(prompt, MaskFile) else AddPrompt(name, prompt)


def _read_propagate(fields: _Fields, where: str, _: Path) -> FileStep:
    objects, limits, redo = fields.get("objects"), fields.get("range"), fields.get("redo", False)
    if not (objects is None or (isinstance(objects, list) and all(isinstance(name, str) for name in objects))):
        raise MistakeError(f'{where}: expected "objects" to be a list of names, but it is {json.dumps(objects)}')
    if not isinstance(redo, bool):
        raise MistakeError(f'{where}: expected "redo" to be true or false, but it is {json.dumps(redo)}')
    if limits is not None and not (isinstance(limits, list) and len(limits) == 2):
        raise MistakeError(f'{where}: expected "range" to be [FIRST, LAST], but it is {json.dumps(limits)}')
    first, last = (None if end is None else whole_number(end, f"{where}.range") for end in limits or (None, None))
    return Propagate(None if objects is None else tuple(objects), first, last, redo, _results(fields, where))


def _results(fields: _Fields, where: str) -> int | None:
    results = fields.get("results")
    if results is None:
        return None
    if (count := whole_number(results, f"{where}.results")) < 0:
        raise MistakeError(f'{where}: expected "results" to count slices, but it is {count}')
    return count


def _object(fields: _Fields, where: str) -> str:
    return text(fields["object"], where, "object")


def _slices(fields: _Fields, where: str) -> tuple[int, ...] | None:
    slices = fields.get("slices")
    return None if slices is None else tuple(whole_numbers(slices, None, f"{where}.slices"))


def _form(required: str, optional: str, read: Callable[[_Fields, str, Path], FileStep]) -> _Form:
    return _Form(frozenset(required.split()), frozenset(optional.split()), read)


_FORMS = {
    "prompt": _form("object prompt", "", _read_prompt),
    "remove prompt": _form(
        "object slice", "", lambda f, w, _: RemovePrompt(_object(f, w), whole_number(f["slice"], f"{w}.slice"))
    ),
    "propagate": _form("", "objects range redo results", _read_propagate),
    "go on": _form("", "results", lambda f, w, _: GoOn(_results(f, w))),
    "lock": _form("object slices", "", lambda f, w, _: Lock(_object(f, w), _slices(f, w) or ())),
    "unlock": _form("object", "slices", lambda f, w, _: Unlock(_object(f, w), _slices(f, w))),
    "remove object": _form("object", "", lambda f, w, _: RemoveObject(_object(f, w))),
    "rename object": _form("object to", "", lambda f, w, _: RenameObject(_object(f, w), text(f["to"], w, "to"))),
    "reset": _form("", "", lambda *_: Reset()),
    "undo": _form("", "", lambda *_: Undo()),
    "redo": _form("", "", lambda *_: Redo()),
}


def step_to_json(step: FileStep, folder: Path) -> dict[str, Any]:
    """What `step_from_json` reads back, for a file in `folder`."""
    match step:
        case AddPrompt(name, prompt) | AddMaskFile(name, prompt) | AddWorldPrompt(name, prompt):
            return {"do": "prompt", "object": name, "prompt": prompt_to_json(prompt, folder)}
        case RemovePrompt(name, index):
            return {"do": "remove prompt", "object": name, "slice": int(index)}
        case Propagate(objects, first, last, redo, results):
            ends = [None if end is None else int(end) for end in (first, last)]
            limits = None if ends == [None, None] else ends
            names = None if objects is None else list(objects)
            said = {"objects": names, "range": limits, "redo": redo or None, "results": results}
            return {"do": "propagate", **{key: value for key, value in said.items() if value is not None}}
        case GoOn(results):
            return {"do": "go on"} if results is None else {"do": "go on", "results": results}
        case Lock(name, slices):
            return {"do": "lock", "object": name, "slices": list(slices)}
        case Unlock(name, freed):
            return {"do": "unlock", "object": name, **({} if freed is None else {"slices": list(freed)})}
        case RemoveObject(name):
            return {"do": "remove object", "object": name}
        case RenameObject(name, to):
            return {"do": "rename object", "object": name, "to": to}
        case Reset():
            return {"do": "reset"}
        case Undo():
            return {"do": "undo"}
        case Redo():
            return {"do": "redo"}
