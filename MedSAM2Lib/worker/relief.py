"""What to do when memory runs out: give up speed, a step at a time, rather than the work."""

from __future__ import annotations

import gc
import logging
from collections.abc import Callable, Sequence
from typing import TypeVar

import torch

from MedSAM2Lib.errors import EngineError
from MedSAM2Lib.inference.embeddings import Embeddings

__all__ = ["is_out_of_memory", "relieved", "smaller_batches", "smaller_cache"]

_log = logging.getLogger(__name__)
_T = TypeVar("_T")

_SMALLEST_CACHE = 2**20  # bytes; below that nothing is gained
# What torch says where it raises a plain RuntimeError: its CPU allocator, MPS, cuBLAS and cuDNN.
_SAID = ("can't allocate memory", "out of memory", "CUBLAS_STATUS_ALLOC_FAILED", "CUDNN_STATUS_ALLOC_FAILED")


def is_out_of_memory(error: BaseException) -> bool:
    return isinstance(error, (MemoryError, torch.cuda.OutOfMemoryError)) or (
        isinstance(error, RuntimeError) and any(text in str(error) for text in _SAID)
    )


def relieved(work: Callable[[], _T], steps: Sequence[Callable[[], str | None]], say: Callable[[str], None]) -> _T:
    """What `work` returns; where memory runs out, room is made and it is done again.

    work   leaves nothing changed when it fails, or goes on from there when it is called again
    steps  tried in order; each makes some room and returns what it did, in words, or None where it has none left to make
    say    gets those words

    Raises EngineError when nothing more can be done.
    """
    while True:
        try:
            return work()
        except (MemoryError, RuntimeError) as error:
            if not is_out_of_memory(error):
                raise
            _log.warning("out of memory: %s", str(error).splitlines()[0] if str(error) else type(error).__name__)
        # Not in the handler: there the traceback still holds what the failed step had allocated.
        _free()
        done = next((text for step in steps if (text := step()) is not None), None)
        if done is None:
            raise EngineError(
                "There is not enough memory for this volume and model, and no room left to make; close other programs or "
                "volumes, or use a smaller model or a crop of the volume."
            )
        _free()
        say(f"Memory is full: {done}")


def smaller_batches(embeddings: Embeddings) -> str | None:
    if embeddings.batch <= 1:
        return None
    embeddings.batch //= 2
    return f"slices are now encoded {embeddings.batch} at a time."


def smaller_cache(embeddings: Embeddings) -> str | None:
    kept = embeddings.kept_bytes
    if kept <= _SMALLEST_CACHE:
        return None
    embeddings.limit(kept // 2)
    return f"features of fewer slices are kept now ({kept / 2e6:.0f} MB); going back to others takes longer."


def _free() -> None:
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
