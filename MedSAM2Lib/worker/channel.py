"""What the threads of the engine's process share: the pipe to the client, what was cancelled, whether the work moves on."""

from __future__ import annotations

import contextlib
import os
import sys
import threading
import time
from collections.abc import Sequence
from typing import IO, Any, NoReturn

import numpy.typing as npt

from MedSAM2Lib.worker.protocol import Message, encode

__all__ = ["PARENT_WENT", "Channel", "leave"]

PARENT_WENT = 0  # the exit status: there is nothing wrong with that


class Channel:
    """What the working thread and the heartbeat share: where answers go, and what was cancelled."""

    def __init__(self, pipe: IO[bytes]) -> None:
        self._pipe = pipe
        self._writing = threading.Lock()
        self._noting = threading.Lock()
        self._cancelled: set[int] = set()
        self._busy: int | None = None
        self._step_began = time.monotonic()

    def send(self, header: dict[str, Any], arrays: Sequence[npt.NDArray[Any]] = ()) -> None:
        """Writes a message whole. A broken pipe ends the process: nobody is there any more."""
        pieces = encode(Message(header, arrays))
        try:
            with self._writing:
                for piece in pieces:
                    self._pipe.write(piece)
                self._pipe.flush()
        except OSError:
            leave(PARENT_WENT)

    def cancel(self, request: int) -> None:
        with self._noting:
            self._cancelled.add(request)

    def is_cancelled(self, request: int) -> bool:
        return request in self._cancelled

    def begin(self, request: int) -> None:
        self._busy = request
        self.step()

    def step(self) -> None:
        """Notes that the work moves on: what hangs is told from what is slow by the time since the last step."""
        self._step_began = time.monotonic()

    def end(self, request: int) -> None:
        """Requests are answered in their order: what was cancelled too late, or twice, is forgotten."""
        self._busy = None
        with self._noting:
            self._cancelled = {later for later in self._cancelled if later > request}

    def beat(self) -> None:
        seconds = time.monotonic() - self._step_began if self._busy is not None else 0.0
        self.send({"type": "heartbeat", "busy": self._busy, "step_s": round(seconds, 1)})


def leave(status: int) -> NoReturn:
    """Ends the process from any thread, at once: it holds nothing that must be put away."""
    with contextlib.suppress(OSError, ValueError):
        sys.stderr.flush()
    os._exit(status)
