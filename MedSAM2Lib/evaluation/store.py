"""The results of a run so far, kept case by case, so that an interrupted run goes on where it stopped.

A folder holds `run.json` (what was asked for) and `results.jsonl` (one line per finished case). A line is written whole
and flushed to the disk before the next case begins; a half-written last line, as a full disk leaves it, is cut off when
the run goes on.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from MedSAM2Lib.atomic import atomic_path, check_writable, make_folder
from MedSAM2Lib.errors import OptionError, OutputError
from MedSAM2Lib.evaluation.manifest import Case
from MedSAM2Lib.evaluation.rows import Row, from_json, to_json

__all__ = ["CaseResult", "ResultStore", "keep_request"]

_ASKED, _RESULTS = "run.json", "results.jsonl"


@dataclass(frozen=True)
class CaseResult:
    """What became of one case. A case that could not be read has no rows and a problem."""

    case: str
    digest: str  # of the manifest's entry
    rows: tuple[Row, ...]
    problems: tuple[str, ...]


class ResultStore:
    """Results in a folder, which is made where it is missing.

    asked  everything that the numbers depend on (model, prompts, options), as JSON

    Raises OptionError where the folder holds results of something else, OutputError where nothing can be written.
    """

    def __init__(self, folder: Path, asked: Mapping[str, Any]) -> None:
        self._folder = folder
        make_folder(folder)
        if (folder / _RESULTS).exists() and not (folder / _ASKED).exists():
            raise OptionError(f"{folder} has {_RESULTS} but no {_ASKED}; choose another folder, or empty this one.")
        keep_request(folder / _ASKED, asked)
        self._results = self._read_results()

    def finished(self, case: Case) -> CaseResult | None:
        """The result of a case, unless it is new, was changed in the manifest, or had problems then."""
        found = self._results.get(case.id)
        return found if found is not None and found.digest == case.digest and not found.problems else None

    def add(self, result: CaseResult) -> None:
        """Keeps a finished case. Raises OutputError; what was kept before stays."""
        line = json.dumps(_to_line(result), ensure_ascii=False, allow_nan=False)
        try:
            with (self._folder / _RESULTS).open("a", encoding="utf-8") as stream:
                stream.write(line + "\n")
                stream.flush()
                os.fsync(stream.fileno())
        except OSError as error:
            raise OutputError(
                f"{self._folder / _RESULTS} cannot be written: {error.strerror}. The {len(self._results)} cases finished so far "
                "are kept; free the space and run the same command again."
            ) from error
        self._results[result.case] = result

    def results(self, cases: Sequence[Case]) -> list[CaseResult]:
        """Of those cases that are finished or had problems, in the order given."""
        return [self._results[case.id] for case in cases if case.id in self._results]

    def _read_results(self) -> dict[str, CaseResult]:
        """A case that occurs twice counts as it was last."""
        path = self._folder / _RESULTS
        if not path.exists():
            return {}
        content = path.read_bytes()
        whole = content[: content.rfind(b"\n") + 1]
        try:
            results = [_from_line(json.loads(line)) for line in whole.decode("utf-8").splitlines()]
        except (ValueError, KeyError, TypeError) as error:
            raise OptionError(f"{path} is damaged ({error}); choose another folder, or remove that file.") from error
        if len(whole) < len(content):
            os.truncate(path, len(whole))
        return {result.case: result for result in results}


def keep_request(path: Path, asked: Mapping[str, Any]) -> None:
    """Writes down what was asked for; where that stands already, it must be the same.

    Raises OptionError where it is something else, OutputError where nothing can be written.
    """
    check_writable(path)
    if path.exists():
        _check_same(path, asked)
    else:
        with atomic_path(path) as temporary:
            temporary.write_text(json.dumps(asked, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def _check_same(path: Path, asked: Mapping[str, Any]) -> None:
    try:
        before = json.loads(path.read_text(encoding="utf-8"))
        now = json.loads(json.dumps(asked))  # tuples are lists there
        differing = [key for key in {**before, **now} if before.get(key) != now.get(key)]
    except (OSError, ValueError, TypeError) as error:
        raise OptionError(f"{path} does not say what was asked for ({error}); choose another folder.") from error
    if differing:
        changes = "; ".join(f"{key} was {before.get(key)!r}, now {now.get(key)!r}" for key in sorted(differing))
        raise OptionError(
            f"{path.parent} holds results of another run ({changes}); choose another folder, or ask for the same to go on."
        )


def _to_line(result: CaseResult) -> dict[str, Any]:
    rows = [to_json(row) for row in result.rows]
    return {"case": result.case, "digest": result.digest, "rows": rows, "problems": list(result.problems)}


def _from_line(content: Mapping[str, Any]) -> CaseResult:
    rows = tuple(from_json(row) for row in content["rows"])
    return CaseResult(content["case"], content["digest"], rows, tuple(content["problems"]))
