"""What is said of a comparison: an improvement only where one was measured."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest

from MedSAM2Lib.evaluation.before_after import StructureChange, Verdict, changes_of, summarise_changes, write_changes
from MedSAM2Lib.evaluation.rows import MODEL, Row


def a_row(case: str, dice: float | None, *, structure: str = "liver", method: str = MODEL, corrections: int = 0) -> Row:
    return Row(0.9, dice, None, None, None, None, None, case, structure, "CT", "own", method, corrections, 1, (0,), 1.0, 0.1)


def changes(*differences: float) -> list[StructureChange]:
    return [StructureChange(f"case {n}", "liver", (0.5, 0.5), (0.5, 0.5 + one)) for n, one in enumerate(differences)]


@pytest.mark.parametrize(
    ("differences", "verdict", "told"),
    [
        ((0.1, 0.12, 0.08, 0.11, 0.09), "better", "an improvement was measured"),
        ((-0.1, -0.12, -0.08, -0.11, -0.09), "worse", "it became worse"),
        ((0.1, -0.1, 0.3, -0.2, 0.05), "no difference measured", "includes zero, so no improvement was measured"),
        ((0.0,) * 6, "no difference measured", "no improvement was measured"),
        ((0.2, 0.3, 0.25, 0.2), "too few cases", "fewer than 5 cases"),
    ],
)
def test_an_improvement_is_claimed_only_where_it_was_measured(
    differences: tuple[float, ...], verdict: Verdict, told: str
) -> None:
    on_slice, in_3d = summarise_changes(changes(*differences))
    assert in_3d.verdict == verdict
    assert told in in_3d.told()
    assert on_slice.verdict in ("no difference measured", "too few cases")
    assert in_3d.difference.mean == pytest.approx(sum(differences) / len(differences))


def test_many_structures_of_few_cases_are_few_cases() -> None:
    many = [StructureChange("one case", f"lesion {n}", (0.5, 0.9), (0.5, 0.9)) for n in range(20)]
    assert {change.verdict for change in summarise_changes(many)} == {"too few cases"}


def test_pairs_are_of_the_model_from_its_first_prompt() -> None:
    before = [a_row("a", 0.5), a_row("a", 0.7, corrections=1), a_row("a", 0.2, method="ellipsoid"), a_row("b", None)]
    after = [a_row("b", None), a_row("a", 0.6), a_row("a", 0.8, corrections=1), a_row("c", 0.9)]
    assert changes_of(before, after) == [
        StructureChange("b", "liver", (0.9, 0.9), None),
        StructureChange("a", "liver", (0.9, 0.9), (0.5, 0.6)),
    ]


def test_without_a_volume_there_is_the_slice_alone() -> None:
    assert [change.measure for change in summarise_changes([StructureChange("a", "liver", (0.5, 0.6), None)])] == ["slice Dice"]
    assert summarise_changes([]) == []


def test_files_hold_every_structure_and_the_intervals(tmp_path: Path) -> None:
    found = [*changes(0.1, 0.2), StructureChange("picture", "liver", (0.5, 0.6), None)]
    table, record = write_changes(tmp_path, found, summarise_changes(found))
    with table.open(newline="") as stream:
        lines = list(csv.DictReader(stream))
    assert [line["dice_after"] or None for line in lines] == ["0.6", "0.7", None]
    content = json.loads(record.read_text())
    assert content["summary"][1]["verdict"] == "too few cases"
    assert content["summary"][1]["difference"]["mean"] == pytest.approx(0.15)
