"""The most main memory that segmenting a large volume takes, in a process of its own."""

from __future__ import annotations

import multiprocessing
import re
import sys
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import torch

from MedSAM2Lib.benchmark.subject import object_boxes, random_network, random_volume
from MedSAM2Lib.checkpoints.loading import LoadedModel
from MedSAM2Lib.inference.session import Session, SessionOptions
from MedSAM2Lib.network.config import network_config

__all__ = ["PeakMemory", "measure_peak_memory"]

_GIB = 2**30


@dataclass(frozen=True)
class PeakMemory:
    rows: int
    columns: int
    slices: int
    before_gib: float  # with Python, torch and the weights loaded, before the volume is there
    peak_gib: float


def measure_peak_memory(network_name: str, size: int, slices: int, threads: int) -> PeakMemory | None:
    """One object from a box through a whole volume of size x size x slices, with the session's default feature cache.

    Whole slices, without an early stop. On the CPU, with random weights: the memory does not depend on them. None where
    the system does not tell (Windows).
    """
    spawn = multiprocessing.get_context("spawn")  # a fork would begin with the memory of this process
    with ProcessPoolExecutor(max_workers=1, mp_context=spawn) as pool:
        return pool.submit(_segment_and_measure, network_name, size, slices, threads).result()


def _segment_and_measure(network_name: str, size: int, slices: int, threads: int) -> PeakMemory | None:
    torch.set_num_threads(threads)
    network = random_network(network_config(network_name, size))
    session = Session(LoadedModel(network, "random weights", Path(), "", None), SessionOptions(zoom=None, stop_after=0))
    before = _peak_bytes()
    session.set_volume(random_volume(size, slices))
    session.add_prompt("object", object_boxes(size, 1)[0])
    for _ in session.propagate():
        pass
    session.mask("object")
    peak = _peak_bytes()
    return None if before is None or peak is None else PeakMemory(size, size, slices, before / _GIB, peak / _GIB)


def _peak_bytes() -> int | None:
    """Of this process, so far."""
    status = Path("/proc/self/status")
    if status.exists():  # getrusage would count what the parent held when it started this process
        found = re.search(r"^VmHWM:\s*(\d+) kB", status.read_text(encoding="ascii", errors="replace"), re.MULTILINE)
        if found:
            return int(found[1]) * 1024
    if sys.platform == "win32":
        return None
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
