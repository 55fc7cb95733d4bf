"""Prompts in millimetres of the patient instead of voxels of a slice, as a viewer shows them under the cursor."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt

from MedSAM2Lib.errors import PromptError
from MedSAM2Lib.geometry import WORLD_SPACES, to_lps
from MedSAM2Lib.json_fields import MistakeError, fields_of, numbers
from MedSAM2Lib.prompts import Box, Box3D, Points, Prompt, RecistLine
from MedSAM2Lib.slice_stack import SliceStack

__all__ = ["WORLD_KINDS", "WorldPrompt", "world_prompt_from_json", "world_prompt_to_json"]

Kind = Literal["box", "points", "recist", "box3d"]
WORLD_KINDS: tuple[Kind, ...] = get_args(Kind)

_Places = npt.NDArray[np.float64]
_SAME_SLICE = 1.0  # slices that two ends of one thing may be apart: they were read off a screen, and rounded


@dataclass(frozen=True)
class WorldPrompt:
    """A prompt before it is known on which slice it lies.

    kind    box, recist and box3d have two places: opposite corners, or ends; points any number
    space   of the places: "ras" as 3D Slicer shows them, or "lps" as ITK and DICOM do
    places  mm
    labels  of points, whether each lies on the object
    """

    kind: Kind
    space: str
    places: tuple[tuple[float, float, float], ...]
    labels: tuple[bool, ...] = ()

    def __post_init__(self) -> None:
        if not np.isfinite(self.places).all():
            raise PromptError(f"Places must be finite numbers, but {self.places} came.")

    def on(self, stack: SliceStack) -> list[Prompt]:
        """As prompts of the slices that lie nearest; of points, one for each of their slices.

        Raises PromptError where a place lies beside the image, or what should lie on one slice does not.
        """
        placed = stack.from_world(to_lps(self.places, self.space))  # (n, 3): x, y, slice
        self._check_beside(placed, stack)
        if self.kind == "points":
            return self._points(placed)
        x0, y0, _ = (float(value) for value in placed.min(0))
        x1, y1, _ = (float(value) for value in placed.max(0))
        if self.kind == "box3d":
            first, last = (_nearest(value) for value in (placed[:, 2].min(), placed[:, 2].max()))
            return [Box3D(first, last, x0, y0, x1, y1)]
        index = self._slice(placed)
        if self.kind == "recist":
            (xa, ya, _), (xb, yb, _) = placed.tolist()
            return [RecistLine(index, xa, ya, xb, yb)]
        return [Box(index, x0, y0, x1, y1)]

    def _points(self, placed: _Places) -> list[Prompt]:
        by_slice: dict[int, list[tuple[float, float, bool]]] = {}
        for (x, y, index), label in zip(placed.tolist(), self.labels, strict=True):
            by_slice.setdefault(_nearest(index), []).append((x, y, label))
        return [Points(index, *map(tuple, zip(*clicks, strict=True))) for index, clicks in by_slice.items()]

    def _slice(self, placed: _Places) -> int:
        low, high = float(placed[:, 2].min()), float(placed[:, 2].max())
        if high - low > _SAME_SLICE:
            advice = "give corners of one slice, or a 3D box" if self.kind == "box" else "measure on one slice"
            raise PromptError(f"A {self.kind} lies on one slice, but its ends are on slices {low:.1f} and {high:.1f}; {advice}.")
        return _nearest((low + high) / 2)

    def _check_beside(self, placed: _Places, stack: SliceStack) -> None:
        rows, columns = stack.slice_shape
        inside = ((placed >= -0.5) & (placed < np.array((columns, rows, stack.slice_count)) - 0.5)).all(1)
        if not inside.all():
            place = ",".join(f"{value:g}" for value in self.places[int(np.argmin(inside))])
            other = next(space for space in WORLD_SPACES if space != self.space)
            raise PromptError(f"{self.space} {place} mm lies beside the image; were the numbers {other}?")


def _nearest(index: float) -> int:
    return int(np.floor(index + 0.5))


# ── as JSON ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def world_prompt_from_json(content: Any, where: str) -> WorldPrompt | None:
    """{"type": "box", "ras": [[R, A, S], [R, A, S]]} and its kin; None where the places are not in millimetres.

    Raises MistakeError that says `where`.
    """
    space = next((one for one in WORLD_SPACES if isinstance(content, dict) and one in content), None)
    if space is None or content.get("type") not in WORLD_KINDS:
        return None
    fields = fields_of(content, where, required={"type", space})
    kind, rows = fields["type"], fields[space]
    if not (isinstance(rows, list) and rows and all(isinstance(row, list) for row in rows)):
        raise MistakeError(f'{where}: expected "{space}" to be a list of places')
    if kind == "points":
        if not all(len(row) == 4 and row[3] in ("+", "-") for row in rows):
            raise MistakeError(f'{where}: expected "{space}" to be a list of [X, Y, Z, "+"] or [X, Y, Z, "-"]')
        return WorldPrompt(kind, space, _places([row[:3] for row in rows], where), tuple(row[3] == "+" for row in rows))
    if len(rows) != 2:
        raise MistakeError(f'{where}: expected "{space}" to be two places')
    return WorldPrompt(kind, space, _places(rows, where))


def _places(rows: list[Any], where: str) -> tuple[tuple[float, float, float], ...]:
    read = (numbers(row, 3, where) for row in rows)
    return tuple((x, y, z) for x, y, z in read)


def world_prompt_to_json(prompt: WorldPrompt) -> dict[str, Any]:
    """What `world_prompt_from_json` reads back."""
    rows: list[list[Any]] = [list(place) for place in prompt.places]
    if prompt.kind == "points":
        rows = [[*place, "+" if label else "-"] for place, label in zip(prompt.places, prompt.labels, strict=True)]
    return {"type": prompt.kind, prompt.space: rows}
