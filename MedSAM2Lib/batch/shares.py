"""What each of several processes is told of its share of this machine."""

from __future__ import annotations

import os
from collections.abc import Sequence

__all__ = ["VISIBLE_GPUS", "processor_count", "shares"]

# What PyTorch, NumPy and ITK ask, each once, when they are loaded.
_THREADS = ("OMP_NUM_THREADS", "ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS")
VISIBLE_GPUS = "CUDA_VISIBLE_DEVICES"


def processor_count() -> int:
    """The cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def shares(jobs: int, processors: int, gpus: Sequence[str]) -> list[dict[str, str]]:
    """The environment of each of so many processes: an equal share of the cores, and one of the GPUs, if there are any.

    Threads that a person has set stay as they are.

    gpus  as CUDA_VISIBLE_DEVICES names them
    """
    threads = str(max(1, processors // jobs))
    of_all = {name: threads for name in _THREADS if name not in os.environ}
    return [{**of_all, **({VISIBLE_GPUS: gpus[place % len(gpus)]} if gpus else {})} for place in range(jobs)]
