"""What a run writes down while it goes: `log.csv`, and the same for TensorBoard where it is wanted and installed."""

from __future__ import annotations

import csv
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from MedSAM2Lib.atomic import atomic_path
from MedSAM2Lib.errors import OutputError

__all__ = ["RunLog"]

_COLUMNS = (
    "step", "loss", "learning_rate", "slices_per_s", "prompted_dice", "tracked_dice", "object_accuracy", "draft_dice",
)  # fmt: skip


class RunLog:
    """Rows by step. What an interrupted run wrote after the state that it goes on from is taken back.

    tensorboard  also write event files for TensorBoard into `folder`/tensorboard; without the package `tensorboard` that
                 is reported, and the CSV goes on alone
    """

    def __init__(self, folder: Path, first_step: int, *, tensorboard: bool, report: Callable[[str], None]) -> None:
        self._path = folder / "log.csv"
        self._take_back(first_step)
        self._events = _event_writer(folder / "tensorboard", first_step, report) if tensorboard else None

    def add(self, row: Mapping[str, float]) -> None:
        """Appends a row; columns that it lacks stay empty, so that one file holds losses and validations."""
        new = not self._path.exists()
        try:
            with self._path.open("a", newline="") as file:
                writer = csv.DictWriter(file, _COLUMNS)
                if new:
                    writer.writeheader()
                writer.writerow(row)
        except OSError as error:
            raise OutputError(f"{self._path} cannot be written ({error.strerror}); free the space, and run again.") from error
        if self._events is not None:
            for name, value in row.items():
                if name != "step":
                    self._events.add_scalar(name, value, int(row["step"]))
            self._events.flush()

    def close(self) -> None:
        if self._events is not None:
            self._events.close()

    def _take_back(self, first_step: int) -> None:
        if not self._path.exists():
            return
        with self._path.open(newline="") as file:
            header, *rows = list(csv.reader(file)) or [list(_COLUMNS)]
        kept = [row for row in rows if len(row) == len(header) and int(row[0]) <= first_step]
        if len(kept) < len(rows):
            with atomic_path(self._path) as temporary, temporary.open("w", newline="") as file:
                csv.writer(file).writerows([header, *kept])


def _event_writer(folder: Path, first_step: int, report: Callable[[str], None]) -> Any:
    """A SummaryWriter; None where the package is missing."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        report("no logs for TensorBoard: they need the package tensorboard (pip install tensorboard); log.csv has the same")
        return None
    return SummaryWriter(str(folder), purge_step=first_step + 1)
