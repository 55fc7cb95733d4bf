"""What to do when memory runs out: give up speed, a step at a time, rather than the work."""

from __future__ import annotations

import gc
import logging
from collections.abc import Callable, Sequence
from typing import TypeVar

import torch

from MedSAM2Lib.errors import EngineError, is_out_of_memory
from MedSAM2Lib.inference.embeddings import Embeddings

__all__ = ["features_out_of_gpu", "relieved", "smaller_batches", "smaller_cache"]

_log = logging.getLogger(__name__)
_T = TypeVar("_T")

_SMALLEST_CACHE = 2**20  # bytes; below that nothing is gained


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


def features_out_of_gpu(embeddings: Embeddings) -> str | None:
    if embeddings.in_main_memory:
        return None
    embeddings.move_to_main_memory()
    return "image features wait in the machine's own memory now, from where they take a little longer."


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
