"""The one place where the panel meets time: a timer that lets the logic apply what the engine has answered."""

from __future__ import annotations

import time
from collections.abc import Callable

import qt

__all__ = ["EngineTimer"]

_INTERVAL_MS = 20
_YIELD_S = 0.001


class EngineTimer:
    """Calls `work` every 20 ms while it runs. `work` must return within a few milliseconds."""

    def __init__(self, work: Callable[[], None]) -> None:
        self._work = work
        self._timer = qt.QTimer()
        self._timer.interval = _INTERVAL_MS
        self._timer.connect("timeout()", self._tick)

    def start(self) -> None:
        self._timer.start()

    def stop(self) -> None:
        self._timer.stop()

    def _tick(self) -> None:
        # Slicer's event loop keeps Python's lock while it is idle; the threads that read the engine's answers only get on
        # while Python sleeps.
        time.sleep(_YIELD_S)
        self._work()
