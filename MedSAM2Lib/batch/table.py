"""The table of cases: a CSV file, one line per case. docs/batch.md is for who writes it."""

from __future__ import annotations

import csv
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from MedSAM2Lib.errors import OptionError, UsageError

__all__ = ["CaseLine", "read_table"]

_REQUIRED = ("case", "image")
_COLUMNS = (*_REQUIRED, "prompts", "box", "series")
_BETWEEN_BOXES = ";"
# Of a case's files: what one system or another does not take, or takes for a folder.
_NOT_IN_NAMES = frozenset('/\\:*?"<>|')
_LONGEST_NAME = 120  # bytes: room for an ending, and for the temporary name that a file has first


@dataclass(frozen=True)
class CaseLine:
    """One line. What is left blank is None; whether the files are there is not known yet."""

    name: str
    image: Path | None
    prompts: Path | None
    boxes: tuple[str, ...]  # each as `medsam2 segment --box` takes it
    series: str | None


def read_table(path: Path) -> list[CaseLine]:
    """The cases of a CSV file; their paths are relative to its folder.

    Raises OptionError where there is no such file, UsageError where the table as a whole is not as expected: columns,
    and names, which become the names of files.
    """
    rows = _rows(path)
    cases = [_case(row, f"{path}, line {number}", path.absolute().parent) for number, row in rows]
    _check_names_differ([case.name for case in cases], path)
    return cases


def _rows(path: Path) -> list[tuple[int, dict[str, str]]]:
    """Number of the line (where it ends), and the text of each column, without the spaces around it."""
    if not path.is_file():
        raise OptionError(f"{path} does not exist; give a CSV file with the columns {', '.join(_COLUMNS)}.")
    try:
        with path.open(newline="", encoding="utf-8-sig") as stream:
            reader = csv.reader(stream, strict=True)
            lines = [(reader.line_num, [text.strip() for text in line]) for line in reader]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UsageError(f"{path} cannot be read as CSV in UTF-8 ({error}); save it as that.") from error
    filled = [(number, line) for number, line in lines if any(line)]
    if not filled:
        raise UsageError(f"{path} is empty; its first line names the columns ({', '.join(_COLUMNS)}), each other line is a case.")
    (_, columns), *rest = filled
    _check_columns(columns, path)
    if not rest:
        raise UsageError(f"{path} has no case; write a line for each below {','.join(columns)}.")
    for number, line in rest:
        if any(line[len(columns) :]):
            raise UsageError(
                f"{path}, line {number}: expected {len(columns)} values, but {len(line)} came; a value that holds commas, as a "
                "box does, stands in double quotes."
            )
    return [(number, dict(zip(columns, line, strict=False))) for number, line in rest]


def _check_columns(columns: Sequence[str], path: Path) -> None:
    if unknown := [column for column in columns if column not in _COLUMNS]:
        raise UsageError(
            f"{path}: unknown column {unknown[0]!r}: columns are {', '.join(_COLUMNS)}, with commas between them, named in the "
            "first line."
        )
    if missing := [column for column in _REQUIRED if column not in columns]:
        raise UsageError(f"{path} has no column {missing[0]!r}; name the columns in the first line: {', '.join(_COLUMNS)}.")
    if len(set(columns)) < len(columns):
        raise UsageError(f"{path}: each column may be there once, but the first line is {','.join(columns)}.")


def _case(row: dict[str, str], where: str, folder: Path) -> CaseLine:
    def file(column: str) -> Path | None:
        return folder / row[column] if row.get(column) else None

    name = row.get("case", "")
    _check_name(name, where)
    boxes = tuple(box.strip() for box in row.get("box", "").split(_BETWEEN_BOXES) if box.strip())
    return CaseLine(name, file("image"), file("prompts"), boxes, row.get("series") or None)


def _check_name(name: str, where: str) -> None:
    """A name must be one for a file, on any system, and stay in the folder of the results."""
    if not name:
        raise UsageError(f"{where}: the case has no name; write one in the column 'case'.")
    fit = name.isprintable() and not _NOT_IN_NAMES & set(name) and name[0] != "." and name[-1] != "."
    if not fit or len(name.encode()) > _LONGEST_NAME:
        raise UsageError(
            f"{where}: a case's name becomes the name of its files: at most {_LONGEST_NAME} printable characters, none of "
            f"{' '.join(sorted(_NOT_IN_NAMES))}, no dot at either end; but {name[:_LONGEST_NAME]!r} came."
        )


def _check_names_differ(names: Sequence[str], path: Path) -> None:
    """Also where a file system tells no capitals from small letters, or writes an accent apart from its letter."""
    seen: dict[str, str] = {}
    for name in names:
        key = unicodedata.normalize("NFC", name).casefold()
        if key in seen:
            raise UsageError(f"{path}: names of cases must differ, but {seen[key]!r} and {name!r} do not; rename one.")
        seen[key] = name
