"""Prompts as a person would give them, made from reference masks.

Slices are along k; a slice's mask is (rows, columns) bool, its spacing (i, j) mm. Everything random comes from a
generator that depends on the seed and the structure alone, so that a structure gets the same prompt in any run.
"""

from __future__ import annotations

import hashlib
from typing import Literal

import numpy as np
import numpy.typing as npt

from MedSAM2Lib.evaluation.manifest import Structure
from MedSAM2Lib.masks import bounding_box
from MedSAM2Lib.postprocess import depths
from MedSAM2Lib.prompts import Box, MaskPrompt, Points, RecistLine

__all__ = [
    "PROMPT_KINDS",
    "SLICE_CHOICES",
    "PromptKind",
    "SimulatedPrompt",
    "SliceChoice",
    "deepest_point",
    "longest_diameter",
    "prompt_slices",
    "reference_box",
    "simulate_prompt",
    "structure_generator",
]

PromptKind = Literal["box", "jittered-box", "point", "mask", "recist"]
SliceChoice = Literal["suggested", "centre"]
SimulatedPrompt = Box | Points | MaskPrompt | RecistLine
PROMPT_KINDS: tuple[PromptKind, ...] = ("box", "jittered-box", "point", "mask", "recist")
SLICE_CHOICES: tuple[SliceChoice, ...] = ("suggested", "centre")

_BoolArray = npt.NDArray[np.bool_]

_JITTER = 0.1  # standard deviation of a box's sides, in lengths of the box (SAM: Kirillov et al., arXiv 2304.02643)
_JITTER_BOUND = 2.0  # standard deviations that a side moves at most
_HALF_PIXEL = 0.5


def structure_generator(seed: int, case_id: str, structure_name: str) -> np.random.Generator:
    digest = hashlib.sha256(f"{case_id}\0{structure_name}".encode()).digest()
    return np.random.default_rng([seed, *digest[:8]])


def prompt_slices(
    reference: npt.NDArray[np.bool_],
    structure: Structure,
    choice: SliceChoice,
    share: float | None,
    generator: np.random.Generator,
) -> list[int]:
    """Where the prompts go: the suggested slice, the centre one, or a random share of the slices with the object.

    share  0..1, as in the papers' study of prompt frequency; at least one slice. None: the one slice of `choice`
    """
    areas = np.count_nonzero(reference, axis=(1, 2))
    occupied = np.flatnonzero(areas)
    if share is not None:
        count = max(1, round(share * len(occupied)))
        return sorted(int(index) for index in generator.choice(occupied, size=count, replace=False))
    given = structure.suggested if choice == "suggested" else structure.centre
    if given is not None and given.slice_index < len(areas) and areas[given.slice_index]:
        return [given.slice_index]
    if choice == "suggested":
        return [int(areas.argmax())]
    centre = float(areas @ np.arange(len(areas)) / areas.sum())
    return [int(occupied[np.abs(occupied - centre).argmin()])]  # the object need not be where its centre is


def simulate_prompt(
    kind: PromptKind,
    slice_index: int,
    mask: _BoolArray,
    spacing: tuple[float, float],
    structure: Structure,
    generator: np.random.Generator,
) -> SimulatedPrompt:
    """A prompt on one slice, whose mask must have a pixel."""
    if kind == "box":
        return _given_box(structure, slice_index) or reference_box(mask, slice_index)
    if kind == "jittered-box":
        return _jittered(reference_box(mask, slice_index), mask.shape, generator)
    if kind == "mask":
        return MaskPrompt(slice_index, mask)
    if kind == "recist":
        return RecistLine(slice_index, *longest_diameter(mask, spacing))
    row, column = deepest_point(mask, spacing)
    return Points(slice_index, (float(column),), (float(row),), (True,))


def reference_box(mask: _BoolArray, slice_index: int) -> Box:
    """The smallest box around a slice's mask, which must have a pixel."""
    found = bounding_box(mask)
    assert found is not None, "a prompted slice has the object"
    rows, columns = found
    return Box(slice_index, columns.start, rows.start, columns.stop - 1, rows.stop - 1)


def deepest_point(mask: _BoolArray, spacing: tuple[float, float]) -> tuple[int, int]:
    """(row, column) of the pixel furthest from the mask's edge, in mm; of equal ones the first. The slice's border is an
    edge too. The mask must have a pixel."""
    inner = np.where(mask, depths(mask, spacing), -np.inf)
    row, column = np.unravel_index(int(inner.argmax()), mask.shape)
    return int(row), int(column)


def longest_diameter(mask: _BoolArray, spacing: tuple[float, float]) -> tuple[float, float, float, float]:
    """(x0, y0, x1, y1): the two pixels of a mask furthest apart in mm, as RECIST measures a lesion; half a pixel to
    either side of a mask of one pixel."""
    ends = _row_ends(mask)  # (n, 2) as (x, y): no other pixel can be an end
    offsets = (ends[:, None] - ends[None]) * np.asarray(spacing)
    first, second = np.unravel_index(int((offsets**2).sum(-1).argmax()), offsets.shape[:2])
    (x0, y0), (x1, y1) = ends[first].tolist(), ends[second].tolist()
    if first == second:
        return x0 - _HALF_PIXEL, y0, x1 + _HALF_PIXEL, y1
    return x0, y0, x1, y1


def _row_ends(mask: _BoolArray) -> npt.NDArray[np.float64]:
    rows = np.flatnonzero(mask.any(axis=1))
    leftmost = mask[rows].argmax(axis=1)
    rightmost = mask.shape[1] - 1 - mask[rows, ::-1].argmax(axis=1)
    return np.unique(np.stack((np.tile(rows, 2), np.concatenate((leftmost, rightmost))), axis=1)[:, ::-1], axis=0).astype(
        np.float64
    )


def _given_box(structure: Structure, slice_index: int) -> Box | None:
    boxes = (structure.suggested, structure.centre)
    return next((box for box in boxes if box is not None and box.slice_index == slice_index), None)


def _jittered(box: Box, shape: tuple[int, ...], generator: np.random.Generator) -> Box:
    """A hasty box: each side moved on its own, still on the slice, and still around the middle of the object."""
    rows, columns = shape
    lengths = np.array([box.x1 - box.x0 + 1, box.y1 - box.y0 + 1] * 2)
    noise = generator.normal(0.0, _JITTER, size=4).clip(-_JITTER_BOUND * _JITTER, _JITTER_BOUND * _JITTER) * lengths
    corners = np.array([box.x0, box.y0, box.x1, box.y1]) + noise
    x0, y0, x1, y1 = corners.clip(0, [columns - 1, rows - 1] * 2).tolist()
    return Box(box.slice_index, min(x0, x1), min(y0, y1), max(x0, x1), max(y0, y1))
