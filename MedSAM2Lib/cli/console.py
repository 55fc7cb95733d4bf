"""What a person sees while a command works: a bar on a terminal, plain lines elsewhere. On stderr; results go to stdout."""

from __future__ import annotations

import contextlib
import io
import logging
import os
import shutil
import sys
import time
from collections.abc import Iterator
from contextvars import ContextVar
from types import TracebackType
from typing import TextIO

__all__ = ["Progress", "duration", "millilitres", "silenced", "tell", "warn"]

_BAR_INTERVAL = 0.1  # seconds between two drawings of the bar
_LINES = 10  # plain lines for all of the work
_LEAST_BAR, _MOST_BAR = 10, 40  # characters between the brackets

# The warnings of `silenced`; None where what is said is shown.
_collected: ContextVar[list[str] | None] = ContextVar("collected", default=None)


def tell(text: str) -> None:
    """A line about what is going on."""
    if _collected.get() is None:
        print(text, file=sys.stderr, flush=True)


def warn(text: str) -> None:
    """Something that a person should look at, though the command goes on."""
    if (warnings := _collected.get()) is not None:
        warnings.append(text)
    else:
        tell(f"medsam2: warning: {text}")


@contextlib.contextmanager
def silenced() -> Iterator[list[str]]:
    """For the length of the block nothing is shown; yields a list that gets the warnings, the library's own as well."""
    warnings: list[str] = []
    logger, handler = logging.getLogger("MedSAM2Lib"), _Collecting(warnings)
    token = _collected.set(warnings)
    logger.addHandler(handler)
    try:
        yield warnings
    finally:
        logger.removeHandler(handler)
        _collected.reset(token)


class _Collecting(logging.Handler):
    def __init__(self, warnings: list[str]) -> None:
        super().__init__(logging.WARNING)
        self._warnings = warnings

    def emit(self, record: logging.LogRecord) -> None:
        self._warnings.append(record.getMessage())


def duration(seconds: float) -> str:
    """As a person says it: 0.4 s, 12 s, 3 min 20 s."""
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"


def millilitres(volume: float) -> str:
    """Three digits that mean something."""
    return f"{volume:.0f}" if volume >= 100 else f"{volume:.3g}"


class Progress:
    """How far a piece of work is.

        with Progress("propagating", total=120, unit="slices") as progress:
            for step in work:
                progress.update(position, count)

    `position` of `total` is how far the work is; `count` how many units were worked on, for the speed: work that is
    skipped moves the position alone. Leaving the block ends the bar's line, also when an error comes.
    """

    def __init__(self, what: str, total: int, unit: str, stream: TextIO | None = None) -> None:
        self._what, self._total, self._unit = what, total, unit
        self._stream = stream or (sys.stderr if _collected.get() is None else io.StringIO())
        self._is_terminal = self._stream.isatty() and os.environ.get("TERM") != "dumb"
        self._started = time.monotonic()
        self._position = self._count = 0
        self._drawn_at = -_BAR_INTERVAL
        self._lines_written = 0
        self._drawn_width = 0

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._is_terminal:
            if kind is None and self._total:
                self._draw_bar()
            self._stream.write("\n" if self._drawn_width else "")
        elif kind is None and self._total:
            self._write(f"{self._what}: done, {self._count} {self._unit} in {duration(self._elapsed())}\n")
        self._stream.flush()

    def update(self, position: int, count: int) -> None:
        self._position, self._count = position, count
        if self._is_terminal:
            if time.monotonic() - self._drawn_at >= _BAR_INTERVAL:
                self._draw_bar()
        elif _LINES * position // self._total > self._lines_written and position < self._total:
            self._lines_written = _LINES * position // self._total
            self._write(f"{self._what}: {self._share():.0%}, {self._figures()}\n")

    def _draw_bar(self) -> None:
        self._drawn_at = time.monotonic()
        figures = f" {self._share():4.0%} {self._figures()}"
        room = shutil.get_terminal_size().columns - len(self._what) - len(figures) - 4
        width = min(max(room, _LEAST_BAR), _MOST_BAR)
        filled = round(width * self._share())
        line = f"{self._what} [{'#' * filled}{'-' * (width - filled)}]{figures}"
        self._write(f"\r{line.ljust(self._drawn_width)}")
        self._drawn_width = len(line)

    def _figures(self) -> str:
        elapsed = self._elapsed()
        left = elapsed / self._position * (self._total - self._position) if self._position else 0.0
        return f"{self._count} {self._unit}, {self._count / elapsed:.1f}/s, {duration(left)} left"

    def _share(self) -> float:
        return self._position / self._total if self._total else 1.0

    def _elapsed(self) -> float:
        return max(time.monotonic() - self._started, 1e-6)

    def _write(self, text: str) -> None:
        self._stream.write(text)
        self._stream.flush()
