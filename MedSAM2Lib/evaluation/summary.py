"""From rows to what one reads: means with intervals per group, how often each baseline was beaten, files.

3D measures leave out images of one slice, which have none. The slice's Dice counts them.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from statistics import median
from typing import Any

from MedSAM2Lib.atomic import atomic_path
from MedSAM2Lib.evaluation.baselines import BASELINES
from MedSAM2Lib.evaluation.bootstrap import Interval, mean_with_interval
from MedSAM2Lib.evaluation.rows import MODEL, Row, to_json

__all__ = ["Group", "MethodSummary", "group_rows", "modality_of", "summarise", "write_csv", "write_json"]


@dataclass(frozen=True)
class MethodSummary:
    """One method on one group, after so many corrections. A measure without a single value is None."""

    method: str
    corrections: int
    structures: int
    cases: int
    slice_dice: Interval
    structures_3d: int  # structures of volumes, of which the following are
    dice: Interval | None
    iou: Interval | None
    surface_dice: Interval | None
    median_hd95_mm: float | None  # over the structures that got a mask
    empty_masks: int  # structures that got none
    median_volume_error: float | None  # absolute, as a share of the reference's volume
    median_seconds: float | None
    # For the model: on which share of the structures its Dice is higher than the baseline's, by the baseline's name.
    beats_in_3d: dict[str, float]
    beats_on_the_slice: dict[str, float]


@dataclass(frozen=True)
class Group:
    """Some of the structures, and every method on them."""

    name: str
    methods: tuple[MethodSummary, ...]

    def find(self, method: str, corrections: int = 0) -> MethodSummary | None:
        return next((one for one in self.methods if (one.method, one.corrections) == (method, corrections)), None)


def group_rows(rows: Sequence[Row], sharing_a_source: frozenset[str] | None = None) -> dict[str, list[Row]]:
    """All structures; those whose cases share a source with the training volumes, or do not, where that is known; by
    modality; by anatomy."""
    groups: dict[str, list[Row]] = {"all": list(rows)}
    if sharing_a_source is not None:
        groups["no source shared with training"] = [row for row in rows if row.case not in sharing_a_source]
        groups["source shared with training"] = [row for row in rows if row.case in sharing_a_source]
    keys: tuple[Callable[[Row], str], ...] = (modality_of, lambda row: row.anatomy)
    for key in keys:
        for name in sorted({key(row) for row in rows}):
            groups[name] = [row for row in rows if key(row) == name]
    return {name: members for name, members in groups.items() if members}


def modality_of(row: Row) -> str:
    """CT of `CT angiography`, MR of `MR T1 contrast`."""
    return row.modality.split()[0]


def summarise(name: str, rows: Sequence[Row], seed: int = 0) -> Group:
    """One group. Rows must hold every method and number of corrections of its structures."""
    steps = sorted({(row.method != MODEL, row.method, row.corrections) for row in rows})  # the model first
    return Group(name, tuple(_method(rows, method, corrections, seed) for _, method, corrections in steps))


def _method(rows: Sequence[Row], method: str, corrections: int, seed: int) -> MethodSummary:
    mine = [row for row in rows if (row.method, row.corrections) == (method, corrections)]
    volumes = [row for row in mine if row.dice is not None]
    compared = BASELINES if method == MODEL else ()
    return MethodSummary(
        method=method,
        corrections=corrections,
        structures=len(mine),
        cases=len({row.case for row in mine}),
        slice_dice=mean_with_interval([row.slice_dice for row in mine], [row.case for row in mine], seed),
        structures_3d=len(volumes),
        dice=_interval(volumes, lambda row: row.dice, seed),
        iou=_interval(volumes, lambda row: row.iou, seed),
        surface_dice=_interval(volumes, lambda row: row.surface_dice, seed),
        median_hd95_mm=_median(row.hd95_mm for row in volumes),
        empty_masks=sum(row.hd95_mm is None for row in volumes),
        median_volume_error=_median(
            None if row.relative_volume_error is None else abs(row.relative_volume_error) for row in volumes
        ),
        median_seconds=_median(row.seconds for row in mine),
        beats_in_3d=_beaten(compared, volumes, rows, lambda row: row.dice),
        beats_on_the_slice=_beaten(compared, mine, rows, lambda row: row.slice_dice),
    )


def _interval(rows: Sequence[Row], value: Callable[[Row], float | None], seed: int) -> Interval | None:
    found = [(number, row.case) for row in rows if (number := value(row)) is not None]
    return mean_with_interval([number for number, _ in found], [case for _, case in found], seed) if found else None


def _median(values: Iterable[float | None]) -> float | None:
    found = [value for value in values if value is not None]
    return float(median(found)) if found else None


def _beaten(
    baselines: Iterable[str], mine: Sequence[Row], rows: Sequence[Row], value: Callable[[Row], float | None]
) -> dict[str, float]:
    shares: dict[str, float] = {}
    for baseline in baselines:
        theirs = {(row.case, row.structure): value(row) for row in rows if row.method == baseline}
        pairs = [(value(row), theirs.get((row.case, row.structure))) for row in mine]
        known = [(own, other) for own, other in pairs if own is not None and other is not None]
        if known:
            shares[baseline] = sum(own > other for own, other in known) / len(known)
    return shares


# ── files ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def write_csv(path: Path, rows: Sequence[Row]) -> None:
    """One line per structure, method and number of corrections; a measure that does not apply is left blank."""
    first = ("case", "structure", "modality", "anatomy", "method", "corrections")
    columns = [*first, *(one.name for one in fields(Row) if one.name not in first)]
    with atomic_path(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, columns)
        writer.writeheader()
        writer.writerows(_csv_line(row) for row in rows)


def _csv_line(row: Row) -> dict[str, Any]:
    content = {key: round(value, 5) if isinstance(value, float) else value for key, value in to_json(row).items()}
    return {**content, "prompted_slices": " ".join(map(str, row.prompted_slices))}


def write_json(
    path: Path, asked: Mapping[str, Any], groups: Sequence[Group], rows: Sequence[Row], problems: Sequence[str]
) -> None:
    content = {
        "asked": dict(asked),
        "groups": [asdict(group) for group in groups],
        "rows": [to_json(row) for row in rows],
        "problems": list(problems),
    }
    text = json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False)
    with atomic_path(path) as temporary:
        temporary.write_text(text + "\n", encoding="utf-8")
