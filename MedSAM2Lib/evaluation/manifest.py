"""The cases of an evaluation, from a JSON file.

    {"cases": [{"id": "ct1", "image": "ct1.nrrd", "label": "ct1_label.nrrd", "modality": "CT", "anatomy": "abdomen",
                "labels": {"1": "spleen", "2": "liver"},
                "structures": [{"name": "liver", "label_values": [2],
                                "prompt": {"slice_k": 16, "box_ijk": {"i": [44, 215], "j": [48, 223]}}}]}]}

or the list of cases alone. Paths are relative to the file. Indices are (i, j, k) voxels from 0, boxes inclusive, k the
slice. `id`, `image` and `label` are needed. Without `structures` every entry of `labels` is one. `prompt` is the box on
the suggested slice, `prompt_centre` that on the slice of the centre of mass; a missing one is made from the reference.
`display_window` [LOW, HIGH], `title` and `origin` (with `repo`, where the data come from) are optional; the rest is not read.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from MedSAM2Lib.errors import OptionError, PromptError, UsageError
from MedSAM2Lib.prompts import Box

__all__ = ["Case", "Structure", "read_manifest", "repositories", "select_cases"]

SCHEMA = "medical-seg-cases/1"
_UNKNOWN = "unknown"  # modality and anatomy of a case that does not tell


@dataclass(frozen=True)
class Structure:
    """One thing to segment: the union of some label values, and the boxes a person would draw around it."""

    name: str
    label_values: tuple[int, ...]
    suggested: Box | None  # on the slice that shows it best; None: to be found in the reference
    centre: Box | None  # on the slice of its centre of mass; None: likewise


@dataclass(frozen=True)
class Case:
    """One image with its reference."""

    id: str
    image: Path
    label: Path
    modality: str
    anatomy: str
    display_window: tuple[float, float] | None  # low, high in the image's units
    label_names: Mapping[int, str]  # by value; empty where the manifest does not tell
    structures: tuple[Structure, ...]
    repositories: frozenset[str]  # where the data come from
    digest: str = field(repr=False)  # of the manifest's entry: another one is another case


def read_manifest(path: Path) -> list[Case]:
    """The cases in their order. Raises OptionError for a missing file, UsageError that names the case for anything else."""
    if not path.is_file():
        raise OptionError(f"{path} does not exist; give a manifest, as shared/data/manifest.json is one.")
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UsageError(f"{path} is not a JSON file ({error}); correct it.") from error
    schema = content.get("schema", SCHEMA) if isinstance(content, dict) else SCHEMA
    if schema != SCHEMA:
        raise UsageError(f"{path}: expected a manifest of schema {SCHEMA!r}, but it says {schema!r}.")
    entries = content.get("cases") if isinstance(content, dict) else content
    if not isinstance(entries, list) or not entries:
        raise UsageError(f"{path}: expected a list of cases (or one under 'cases'), but there is none.")
    cases = [_case(entry, number, path) for number, entry in enumerate(entries)]
    _check_unique([case.id for case in cases], f"{path}: case ids")
    return cases


def select_cases(cases: Sequence[Case], ids: Sequence[str] | None) -> list[Case]:
    """Those with the given ids, in the manifest's order; all for None. Raises OptionError for an unknown id."""
    if ids is None:
        return list(cases)
    unknown = [one for one in ids if one not in {case.id for case in cases}]
    if unknown or not ids:
        raise OptionError(f"Unknown case {', '.join(unknown) or '(none given)'}: cases are {', '.join(c.id for c in cases)}.")
    return [case for case in cases if case.id in ids]


def repositories(origin: object) -> frozenset[str]:
    """The `repo` of an `origin`, which is one record or a list of them."""
    records = origin if isinstance(origin, list) else [origin]
    return frozenset(str(record["repo"]) for record in records if isinstance(record, dict) and "repo" in record)


class _Entry:
    """A JSON object that says where it stands when something in it is wrong."""

    def __init__(self, where: str, content: object) -> None:
        self.where = where
        if not isinstance(content, dict):
            raise self.error("expected an object {...}", content)
        self._content = content

    def error(self, expected: str, came: object) -> UsageError:
        return UsageError(f"{self.where}: {expected}, but {_brief(came)} came; correct the manifest.")

    def get(self, key: str) -> Any:
        return self._content.get(key)

    def text(self, key: str, default: str | None = None) -> str:
        value = self._content.get(key, default)
        if not isinstance(value, str) or not value.strip():
            raise self.error(f"{key!r} must be a text", value)
        return value


