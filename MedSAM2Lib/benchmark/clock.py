"""The clock of a measurement."""

from __future__ import annotations

import time
from collections.abc import Callable

import torch

__all__ = ["now", "seconds"]


def now(device: torch.device) -> float:
    """Seconds since some moment, after the device has done what it was given.

    On one thread of a CPU it is processor time: what other programs take of the machine does not count.
    """
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    alone = device.type == "cpu" and torch.get_num_threads() == 1
    return time.process_time() if alone else time.perf_counter()


def seconds(work: Callable[[], object], device: torch.device) -> float:
    """That some work takes."""
    begun = now(device)
    work()
    return now(device) - begun
