"""How fast slices come: over the last seconds, so that neither a start nor a stall is mistaken for the pace."""

from __future__ import annotations

import time
from collections import deque

__all__ = ["Speed"]

_WINDOW_S = 5.0  # that the pace is taken over
_LEAST_S = 1.0  # before which there is none: slices that waited arrive at once


class Speed:
    """note(done) with every progress; a count that falls begins anew."""

    def __init__(self) -> None:
        self._seen: deque[tuple[float, int]] = deque()  # (s, slices done)

    def note(self, done: int, now: float | None = None) -> None:
        """`now`: seconds of time.monotonic(); None: now."""
        now = time.monotonic() if now is None else now
        if self._seen and done < self._seen[-1][1]:
            self._seen.clear()
        self._seen.append((now, done))
        while len(self._seen) > 2 and now - self._seen[1][0] >= _WINDOW_S:
            self._seen.popleft()

    @property
    def perSecond(self) -> float:
        """0 as long as it is not known."""
        if not self._seen:
            return 0.0
        (began, first), (now, done) = self._seen[0], self._seen[-1]
        return (done - first) / (now - began) if now - began >= _LEAST_S else 0.0
