"""The engine as a front end uses it: calls that return at once, events to be fetched, nothing lost when the engine dies.

    client = EngineClient(model="nano")                      # nothing runs yet
    client.request("set_volume", "ct", volume=volume, axis="k", window="auto")
    request = client.request("add_prompt", "ct", name="liver", prompt=Box(42, 80, 60, 210, 190))
    ...
    for event in client.poll():                              # from a timer; never waits
        if isinstance(event, SliceReady):
            show(event.result)

    mask = client.call("mask", "ct", name="liver")           # or, in a script: waits, returns the value, raises the error

Every method and property of `inference.session.Session` can be called, by name and with its own arguments; `volume_id`
says on which volume. `close_volume` lets go of one. Requests are answered one after the other, in their order.

When the engine dies or hangs, what was asked of it fails with EngineError, an EngineDied says why, and the next request
starts another, in which the volume's session is what it was after the last request that was done: the client keeps each
volume, its last state, and the steps since. Of what could be undone the last 30 steps come back.

No torch and no Qt here; one thread uses a client.
"""

from __future__ import annotations

import queue
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import count
from types import TracebackType
from typing import Any

import numpy.typing as npt

from MedSAM2Lib.errors import EngineError, MedSAM2Error, UsageError
from MedSAM2Lib.volume import Volume
from MedSAM2Lib.worker.events import Done, EngineDied, Event, Failed, Progress, Request, SliceReady
from MedSAM2Lib.worker.failures import VolumeAbsentError, error_of
from MedSAM2Lib.worker.methods import METHODS, Kind
from MedSAM2Lib.worker.process import EngineProcess, Gone, clean_environment, default_command
from MedSAM2Lib.worker.protocol import Message
from MedSAM2Lib.worker.snapshot import Receiver
from MedSAM2Lib.worker.values import pack, unpack

__all__ = ["Done", "EngineClient", "EngineDied", "Event", "Failed", "Progress", "Request", "SliceReady"]

_STEPS_KEPT = 20  # after as many steps their session's state is fetched, so that bringing it back never takes long
_WAIT_S = 0.2  # between two looks at whether the engine still lives


@dataclass
class _Held:
    """What brings a volume's session back: everything that was done to it."""

    volume: Volume
    settings: dict[str, Any]  # what set_volume got beside the volume
    receiver: Receiver = field(default_factory=Receiver)
    state: dict[str, Any] | None = None  # the last that came
    steps: list[tuple[str, dict[str, Any]]] = field(default_factory=list)  # since then


@dataclass
class _Pending:
    """A request that is not answered yet."""

    request: Request
    arguments: dict[str, Any]
    internal: bool = False  # part of bringing a session back; the front end did not ask for it
    repeated: bool = False  # sent a second time already, after its volume was
    same_as: str = ""  # of a set_volume: the other session whose volume it refers to


