"""How long the event loop was busy with one thing: what a person feels as a frozen window."""

from __future__ import annotations

import time

from PySide6 import QtCore

LONGEST_BLOCK_MS = 50.0  # that the panel allows itself
_INTERVAL_MS = 5


class Heartbeat:
    """A timer that should fire every 5 ms; the longest time that it could not is the longest block.

    longest_ms       by the clock: also what other programs took of the processor
    longest_work_ms  processor time of this thread between two beats: what this program itself did
    """

    def __init__(self) -> None:
        self.longest_ms = self.longest_work_ms = 0.0
        self._last = self._last_work = 0.0
        self._timer = QtCore.QTimer()
        self._timer.setInterval(_INTERVAL_MS)
        self._timer.timeout.connect(self._beat)

    def start(self) -> None:
        self._last, self._last_work = time.perf_counter(), time.thread_time()
        self._timer.start()

    def stop(self) -> str:
        """What was measured, in words."""
        self._timer.stop()
        return f"{self.longest_ms:.0f} ms by the clock, {self.longest_work_ms:.0f} ms of work"

    def _beat(self) -> None:
        now, work = time.perf_counter(), time.thread_time()
        self.longest_work_ms = max(self.longest_work_ms, 1000 * (work - self._last_work))
        self.longest_ms = max(self.longest_ms, 1000 * (now - self._last) - _INTERVAL_MS)
        self._last, self._last_work = now, work
