"""Two models on the same cases, before and after training: what changed, and whether that says anything of other cases.

An improvement is claimed only where it was measured: where the 95 % interval of the paired differences (a bootstrap over
cases, then structures) lies above zero, and where there were enough cases for such an interval to mean something.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from MedSAM2Lib.atomic import atomic_path
from MedSAM2Lib.evaluation.bootstrap import Interval, mean_with_interval
from MedSAM2Lib.evaluation.rows import MODEL, Row

__all__ = ["Change", "StructureChange", "Verdict", "changes_of", "summarise_changes", "write_changes"]

# With fewer, all of them would be better by chance alone in more than one of 20 such comparisons (1 / 2^n), and a bootstrap
# over so few cases claims more than it knows.
_FEWEST_CASES = 5

Verdict = Literal["better", "worse", "no difference measured", "too few cases"]
Measure = Literal["slice Dice", "3D Dice"]


@dataclass(frozen=True)
class StructureChange:
    """A structure of a case that was not trained on. 3D figures are None for an image of one slice."""

    case: str
    structure: str
    slice_dice: tuple[float, float]  # before, after; on the prompted slice
    dice: tuple[float, float] | None


@dataclass(frozen=True)
class Change:
    """A measure over all structures."""

    measure: Measure
    structures: int
    cases: int
    before: Interval
    after: Interval
    difference: Interval  # of pairs
    verdict: Verdict

    def told(self) -> str:
        """What may be said of it."""
        cases = "1 case" if self.cases == 1 else f"{self.cases} cases"
        change = f"{self.difference.mean:+.3f} [{self.difference.low:+.3f}, {self.difference.high:+.3f}]"
        return f"{self.measure}: {change} on {cases}: {_SENTENCES[self.verdict]}"


_SENTENCES: dict[Verdict, str] = {
    "better": "an improvement was measured.",
    "worse": "it became worse.",
    "no difference measured": "the interval includes zero, so no improvement was measured.",
    "too few cases": f"of fewer than {_FEWEST_CASES} cases, nothing can be said of others; no improvement was measured.",
}


def changes_of(before: Sequence[Row], after: Sequence[Row]) -> list[StructureChange]:
    """The structures that both have, from the first prompt alone."""
    old = {(row.case, row.structure): row for row in before if row.method == MODEL and row.corrections == 0}
    changes = []
    for row in after:
        first = old.get((row.case, row.structure))
        if first is not None and row.method == MODEL and row.corrections == 0:
            in_3d = None if first.dice is None or row.dice is None else (first.dice, row.dice)
            changes.append(StructureChange(row.case, row.structure, (first.slice_dice, row.slice_dice), in_3d))
    return changes


def summarise_changes(changes: Sequence[StructureChange], seed: int = 0) -> list[Change]:
    """Both measures where there are both; an empty list for no structures."""
    on_slice = [(one.case, *one.slice_dice) for one in changes]
    in_3d = [(one.case, *one.dice) for one in changes if one.dice is not None]
    both: list[tuple[Measure, list[tuple[str, float, float]]]] = [("slice Dice", on_slice), ("3D Dice", in_3d)]
    return [_change(measure, pairs, seed) for measure, pairs in both if pairs]


def _change(measure: Measure, pairs: Sequence[tuple[str, float, float]], seed: int) -> Change:
    cases = [case for case, _, _ in pairs]
    difference = mean_with_interval([after - before for _, before, after in pairs], cases, seed)
    return Change(
        measure=measure,
        structures=len(pairs),
        cases=len(set(cases)),
        before=mean_with_interval([before for _, before, _ in pairs], cases, seed),
        after=mean_with_interval([after for _, _, after in pairs], cases, seed),
        difference=difference,
        verdict=_verdict(difference, len(set(cases))),
    )


def _verdict(difference: Interval, cases: int) -> Verdict:
    if cases < _FEWEST_CASES:
        return "too few cases"
    if difference.low > 0:
        return "better"
    return "worse" if difference.high < 0 else "no difference measured"


def write_changes(folder: Path, changes: Sequence[StructureChange], summary: Sequence[Change]) -> list[Path]:
    """`before_after.csv`, a line per structure, and `before_after.json`, with the intervals; returns both paths."""
    table, record = folder / "before_after.csv", folder / "before_after.json"
    with atomic_path(table) as temporary, temporary.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream)
        writer.writerow(("case", "structure", "slice_dice_before", "slice_dice_after", "dice_before", "dice_after"))
        for one in changes:
            figures = [*one.slice_dice, *(one.dice or ())]
            writer.writerow((one.case, one.structure, *(round(figure, 5) for figure in figures)))
    content = {"summary": [asdict(one) for one in summary], "structures": [asdict(one) for one in changes]}
    with atomic_path(record) as temporary:
        temporary.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    return [table, record]