class EngineClient:
    """Starts an engine when there is something to do, and another when that one has died.

    command       what is started; its standard input and output must be an engine's, here or elsewhere: another Python's
                  "-m MedSAM2Lib worker", "ssh HOST medsam2 worker", a container. None: this Python
    environment   variables to set for it. This process's own are passed on without those of its Python and libraries
                  (PYTHON*, LD_LIBRARY_PATH ...), which would break another Python; name them here to pass them
    model, network, device, threads, precision, approximations  as on the command line; None: as the engine chooses
    memory_bytes  for volumes and image features; None: half of the machine's memory
    silence_s     an engine that gives no sign of life for so long is killed (it gives one every second)
    start_s       the same before its first sign
    step_s        an engine that works on one slice, or on loading a model, for so long is killed
    """

    def __init__(
        self,
        command: Sequence[str] | None = None,
        *,
        environment: Mapping[str, str] | None = None,
        model: str = "nano",
        network: str | None = None,
        device: str = "auto",
        threads: int | None = None,
        precision: str = "float32",
        approximations: Sequence[str] = (),
        memory_bytes: int | None = None,
        silence_s: float = 30.0,
        start_s: float = 120.0,
        step_s: float = 600.0,
    ) -> None:
        self._command = list(command or default_command())
        self._environment = dict(environment or {})
        self._settings = {
            "model": model, "network": network, "device": device, "threads": threads, "precision": precision,
            "approximations": list(approximations), "memory_bytes": memory_bytes,
        }  # fmt: skip
        self._silence_s, self._start_s, self._step_s = silence_s, start_s, step_s
        self._ids = count(1)
        self._process: EngineProcess | None = None
        self._pending: dict[int, _Pending] = {}
        self._held: dict[str, _Held] = {}
        self._present: set[str] = set()  # volumes that the engine has, as far as is known
        self._asked: dict[str, int] = {}  # by volume: steps since its session's state was asked for, answered or not
        self._events: deque[Event] = deque()
        # Of the running engine: version, model, sha256, device, threads, precision, bfloat16_gain (of a CPU that computes in it),
        # approximations, memory_bytes.
        self.facts: dict[str, Any] = {}

    # ── what a front end calls ────────────────────────────────────────────────────────────────────────────────

    @property
    def is_running(self) -> bool:
        """Whether there is a process; it may be loading its model still."""
        return self._process is not None

    @property
    def pid(self) -> int | None:
        return None if self._process is None else self._process.pid

    def start(self) -> None:
        """Starts the engine ahead of the first request, so that it has its model when that comes. Does not wait.

        Where that fails, poll brings an EngineDied.
        """
        self._pump()
        self._started()

    def request(self, method: str, volume_id: str, /, **arguments: Any) -> Request:
        """Asks for a method of a volume's session; poll brings what comes of it. Does not wait.

        Arrays must not change until the request is done, and a volume's not until it is closed: it may be sent again.
        Raises ProtocolError where an argument is nothing that can be sent.
        """
        self._pump()
        request = Request(next(self._ids), method, volume_id)
        pending = _Pending(request, arguments)
        pack(arguments, [])
        if method == "close_volume" and self._process is None:  # not worth an engine
            self._held.pop(volume_id, None)
            self._events.append(Done(request))
        elif not self._started():
            self._events.append(Failed(request, EngineError("The engine could not be started; see the message before this.")))
        else:
            if method not in ("set_volume", "close_volume"):
                self._bring(volume_id)
            self._send(pending)
        return request

    def poll(self) -> list[Event]:
        """What has come since the last time, in order. Never waits."""
        self._pump()
        events = list(self._events)
        self._events.clear()
        return events

    def cancel(self, request: Request) -> None:
        """Ends a propagation after the slice that is worked on, or a request that has not begun; harmless afterwards.

        The request is then Done, with `cancelled` set.
        """
        if self._process is not None and request.id in self._pending:
            self._process.send(Message({"type": "cancel", "id": request.id}))

    def wait(self, request: Request, on_event: Callable[[Event], None] | None = None) -> Any:
        """For scripts: the value of a request, once it is done; its slices and progress go to `on_event`.

        Raises what went wrong.
        """
        while True:
            for event in self._taken(request):
                if isinstance(event, Failed):
                    raise event.error
                if isinstance(event, Done):
                    return event.value
                if on_event is not None:
                    on_event(event)
            if request.id not in self._pending:
                raise UsageError("There is nothing to wait for: the request has ended, and poll has brought its last event.")
            self._pump(_WAIT_S)

    def call(self, method: str, volume_id: str, /, **arguments: Any) -> Any:
        """For scripts: asks and waits."""
        return self.wait(self.request(method, volume_id, **arguments))

    def close(self) -> None:
        """Ends the engine; what it has not answered fails. A later request would start another."""
        if self._process is not None:
            self._process.close()
            self._forget_process(EngineError("The engine was closed before it answered."))

    def __enter__(self) -> EngineClient:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    # ── sending ───────────────────────────────────────────────────────────────────────────────────────────────

    def _started(self) -> bool:
        """Whether there is an engine, a new one if need be."""
        if self._process is None:
            try:
                self._process = EngineProcess(self._command, clean_environment(self._environment))
            except EngineError as error:
                self._events.append(EngineDied(str(error), None))
                return False
            self._send_internal("start", "", self._settings)
        return True

    def _bring(self, volume_id: str) -> None:
        """Has the engine take up a session that it does not have any more."""
        held = self._held.get(volume_id)
        if held is None or volume_id in self._present:
            return
        self._send_internal("set_volume", volume_id, {"volume": held.volume, **held.settings})
        if held.state is not None:
            self._send_internal("restore", volume_id, {"state": held.state})
        for method, arguments in held.steps:
            self._send_internal(method, volume_id, arguments)

    def _send_internal(self, method: str, volume_id: str, arguments: dict[str, Any]) -> None:
        self._send(_Pending(Request(next(self._ids), method, volume_id), arguments, internal=True))

    def _send(self, pending: _Pending) -> None:
        assert self._process is not None
        request, sent = pending.request, pending.arguments
        if request.method == "set_volume":
            pending.same_as = self._session_with(sent.get("volume"))
            if pending.same_as:
                sent = {**{key: value for key, value in sent.items() if key != "volume"}, "same_as": pending.same_as}
            self._present.add(request.volume_id)
        header = {"type": "request", "id": request.id, "method": request.method, "volume": request.volume_id}
        arrays: list[npt.NDArray[Any]] = []
        header |= {"arguments": pack(sent, arrays), "state": self._wants_state(pending)}
        self._pending[request.id] = pending
        self._process.send(Message(header, arrays))

    def _session_with(self, volume: object) -> str:
        """A session of the engine that has a volume, which then need not be sent again; empty where there is none."""
        for volume_id in self._present & self._held.keys():
            if isinstance(volume, Volume) and _are_same(volume, self._held[volume_id].volume):
                return volume_id
        return ""

    def _wants_state(self, pending: _Pending) -> bool:
        """Whether the answer must bring the session's state: what it was asked to do cannot be done again, or is too much."""
        kind, volume_id = METHODS.get(pending.request.method), pending.request.volume_id
        if pending.internal or kind not in (Kind.STEP, Kind.TURN):
            return False
        asked = self._asked.get(volume_id, 0) + 1
        wanted = kind is Kind.TURN or asked >= _STEPS_KEPT
        self._asked[volume_id] = 0 if wanted else asked
        return wanted

    # ── receiving ─────────────────────────────────────────────────────────────────────────────────────────────

    def _pump(self, wait_s: float = 0.0) -> None:
        """Takes in what has come, if need be waits for it, and looks whether the engine lives."""
        process = self._process
        try:
            while process is not None and process is self._process:
                came = process.received.get(block=wait_s > 0, timeout=wait_s or None)
                wait_s = 0.0
                if isinstance(came, Gone):
                    self._lose(came)
                elif not process.is_given_up:
                    self._take_in_or_kill(process, came)
        except queue.Empty:
            self._check_life()

    def _check_life(self) -> None:
        assert self._process is not None
        silent = time.monotonic() - self._process.last_heard
        if silent > (self._silence_s if self._process.spoke else self._start_s):
            self._process.kill(f"it gave no sign of life for {silent:.0f} seconds")

    def _lose(self, gone: Gone) -> None:
        self._events.append(EngineDied(gone.reason, gone.exit_status, gone.log))
        self._forget_process(EngineError(f"The engine died: {gone.reason}. Try again: it is started anew, and nothing is lost."))

    def _forget_process(self, error: MedSAM2Error) -> None:
        """There is no engine any more; what it has not answered fails."""
        self._process = None
        self._present.clear()
        self._asked.clear()
        self.facts = {}
        asked = [pending.request for pending in self._pending.values() if not pending.internal]
        self._pending.clear()
        self._events.extend(Failed(request, error) for request in asked)

    def _take_in_or_kill(self, process: EngineProcess, message: Message) -> None:
        try:
            self._take_in(message)
        except (KeyError, TypeError, ValueError, AttributeError, MedSAM2Error) as error:
            process.kill(f"it sent a message that makes no sense ({error!r})")

    def _take_in(self, message: Message) -> None:
        header, kind = message.header, message.header["type"]
        if kind == "heartbeat":
            self._check_step(header)
            return
        pending = self._pending.get(header.get("id"))  # type: ignore[arg-type]
        if kind == "progress":
            request = None if pending is None or pending.internal else pending.request
            self._events.append(Progress(request, header["done"], header["total"], header["text"]))
        elif pending is None:
            return
        elif kind == "slice" and not pending.internal:
            self._events.append(SliceReady(pending.request, unpack(header["result"], message.arrays)))
            self._events.append(Progress(pending.request, header["done"], header["total"]))
        elif kind == "done":
            self._note_done(pending, message)
            del self._pending[pending.request.id]
        elif kind == "failed":
            del self._pending[pending.request.id]
            self._note_failed(pending, message)

    def _check_step(self, header: Mapping[str, Any]) -> None:
        if self._process is not None and header.get("step_s", 0) > self._step_s:
            self._process.kill(f"it worked on one step for {header['step_s']:.0f} seconds")

    def _note_done(self, pending: _Pending, message: Message) -> None:
        request = pending.request
        value = unpack(message.header["value"], message.arrays)
        cancelled = bool(message.header.get("cancelled"))
        if request.method == "start":
            self.facts = value
            self._settings["threads"] = value["threads"]  # an engine after this one must not round differently
        elif not pending.internal and not (cancelled and request.method not in METHODS):
            self._remember(pending, message, cancelled)
        if not pending.internal:
            self._events.append(Done(request, value, cancelled))

    def _remember(self, pending: _Pending, message: Message, cancelled: bool) -> None:
        """Notes what was done to a session, so that it can be done to another."""
        request = pending.request
        if request.method == "set_volume" and not cancelled:
            settings = {key: value for key, value in pending.arguments.items() if key != "volume"}
            self._held[request.volume_id] = _Held(pending.arguments["volume"], settings)
        elif request.method == "close_volume":
            self._held.pop(request.volume_id, None)
            self._present.discard(request.volume_id)
        elif held := self._held.get(request.volume_id):
            if request.method == "set_options" and not cancelled:  # a state does not hold them
                known = held.settings.get("options") or {}
                held.settings["options"] = {**known, **pending.arguments["options"]}
            if METHODS.get(request.method) is Kind.STEP and not cancelled:
                held.steps.append((request.method, pending.arguments))
            self._note_state(held, message)

    def _note_state(self, held: _Held, message: Message) -> None:
        if "state" in message.header:
            held.state = held.receiver.state(message.header["state"], message.arrays)
            held.steps.clear()

    def _note_failed(self, pending: _Pending, message: Message) -> None:
        request, error = pending.request, error_of(message.header.get("error"), message.header.get("message"))
        if held := self._held.get(request.volume_id):
            self._note_state(held, message)
        if request.method == "start":
            self._give_up(error)
        elif isinstance(error, VolumeAbsentError) and not pending.repeated and self._can_send_again(pending):
            self._send_again(pending)
        elif not pending.internal:
            self._events.append(Failed(request, error))
        elif self._process is not None:  # what follows would be done to a session that is not what it was
            self._process.kill(f"the session of {request.volume_id!r} could not be restored ({error})")

    def _give_up(self, error: MedSAM2Error) -> None:
        """The engine runs, but not its model."""
        if self._process is not None:
            self._process.close()
        self._events.append(EngineDied(str(error), None))
        self._forget_process(error)

    def _can_send_again(self, pending: _Pending) -> bool:
        return pending.request.method == "set_volume" or pending.request.volume_id in self._held

    def _send_again(self, pending: _Pending) -> None:
        """The engine has let go of a volume to make room for another: it gets it again, and what was asked of it."""
        volume_id = pending.request.volume_id
        if pending.request.method == "set_volume":
            self._present.discard(pending.same_as)
        elif not pending.internal and not self._is_coming(volume_id):
            self._present.discard(volume_id)
            self._bring(volume_id)
        pending.repeated = True
        self._send(pending)

    def _is_coming(self, volume_id: str) -> bool:
        requests = (pending.request for pending in self._pending.values())
        return any(request.method == "set_volume" and request.volume_id == volume_id for request in requests)

    def _taken(self, request: Request) -> list[Event]:
        """The events of a request, which poll then does not bring."""
        events = list(self._events)
        self._events = deque(event for event in events if not _is_of(event, request))
        return [event for event in events if _is_of(event, request)]


def _is_of(event: Event, request: Request) -> bool:
    return not isinstance(event, EngineDied) and event.request == request


def _are_same(one: Volume, other: Volume) -> bool:
    """Whether two volumes are one in memory; comparing voxels would take as long as sending them."""
    places = (one.array.__array_interface__, other.array.__array_interface__)
    return places[0] == places[1] and one.geometry == other.geometry and one.modality == other.modality
