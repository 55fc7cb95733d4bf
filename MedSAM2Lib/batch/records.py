"""What a folder of results knows of its cases, so that a batch goes on where it stopped.

Each case has a file of its own, written by whoever works on it: without `outputs` before its first result is written,
with the SHA-256 of each result after the last. So whatever is killed in between, no result counts that is not whole, no
file is replaced that somebody else made or changed, and an answer that was lost on its way is found here.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from MedSAM2Lib.atomic import atomic_path
from MedSAM2Lib.checkpoints.store import sha256_of
from MedSAM2Lib.errors import OutputError

__all__ = ["CaseResult", "FoundObject", "Records"]

_FORMAT = "medsam2-batch-case/1"


@dataclass(frozen=True)
class FoundObject:
    """One object of a case."""

    name: str
    volume_ml: float
    confidence: float  # mean expected IoU over its slices, 0..1


@dataclass(frozen=True)
class CaseResult:
    """What became of one case. `error` is None where its results are whole."""

    case: str
    seconds: float
    objects: tuple[FoundObject, ...] = ()
    warnings: tuple[str, ...] = ()
    error: str | None = None


@dataclass(frozen=True)
class _Record:
    """What the file of a case says. `outputs`: SHA-256 of each result by its name; None while they are being made."""

    asked: str  # SHA-256 of everything that the result depends on
    result: CaseResult | None = None
    outputs: Mapping[str, str] | None = None


@dataclass(frozen=True)
class Records:
    """The records in `folder/records`, of cases whose results are in `folder`."""

    folder: Path

    def finished(self, case: str, asked: str) -> CaseResult | None:
        """The result of a case that was finished when the same was asked, and whose files are still those."""
        record = self._read(case)
        if record is None or record.outputs is None or record.asked != asked:
            return None
        whole = all(_hash_of(self.folder / name) == hashed for name, hashed in record.outputs.items())
        return record.result if whole else None

    def check_free(self, case: str, outputs: Sequence[Path]) -> None:
        """Raises OutputError where a result would take the place of a file that is not this batch's, or not any more."""
        record = self._read(case)
        if record is not None and record.outputs is None:  # a batch that was killed was about to replace them
            return
        known = {} if record is None or record.outputs is None else record.outputs
        for path in outputs:
            found = _hash_of(path)
            if found is not None and path.name not in known:
                raise OutputError(f"{path} is there already, and not from this batch; move it, or choose another folder.")
            if found is not None and found != known[path.name]:
                raise OutputError(
                    f"{path} was changed or damaged after it was made, so it is left as it is; move it elsewhere, or remove "
                    "it, and run the same command again."
                )

    def start(self, case: str, asked: str) -> None:
        """From here on the results of the case are being made. Raises OutputError."""
        self._write(case, {"asked": asked})

    def finish(self, result: CaseResult, asked: str, outputs: Sequence[Path]) -> None:
        """All results of the case are there. Raises OutputError."""
        hashes = {path.name: _hash_of(path) or "gone already" for path in outputs}
        self._write(result.case, {"asked": asked, "result": asdict(result), "outputs": hashes})

    def _path(self, case: str) -> Path:
        return self.folder / "records" / f"{case}.json"

    def _write(self, case: str, content: Mapping[str, Any]) -> None:
        with atomic_path(self._path(case)) as temporary:
            temporary.write_text(json.dumps({"format": _FORMAT, **content}, indent=1) + "\n", encoding="utf-8")

    def _read(self, case: str) -> _Record | None:
        """None where there is none, or something else in its place."""
        try:
            content = json.loads(self._path(case).read_text(encoding="utf-8"))
            if content.pop("format") != _FORMAT:
                return None
            result = _result_of(content["result"]) if "result" in content else None
            outputs = dict(content["outputs"]) if result is not None else None
            return _Record(content["asked"], result, outputs)
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return None


def _result_of(content: dict[str, Any]) -> CaseResult:
    objects = tuple(FoundObject(**one) for one in content["objects"])
    return CaseResult(**{**content, "objects": objects, "warnings": tuple(content["warnings"])})


def _hash_of(path: Path) -> str | None:
    """None where there is no such file, or none that can be read."""
    try:
        with path.open("rb") as stream:
            return sha256_of(stream)
    except OSError:
        return None
