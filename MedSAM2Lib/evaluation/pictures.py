"""A picture of every structure, and a contact sheet of the best, the middle and the worst."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from MedSAM2Lib.atomic import make_folder
from MedSAM2Lib.evaluation.cases import LoadedCase
from MedSAM2Lib.evaluation.rows import MODEL, Row
from MedSAM2Lib.evaluation.run import StructureResult
from MedSAM2Lib.intensity import Window
from MedSAM2Lib.preview import contact_sheet, write_picture
from MedSAM2Lib.volume_io.segments import Segment

if TYPE_CHECKING:
    from PIL.Image import Image as Picture

__all__ = ["PictureBook", "best_median_worst"]

_SLICES = 5  # of a structure, and those with a prompt
_REFERENCE_COLOR, _MASK_COLOR = (0.30, 0.85, 0.35), (0.95, 0.30, 0.25)
_PER_COLUMN = 3  # structures in each column of the contact sheet
_COLUMN_WIDTH, _MOST_HEIGHT, _GAP, _TITLE_HEIGHT, _TITLE_SIZE = 720, 560, 12, 44, 24  # pixels
_BACKGROUND, _WORDS = (24, 24, 28), (230, 230, 230)


class PictureBook:
    """Pictures in a folder, which is made when the first one comes; one file per structure, a later one in its place."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def path(self, case: str, structure: str) -> Path:
        return self._folder / f"{_file_name(case)}--{_file_name(structure)}.png"

    def add(self, loaded: LoadedCase, result: StructureResult, window: Window) -> None:
        """The mask after the last correction over the reference, on a few slices, with the prompts."""
        make_folder(self._folder)
        last = result.rows[-1]
        segments = [
            Segment("reference", result.target.reference, _REFERENCE_COLOR),
            Segment(last.structure, result.mask, _MASK_COLOR),
        ]
        sheet = contact_sheet(
            loaded.volume,
            "k",
            window,
            segments,
            [(last.structure, prompt) for prompt in result.prompts],
            f"{last.case}   {_scores(last)}",
            most_slices=_SLICES,
        )
        write_picture(self.path(last.case, last.structure), sheet)

    def write_contact_sheet(self, path: Path, rows: Sequence[Row]) -> bool:
        """Three columns: best, median, worst in 3D (on the slice, where there is no volume). False where no structure has a
        picture."""
        from PIL import Image, ImageDraw, ImageFont

        pictured = [row for row in _last_rows(rows) if self.path(row.case, row.structure).exists()]
        pictured = [row for row in pictured if row.dice is not None] or pictured
        if not pictured:
            return False
        columns = {title: self._column(chosen) for title, chosen in best_median_worst(pictured, _PER_COLUMN).items()}
        width = len(columns) * (_COLUMN_WIDTH + _GAP) + _GAP
        height = max(column.height for column in columns.values()) + _TITLE_HEIGHT
        sheet = Image.new("RGB", (width, height), _BACKGROUND)
        draw = ImageDraw.Draw(sheet)
        for place, (title, column) in enumerate(columns.items()):
            left = _GAP + place * (_COLUMN_WIDTH + _GAP)
            draw.text((left, _GAP // 2), title, fill=_WORDS, font=ImageFont.load_default(_TITLE_SIZE))
            sheet.paste(column, (left, _TITLE_HEIGHT))
        write_picture(path, sheet)
        return True

    def _column(self, rows: Sequence[Row]) -> Picture:
        from PIL import Image

        pictures = [_fitted(self.path(row.case, row.structure)) for row in rows]
        column = Image.new("RGB", (_COLUMN_WIDTH, sum(one.height + _GAP for one in pictures)), _BACKGROUND)
        top = 0
        for one in pictures:
            column.paste(one, (0, top))
            top += one.height + _GAP
        return column


def best_median_worst(rows: Sequence[Row], count: int) -> dict[str, list[Row]]:
    """`count` rows each by title: the best first, those around the median, the worst last. None is in two columns: few
    rows fill the best and the worst first."""
    ordered = sorted(rows, key=_quality, reverse=True)
    best = ordered[: min(count, -(-len(ordered) // 2))]
    worst = ordered[max(len(ordered) - count, len(best)) :]
    between = ordered[len(best) : len(ordered) - len(worst)]
    first = max((len(between) - count) // 2, 0)
    chosen = {"best": best, "median": between[first : first + count], "worst": worst}
    return {title: members for title, members in chosen.items() if members}


def _last_rows(rows: Sequence[Row]) -> list[Row]:
    """Of each structure the model's row after most corrections, which is what its picture shows."""
    last: dict[tuple[str, str], Row] = {}
    for row in sorted((row for row in rows if row.method == MODEL), key=lambda row: row.corrections):
        last[row.case, row.structure] = row
    return list(last.values())


def _quality(row: Row) -> float:
    return row.slice_dice if row.dice is None else row.dice


def _scores(row: Row) -> str:
    corrected = f" after {row.corrections} corrections" if row.corrections else ""
    in_3d = "" if row.dice is None else f"3D Dice {row.dice:.2f}   "
    return f"{in_3d}slice Dice {row.slice_dice:.2f}{corrected}"


def _fitted(path: Path) -> Picture:
    from PIL import Image

    with Image.open(path) as picture:
        scale = min(_COLUMN_WIDTH / picture.width, _MOST_HEIGHT / picture.height)
        size = round(picture.width * scale), round(picture.height * scale)
        return picture.convert("RGB").resize(size, Image.Resampling.LANCZOS)


def _file_name(text: str) -> str:
    return re.sub(r"[^\w.-]+", "_", text)
