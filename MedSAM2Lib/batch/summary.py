"""The table of what became of the cases, as CSV."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from MedSAM2Lib.atomic import atomic_path
from MedSAM2Lib.batch.records import CaseResult

__all__ = ["status_of", "write_summary"]

_COLUMNS = ("case", "status", "seconds", "object", "volume_ml", "confidence", "message")


def status_of(result: CaseResult | None) -> str:
    """`open` is a case that nobody got to."""
    if result is None:
        return "open"
    return "done" if result.error is None else "failed"


def write_summary(path: Path, cases: Sequence[str], results: Mapping[str, CaseResult]) -> None:
    """A line for each object of a case that is done, one line for any other case. Raises OutputError."""
    with atomic_path(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream)
        writer.writerow(_COLUMNS)
        for case in cases:
            writer.writerows(_lines(case, results.get(case)))


def _lines(case: str, result: CaseResult | None) -> Iterator[tuple[object, ...]]:
    if result is None:
        yield case, status_of(result), "", "", "", "", ""
        return
    seconds = f"{result.seconds:.2f}"
    message = " ".join("; ".join([*result.warnings, *([result.error] if result.error else [])]).split())
    if not result.objects:
        yield case, status_of(result), seconds, "", "", "", message
    for one in result.objects:
        yield case, status_of(result), seconds, one.name, f"{one.volume_ml:.6g}", f"{one.confidence:.4f}", message
