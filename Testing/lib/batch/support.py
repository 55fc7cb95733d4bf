"""Work for processes that costs nothing. No torch here, so that they start quickly."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path


def double(number: int) -> int:
    return 2 * number


def environment_of(name: str) -> str | None:
    time.sleep(0.3)  # so that one process does not take all the tasks
    return os.environ.get(name)


def process_id(_: object) -> int:
    return os.getpid()


def die_once(marker: Path) -> str:
    """Is killed the first time."""
    if not marker.exists():
        marker.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return "done"


def die(_: object) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def die_on_odd_numbers(number: int) -> int:
    if number % 2:
        os.kill(os.getpid(), signal.SIGKILL)
    return number


def work_until_told(folder: Path) -> None:
    """For a minute; leaves word of its process, and cleans up when it is told to leave."""
    try:
        (folder / "begun").write_text(str(os.getpid()))
        time.sleep(60)
    finally:
        (folder / "cleaned-up").touch()
