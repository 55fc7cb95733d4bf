"""Conversations with the engine, one after the other, without ever waiting for it.

A command is a generator: it yields a Call, is suspended until the engine has answered, and goes on with the answer. So a
step that needs several requests reads from top to bottom, and the event loop turns meanwhile:

    def showMask(name):
        mask = yield Call("mask", volumeId, {"name": name})
        for part in parts(mask):
            display(part)
            yield None  # long work of our own: the event loop may turn here too
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Generator
from dataclasses import dataclass, field
from typing import Any, Protocol

from MedSAM2Lib.errors import EngineError, MedSAM2Error
from MedSAM2Lib.results import SliceResult
from MedSAM2Lib.worker.events import Done, EngineDied, Event, Failed, Progress, Request, SliceReady

__all__ = ["Call", "Command", "CommandQueue", "Engine"]


class Engine(Protocol):
    """What the queue needs of MedSAM2Lib.worker.client.EngineClient."""

    facts: dict[str, Any]  # of the engine that runs; empty where none does

    def request(self, method: str, volume_id: str, /, **arguments: Any) -> Request: ...

    def cancel(self, request: Request) -> None: ...

    def poll(self) -> list[Event]: ...


@dataclass(frozen=True)
class Call:
    """One method of the engine's session of a volume; `onSlice` gets its slices as they come."""

    method: str
    volumeId: str
    arguments: dict[str, Any] = field(default_factory=dict)
    onSlice: Callable[[SliceResult], object] | None = None


Command = Generator[Call | None, Any, None]


class _DiedError(EngineError):
    """The engine's process ended while it worked for a command."""


class _CancelledError(EngineError):
    """A request was cancelled that has no part that could stay."""


@dataclass(frozen=True)
class _Waiting:
    command: Command
    owner: object
    label: str


class CommandQueue:
    """Runs commands in the order in which they were added; the next one begins when the one before has ended.

    onError     gets the MedSAM2Error with which a command ended
    onProgress  gets the engine's Progress events
    onDied      is called when the engine's process ended, before the command that ran hears of it
    """

    def __init__(
        self,
        engine: Engine | None,
        onError: Callable[[MedSAM2Error], object],
        onProgress: Callable[[Progress], object],
        onDied: Callable[[EngineDied], object],
    ) -> None:
        self.engine = engine
        self._onError, self._onProgress, self._onDied = onError, onProgress, onDied
        self._waiting: deque[_Waiting] = deque()
        self._running: _Waiting | None = None
        self._call: Call | None = None
        self._request: Request | None = None
        self._arrived: deque[Event] = deque()

    @property
    def isBusy(self) -> bool:
        return self._running is not None or bool(self._waiting)

    def has(self, label: str) -> bool:
        """Whether a command of that label runs or waits."""
        return any(one.label == label for one in (self._running, *self._waiting) if one is not None)

    def concerns(self, owner: object) -> bool:
        """Whether a command of that owner runs or waits."""
        return any(one.owner is owner for one in (self._running, *self._waiting) if one is not None)

    def add(self, command: Command, owner: object = None, label: str = "") -> None:
        """Begins a command now, or after those before it. `owner` is what `drop` finds it by, `label` what `has` does."""
        self._waiting.append(_Waiting(command, owner, label))
        self._begin()

    def cancel(self) -> None:
        """The commands that wait are forgotten; the engine ends the request being worked on after the slice it is at,
        and the command goes on with what it got."""
        self._forget(lambda one: True)
        if self._request is not None and self.engine is not None:
            self.engine.cancel(self._request)

    def drop(self, owner: object) -> None:
        """Ends every command of an owner here and now; what the engine still answers is passed over."""
        self._forget(lambda one: one.owner is owner)
        if self._running is not None and self._running.owner is owner:
            if self._request is not None and self.engine is not None:
                self.engine.cancel(self._request)
            self._running.command.close()
            self._ended()
            self._begin()

    def replaceEngine(self, engine: Engine | None) -> None:
        """Another engine; what ran on the one before fails."""
        running = self._running is not None
        self.engine = engine
        self._arrived.clear()
        if running:
            self._fail(EngineError("The engine was changed while it worked; repeat the last step."))

    def poll(self, milliseconds: float) -> None:
        """Hands out what has arrived, and goes on with what the running command does itself, for about so long; at least
        one event, if there is any."""
        if self.engine is None:
            return
        end = time.perf_counter() + milliseconds / 1000
        while True:
            if not self._arrived:
                self._arrived.extend(self.engine.poll())
            if self._arrived:
                self._handle(self._arrived.popleft())
            elif self._running is not None and self._request is None:  # the command only let the event loop turn
                self._advance(next)
            else:
                break
            if time.perf_counter() > end:
                break

    # ── events ────────────────────────────────────────────────────────────────────────────────────────────────

    def _handle(self, event: Event) -> None:
        if isinstance(event, EngineDied):
            self._onDied(event)
            if self._request is not None:
                self._fail(_DiedError(event.reason))
        elif isinstance(event, Progress) and event.request is None:
            self._onProgress(event)
        elif event.request != self._request:  # of a command that was dropped
            return
        elif isinstance(event, Progress):
            self._onProgress(event)
        elif isinstance(event, SliceReady):
            self._advanceWith(event)
        elif isinstance(event, Done) and event.cancelled and self._call is not None and self._call.onSlice is None:
            self._fail(_CancelledError("It was cancelled before it began."))
        elif isinstance(event, Done):
            self._advance(lambda command: command.send(event.value))
        elif isinstance(event, Failed):
            self._fail(event.error)

    def _advanceWith(self, event: SliceReady) -> None:
        if self._call is None or self._call.onSlice is None:
            return
        try:
            self._call.onSlice(event.result)
        except MedSAM2Error as error:  # the scene does not take the slice: no use in going on
            if self.engine is not None:
                self.engine.cancel(event.request)
            self._fail(error)

    def _fail(self, error: MedSAM2Error) -> None:
        self._advance(lambda command: command.throw(error))

    # ── commands ──────────────────────────────────────────────────────────────────────────────────────────────

    def _begin(self) -> None:
        while self._running is None and self._waiting:
            self._running = self._waiting.popleft()
            self._advance(next)

    def _advance(self, resume: Callable[[Command], Call | None]) -> None:
        """Lets the running command go on to its next request, or to its end."""
        if self._running is None:
            return
        running = self._running
        self._call = self._request = None
        try:
            call = resume(running.command)
            if call is not None:
                self._ask(call)
        except StopIteration:
            self._ended()
        except MedSAM2Error as error:
            running.command.close()
            self._ended()
            if not isinstance(error, (_DiedError, _CancelledError)):  # onDied has told it, or the user knows
                self._onError(error)
        except BaseException:
            running.command.close()
            self._ended()
            raise
        self._begin()

    def _ask(self, call: Call) -> None:
        if self.engine is None:
            raise EngineError("There is no engine yet; start it in the Engine section.")
        self._request = self.engine.request(call.method, call.volumeId, **call.arguments)
        self._call = call

    def _ended(self) -> None:
        self._running = self._call = self._request = None

    def _forget(self, condition: Callable[[_Waiting], bool]) -> None:
        for one in [one for one in self._waiting if condition(one)]:
            self._waiting.remove(one)
            one.command.close()