def _case(content: object, number: int, manifest: Path) -> Case:
    entry = _Entry(f"{manifest}: case number {number + 1}", content)
    entry.where = f"{manifest}: case {entry.text('id')!r}"
    names = _label_names(entry)
    structures = _structures(entry, names)
    _check_unique([structure.name for structure in structures], f"{entry.where}: names of structures")
    return Case(
        id=entry.text("id"),
        image=_file(entry, "image", manifest.parent),
        label=_file(entry, "label", manifest.parent),
        modality=entry.text("modality", _UNKNOWN),
        anatomy=entry.text("anatomy", _UNKNOWN),
        display_window=_display_window(entry),
        label_names=names,
        structures=structures,
        repositories=repositories(entry.get("origin")),
        digest=hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest(),
    )


def _file(entry: _Entry, key: str, folder: Path) -> Path:
    if entry.get(key) is None:
        raise UsageError(f"{entry.where} has no {key!r}; give the path of its {'label map' if key == 'label' else key}.")
    path = folder / entry.text(key)
    if not path.exists():
        raise UsageError(f"{entry.where}: its {key} {path} does not exist; put the file there, or correct the path.")
    return path


def _label_names(entry: _Entry) -> dict[int, str]:
    labels = entry.get("labels") or {}
    try:
        return {int(value): str(name) for value, name in labels.items()}
    except (AttributeError, ValueError) as error:
        raise entry.error("'labels' must be an object of label value: name", labels) from error


def _structures(entry: _Entry, names: Mapping[int, str]) -> tuple[Structure, ...]:
    listed = entry.get("structures")
    if listed is None and names:
        return tuple(Structure(name, (value,), None, None) for value, name in names.items())
    if not isinstance(listed, list) or not listed:
        raise entry.error("expected a list of 'structures', or 'labels'", listed)
    return tuple(_structure(content, entry.where, names) for content in listed)


def _structure(content: object, where: str, names: Mapping[int, str]) -> Structure:
    entry = _Entry(f"{where}, a structure", content)
    entry.where = f"{where}, structure {entry.text('name')!r}"
    values = entry.get("label_values")
    if not isinstance(values, list) or not values or not all(isinstance(v, int) and v > 0 for v in values):
        raise entry.error("'label_values' must be a list of whole numbers above 0", values)
    unknown = [value for value in values if names and value not in names]
    if unknown:
        known = ", ".join(f"{value} = {name}" for value, name in names.items())
        raise UsageError(f"{entry.where}: unknown label value {unknown[0]}; the case's labels are {known}.")
    return Structure(entry.text("name"), tuple(values), _box(entry, "prompt"), _box(entry, "prompt_centre"))


def _box(entry: _Entry, key: str) -> Box | None:
    prompt = entry.get(key)
    if prompt is None:
        return None
    try:
        if prompt.get("axis", "k") != "k":
            raise ValueError
        (x0, x1), (y0, y1) = prompt["box_ijk"]["i"], prompt["box_ijk"]["j"]
        return Box(int(prompt["slice_k"]), float(x0), float(y0), float(x1), float(y1))
    except PromptError as error:
        raise UsageError(f"{entry.where}, {key}: {error}") from error
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        expected = f"{key!r} must be {{'slice_k': K, 'box_ijk': {{'i': [I0, I1], 'j': [J0, J1]}}}} along axis k"
        raise entry.error(expected, prompt) from error


def _display_window(entry: _Entry) -> tuple[float, float] | None:
    window = entry.get("display_window")
    if window is None:
        return None
    try:
        low, high = (float(value) for value in window)
    except (TypeError, ValueError) as error:
        raise entry.error("'display_window' must be [LOW, HIGH]", window) from error
    return low, high


def _check_unique(names: Sequence[str], what: str) -> None:
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise UsageError(f"{what} must differ, but {twice[0]!r} occurs {names.count(twice[0])} times; rename one.")


def _brief(value: object) -> str:
    text = "nothing" if value is None else json.dumps(value, default=str)
    return text if len(text) <= 80 else f"{text[:77]}..."
