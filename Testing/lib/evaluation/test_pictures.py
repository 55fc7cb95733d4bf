from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from MedSAM2Lib.evaluation.cases import LoadedCase
from MedSAM2Lib.evaluation.pictures import PictureBook, best_median_worst
from MedSAM2Lib.evaluation.plots import plot_corrections, plot_groups
from MedSAM2Lib.evaluation.rows import MODEL, Row
from MedSAM2Lib.evaluation.run import StructureResult
from MedSAM2Lib.evaluation.summary import group_rows, summarise
from MedSAM2Lib.intensity import Window
from MedSAM2Lib.prompts import Box
from Testing.lib.evaluation.test_summary import a_row


def has_more_than_one_colour(path: Path) -> bool:
    return len(np.unique(np.asarray(Image.open(path).convert("RGB")).reshape(-1, 3), axis=0)) > 10


def corrected_rows() -> list[Row]:
    return [
        a_row("volume", name, MODEL, 0.5 + 0.1 * number + 0.05 * steps, corrections=steps)
        for number, name in enumerate(("ball", "bar"))
        for steps in range(3)
    ]


def add_pictures(book: PictureBook, case: LoadedCase) -> list[Row]:
    rows = []
    for target in case.targets:
        row = a_row("volume", target.structure.name)
        rows.append(row)
        box = Box(4, 5, 6, 15, 16)
        book.add(case, StructureResult((row,), target.reference, target, (box,)), Window(-100, 200))
    return rows


def test_every_structure_has_a_picture_and_they_make_a_sheet(a_case: LoadedCase, tmp_path: Path) -> None:
    book = PictureBook(tmp_path / "pictures")
    rows = add_pictures(book, a_case)
    assert has_more_than_one_colour(book.path("volume", "ball"))
    assert book.write_contact_sheet(tmp_path / "sheet.png", rows)
    assert has_more_than_one_colour(tmp_path / "sheet.png")


def test_without_pictures_there_is_no_sheet(tmp_path: Path) -> None:
    assert not PictureBook(tmp_path / "none").write_contact_sheet(tmp_path / "sheet.png", corrected_rows())
    assert not (tmp_path / "sheet.png").exists()


def test_names_make_safe_file_names(tmp_path: Path) -> None:
    path = PictureBook(tmp_path).path("a/b", "colon (part)")
    assert path == tmp_path / "a_b--colon_part_.png"


@pytest.mark.parametrize(
    ("count", "expected"),
    [
        (1, {"best": [0]}),
        (2, {"best": [0], "worst": [1]}),
        (6, {"best": [0, 1, 2], "worst": [3, 4, 5]}),
        (7, {"best": [0, 1, 2], "median": [3], "worst": [4, 5, 6]}),
        (11, {"best": [0, 1, 2], "median": [4, 5, 6], "worst": [8, 9, 10]}),
    ],
)
def test_best_median_and_worst_share_no_structure(count: int, expected: dict[str, list[int]]) -> None:
    rows = [a_row("a", str(n), dice=1 - n / 20) for n in range(count)]
    chosen = best_median_worst(rows[::-1], 3)
    assert {title: [int(row.structure) for row in members] for title, members in chosen.items()} == expected


def test_plots_are_drawn(tmp_path: Path) -> None:
    rows = [*corrected_rows(), a_row("volume", "ball", "ellipsoid", 0.4), a_row("volume", "bar", "region grower", 0.6)]
    plot_groups(tmp_path / "groups.png", group_rows(rows))
    plot_corrections(tmp_path / "corrections.png", rows, summarise("all", rows))
    assert has_more_than_one_colour(tmp_path / "groups.png")
    assert has_more_than_one_colour(tmp_path / "corrections.png")


def test_without_a_volume_there_is_nothing_to_plot(tmp_path: Path) -> None:
    absent: dict[str, Any] = {"dice": None}
    rows = [a_row("slice", "disc", **absent)]
    plot_groups(tmp_path / "groups.png", group_rows(rows))
    plot_corrections(tmp_path / "corrections.png", rows, summarise("all", rows))
    assert not list(tmp_path.iterdir())
