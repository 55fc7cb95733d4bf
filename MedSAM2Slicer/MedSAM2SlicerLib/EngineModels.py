"""Fetching the weights of a model while the panel stays usable."""

from __future__ import annotations

import threading
from pathlib import Path

from MedSAM2Lib.checkpoints.download import download
from MedSAM2Lib.checkpoints.registry import Model
from MedSAM2Lib.errors import DownloadCancelledError, MedSAM2Error

__all__ = ["EngineModels"]


class EngineModels:
    """One download at a time, in a thread of its own; the panel asks from its timer how far it is.

    models.start(model)
    models.progress          # (bytes that are here, of how many)
    models.takeOutcome()     # once, when it has ended: the file, the error, or None where it was cancelled
    """

    def __init__(self) -> None:
        self._thread: threading.Thread | None = None
        self._cancelled = threading.Event()
        self._outcome: Path | MedSAM2Error | None = None
        self.progress: tuple[int, int | None] = (0, None)

    @property
    def isRunning(self) -> bool:
        return self._thread is not None

    def start(self, model: Model) -> None:
        self._cancelled.clear()
        self._outcome, self.progress = None, (0, model.bytes)
        self._thread = threading.Thread(target=self._work, args=(model,), name="MedSAM2 download", daemon=True)
        self._thread.start()

    def cancel(self) -> None:
        """What has arrived is kept; the next download of the model goes on from there."""
        self._cancelled.set()

    def takeOutcome(self) -> tuple[Path | MedSAM2Error | None] | None:
        """None while it goes on, or where there was nothing to take."""
        if self._thread is None or self._thread.is_alive():
            return None
        self._thread = None
        return (self._outcome,)

    def _work(self, model: Model) -> None:
        try:
            self._outcome = download(model, progress=self._note, cancelled=self._cancelled.is_set)
        except DownloadCancelledError:
            self._outcome = None
        except MedSAM2Error as error:
            self._outcome = error

    def _note(self, done: int, total: int | None) -> None:
        self.progress = done, total
