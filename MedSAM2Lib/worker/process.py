"""A running engine as its client sees it: messages go in and come out through queues, so nothing here blocks the caller."""

from __future__ import annotations

import contextlib
import os
import queue
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from MedSAM2Lib.errors import EngineError, ProtocolError
from MedSAM2Lib.worker.protocol import DamagedMessageError, Message, encode, read_message

__all__ = ["EngineProcess", "Gone", "clean_environment", "default_command"]

_GREETING_BYTES = 2**16  # that a remote shell may write before the engine's first message
_LOG_LINES = 40  # of the engine's standard error that are kept for a report
_LEAVE_S = 2.0  # that an engine gets to end by itself
# What a host application (3D Slicer and its launcher) sets for its own Python, and what breaks any other.
_FOREIGN = ("LD_LIBRARY_PATH", "LD_PRELOAD", "DYLD_LIBRARY_PATH", "DYLD_INSERT_LIBRARIES", "DYLD_FRAMEWORK_PATH")


def default_command() -> list[str]:
    """This Python, this package."""
    return [sys.executable, "-m", "MedSAM2Lib", "worker"]


def clean_environment(extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """This process's environment without what is meant for its own Python and libraries; `extra` is added as it is.

    A source tree or a Slicer module folder is put on PYTHONPATH, so that any Python finds this package; the packages
    beside an installed one may be of another Python, so such a folder is not.
    """
    kept = {name: value for name, value in os.environ.items() if name not in _FOREIGN and not name.startswith("PYTHON")}
    folder = Path(__file__).resolve().parents[2]
    if folder.name not in ("site-packages", "dist-packages"):
        kept["PYTHONPATH"] = str(folder)
    return {**kept, **(extra or {})}


@dataclass(frozen=True)
class Gone:
    """The last thing that comes out of an engine's queue."""

    reason: str
    exit_status: int | None  # as subprocess has it: minus the signal's number where one ended it
    log: tuple[str, ...]  # the last lines of its standard error


class EngineProcess:
    """Starts a command whose standard input and output speak the protocol. Raises EngineError where it cannot be started.

    received    what came out of the engine, in order, a Gone at the end
    last_heard  time.monotonic() of the last sign of life
    """

    def __init__(self, command: Sequence[str], environment: Mapping[str, str]) -> None:
        try:
            self._process = subprocess.Popen(
                list(command),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                env=dict(environment),
                creationflags=getattr(subprocess, "CREATE_NO_WINDOW", 0),  # Windows would show a terminal
            )
        except (OSError, ValueError) as error:
            raise EngineError(
                f"The engine cannot be started with {' '.join(command)!r} ({error}); check the command in the settings."
            ) from error
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        assert self._process.stderr is not None
        self.received: queue.SimpleQueue[Message | Gone] = queue.SimpleQueue()
        self.last_heard = time.monotonic()
        self.spoke = False
        self._outgoing: queue.SimpleQueue[Message | None] = queue.SimpleQueue()
        self._log: deque[str] = deque(maxlen=_LOG_LINES)
        self._killed_because: str | None = None
        self._logger = _thread("engine-log", self._read_log, self._process.stderr)
        self._reader = _thread("engine-reader", self._read, self._process.stdout)
        self._writer = _thread("engine-writer", self._write, self._process.stdin)

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def is_given_up(self) -> bool:
        """Whether it was killed: what it had still to say is not to be believed."""
        return self._killed_because is not None

    def send(self, message: Message) -> None:
        """Queues a message; its arrays must not change until it was sent. After the engine's end it goes nowhere."""
        self._outgoing.put(message)

    def kill(self, reason: str) -> None:
        """Ends an engine that does not answer; `reason` is what its Gone says."""
        self._killed_because = reason
        self._outgoing.put(None)  # a wrapper is killed, what it started sees its standard input end
        self._process.kill()

    def close(self) -> None:
        """Ends the engine: politely, by closing its standard input, and by force where that does not help."""
        self._outgoing.put(None)
        try:
            self._process.wait(_LEAVE_S)
        except subprocess.TimeoutExpired:
            self.kill("it did not end when it was asked to")
        for thread in (self._reader, self._writer, self._logger):
            thread.join(_LEAVE_S)

    # ── threads ───────────────────────────────────────────────────────────────────────────────────────────────────

    def _read(self, pipe: IO[bytes]) -> None:
        reason = None
        with pipe:
            try:
                self._receive(pipe)
            except ProtocolError as error:
                reason = str(error)
            except Exception as error:  # a bug here must not look like an engine that goes on
                reason = f"its messages could not be read ({type(error).__name__}: {error})"
        # Whatever it does now, nobody listens.
        try:
            self._process.wait(_LEAVE_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
        status = self._process.wait()
        self._outgoing.put(None)
        self._logger.join(_LEAVE_S)
        log = tuple(self._log)
        self.received.put(Gone(self._killed_because or reason or _ended_with(status, log), status, log))

    def _receive(self, pipe: IO[bytes]) -> None:
        skip = _GREETING_BYTES
        while True:
            try:
                message = read_message(pipe, skip=skip)
            except DamagedMessageError as error:
                self._log.append(f"(a message of the engine is lost: {error})")
                continue
            if message is None:
                return
            self.last_heard, self.spoke, skip = time.monotonic(), True, 0
            if message.header["type"] == "fatal":
                raise ProtocolError(f"it did not understand a message: {message.header.get('message')}")
            self.received.put(message)

    def _write(self, pipe: IO[bytes]) -> None:
        # The engine has gone where this fails, which the reader reports; closing a pipe flushes it once more.
        with contextlib.suppress(OSError), pipe:
            while (message := self._outgoing.get()) is not None:
                try:
                    pieces = encode(message)
                except ProtocolError as error:
                    refused = {"type": "failed", "id": message.header.get("id"), "error": "ProtocolError", "message": str(error)}
                    self.received.put(Message(refused))
                    continue
                for piece in pieces:
                    pipe.write(piece)
                pipe.flush()

    def _read_log(self, pipe: IO[bytes]) -> None:
        with pipe:
            for line in pipe:
                self._log.append(line.decode(errors="replace").rstrip())


def _thread(name: str, work: object, pipe: IO[bytes]) -> threading.Thread:
    thread = threading.Thread(target=work, args=(pipe,), name=name, daemon=True)  # type: ignore[arg-type]
    thread.start()
    return thread


def _ended_with(status: int, log: tuple[str, ...]) -> str:
    if status < 0:
        return f"it was ended by signal {-status}"
    return f"it ended with status {status}{f' ({log[-1]})' if log else ''}"
