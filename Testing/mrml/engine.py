"""An engine without a process, for tests: a real session behind the client's calls, one slice of work for each poll."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from typing import Any

from MedSAM2Lib.checkpoints.loading import LoadedModel
from MedSAM2Lib.errors import EngineError, MedSAM2Error
from MedSAM2Lib.inference.session import Session, SessionOptions
from MedSAM2Lib.slice_stack import resample
from MedSAM2Lib.worker.events import Done, EngineDied, Event, Failed, Progress, Request, SliceReady

__all__ = ["InProcessEngine"]

_STREAMING = ("propagate",)


class InProcessEngine:
    def __init__(self, model: LoadedModel, options: SessionOptions | None = None) -> None:
        self.model, self.options = model, options
        self.facts = {"model": model.name, "sha256": model.sha256, "precision": model.precision, "approximations": []}
        self.sessions: dict[str, Session] = {}
        self.requests: list[Request] = []  # all that were ever made, for tests that ask what was asked
        self._waiting: deque[tuple[Request, dict[str, Any]]] = deque()
        self._work: Iterator[Event] | None = None
        self._working: Request | None = None
        self._cancelled: set[int] = set()
        self._failed: list[Event] = []
        self._states: dict[str, dict[str, Any]] = {}  # of each session after its last request, as the client keeps them

    def request(self, method: str, volume_id: str, /, **arguments: Any) -> Request:
        request = Request(len(self.requests) + 1, method, volume_id)
        self.requests.append(request)
        self._waiting.append((request, arguments))
        return request

    def cancel(self, request: Request) -> None:
        self._cancelled.add(request.id)

    def poll(self) -> list[Event]:
        if self._failed:
            events, self._failed = self._failed, []
            return events
        if self._work is None and self._waiting:
            self._working, arguments = self._waiting.popleft()
            self._work = self._carry_out(self._working, arguments)
        if self._work is None:
            return []
        event = next(self._work)
        if isinstance(event, (Done, Failed)):
            self._work = None
            if event.request.volume_id in self.sessions:
                self._states[event.request.volume_id] = self.sessions[event.request.volume_id].state()
        return [event]

    def die(self) -> None:
        """As a process that is killed: the client brings its sessions back, here without any of their history."""
        asked = [self._working] if self._work is not None and self._working is not None else []
        asked += [request for request, _ in self._waiting]
        self._work, self._waiting = None, deque()
        for volume_id, session in self.sessions.items():
            session.restore(self._states[volume_id])
        self._failed = [EngineDied("killed by a test", -9), *(Failed(one, EngineError("It died.")) for one in asked)]

    def _carry_out(self, request: Request, arguments: dict[str, Any]) -> Iterator[Event]:
        if request.id in self._cancelled:
            yield Done(request, cancelled=True)
            return
        try:
            if request.method == "close_volume":
                self.sessions.pop(request.volume_id, None)
                yield Done(request)
                return
            if request.method == "set_volume" and (grid := arguments.pop("grid", None)) is not None:
                arguments["volume"] = resample(arguments["volume"], grid)
            session = self.sessions.setdefault(request.volume_id, Session(self.model, self.options))
            member = getattr(type(session), request.method)
            if isinstance(member, property):
                yield Done(request, getattr(session, request.method))
            elif request.method in _STREAMING:
                yield from self._stream(request, session, arguments)
            else:
                yield Done(request, member(session, **arguments))
        except MedSAM2Error as error:
            yield Failed(request, error)

    def _stream(self, request: Request, session: Session, arguments: dict[str, Any]) -> Iterator[Event]:
        total = len(session.plan(**arguments))
        done = 0
        for result in session.propagate(**arguments):
            done += 1
            yield SliceReady(request, result)
            yield Progress(request, done, total)
            if request.id in self._cancelled:
                break
        yield Done(request, done, cancelled=request.id in self._cancelled)
