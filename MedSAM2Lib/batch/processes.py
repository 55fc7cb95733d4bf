"""Tasks on processes of this machine, each of which keeps what it has loaded. No torch here."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import sys
from collections import deque
from collections.abc import Callable, Generator, Mapping, Sequence
from multiprocessing.connection import Connection, wait
from typing import Any, TypeVar

from MedSAM2Lib.errors import EngineError

__all__ = ["run_on_processes"]

Task = TypeVar("Task")
Result = TypeVar("Result")

_ATTEMPTS = 2  # a process may be killed for what another one does; twice is the task's own doing
_LEAVE_S = 10.0  # for a process to clean up, before it is killed
# Not `fork`: the parent may hold threads and a GPU.
_CONTEXT = multiprocessing.get_context("spawn")


def run_on_processes(
    work: Callable[[Task], Result], tasks: Sequence[Task], environments: Sequence[Mapping[str, str]]
) -> Generator[tuple[Task, Result | EngineError], None, None]:
    """Runs every task, on as many processes as there are environments; yields results as they come.

    A task whose process dies gets a second one; when that dies too, an EngineError is its result. Leaving early, by an
    error or an interruption, ends the processes: what they were at raises SystemExit there, so that it can clean up.

    work          a function that can be imported; it must not raise
    environments  what is added to the environment of each process, before it loads anything
    """
    processes = [_Process(environment) for environment in environments[: len(tasks)]]
    idle, busy = list(processes), dict[Any, tuple[_Process, Task, int]]()
    waiting = deque((task, 1) for task in tasks)
    try:
        while waiting or busy:
            while waiting and idle:
                process, (task, attempt) = idle.pop(), waiting.popleft()
                process.give(work, task)
                busy[process.connection] = (process, task, attempt)
            for connection in wait(list(busy)):
                process, task, attempt = busy.pop(connection)
                idle.append(process)
                try:
                    yield task, process.result()
                except _DiedError as death:
                    process.start()
                    if attempt < _ATTEMPTS:
                        waiting.append((task, attempt + 1))
                    else:
                        yield task, EngineError(str(death))
    finally:
        for process in processes:
            process.terminate()
        for process in processes:
            process.end()


class _DiedError(Exception):
    """A process ended in the middle of its task."""


class _Process:
    """A process and the connection to it."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        self._environment = environment
        self.start()

    def start(self) -> None:
        """Starts it, also in the place of one that died."""
        self.connection, theirs = _CONTEXT.Pipe()
        self._process = _CONTEXT.Process(target=_serve, args=(theirs, dict(self._environment)), daemon=True)
        self._process.start()
        theirs.close()

    def give(self, work: Callable[[Task], Result], task: Task) -> None:
        with contextlib.suppress(OSError):  # it died while it had nothing to do: `result` will say so
            self.connection.send((work, task))

    def result(self) -> Any:
        """What came of the task. Raises _DiedError."""
        try:
            return self.connection.recv()
        except (EOFError, OSError) as error:
            self.end()
            raise _DiedError(
                f"The process that worked on it died ({_told(self._process.exitcode)}), and another one before; if memory ran "
                "out, take fewer --jobs, a smaller --model, or a crop of the image."
            ) from error

    def terminate(self) -> None:
        self._process.terminate()

    def end(self) -> None:
        """Returns when the process is gone."""
        self._process.join(_LEAVE_S)
        self._process.kill()
        self._process.join()
        self.connection.close()


def _told(exit_code: int | None) -> str:
    if exit_code is not None and exit_code < 0:
        with contextlib.suppress(ValueError):
            return signal.Signals(-exit_code).name
    return f"exit status {exit_code}"


def _serve(connection: Connection, environment: Mapping[str, str]) -> None:
    """The life of a process: tasks in, results out, until the other end closes. What it runs is loaded with the first task."""
    os.environ.update(environment)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches every process of a terminal; the parent decides
    signal.signal(signal.SIGTERM, _leave)
    with contextlib.suppress(EOFError, OSError):
        while True:
            work, task = connection.recv()
            connection.send(work(task))


def _leave(*_: object) -> None:
    sys.exit(0)
