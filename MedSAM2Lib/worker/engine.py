"""What the engine's process does with a request: one model, a session for each volume, a budget of memory for all.

Where memory runs out, room is made (`relief`) and the step that failed is done again, so that a propagation goes on from
where it was; each step is told to the user. Sessions that make the budget overflow leave, the one used longest ago first:
the client, which keeps their volumes and states, brings them back when they are needed.
"""

from __future__ import annotations

import logging
import traceback
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, TypeVar

import numpy.typing as npt
import torch

from MedSAM2Lib.checkpoints.loading import LoadedModel, load_model
from MedSAM2Lib.device import choose_device, sensible_threads
from MedSAM2Lib.errors import EngineError, MedSAM2Error, OptionError, ProtocolError, VolumeError, is_out_of_memory
from MedSAM2Lib.geometry import Geometry
from MedSAM2Lib.inference.options import SessionOptions
from MedSAM2Lib.inference.session import Session
from MedSAM2Lib.network.config import Approximation, Precision
from MedSAM2Lib.network.precision import bfloat16_gain
from MedSAM2Lib.network.sam2 import SAM2
from MedSAM2Lib.results import SliceResult
from MedSAM2Lib.simpleitk import import_simpleitk
from MedSAM2Lib.slice_stack import resample
from MedSAM2Lib.version import __version__
from MedSAM2Lib.volume import Volume
from MedSAM2Lib.worker.arguments import check_arguments
from MedSAM2Lib.worker.channel import Channel
from MedSAM2Lib.worker.failures import VolumeAbsentError
from MedSAM2Lib.worker.idle import GivenUpError, given_up_when
from MedSAM2Lib.worker.machine import memory_budget
from MedSAM2Lib.worker.methods import METHODS, STREAMING
from MedSAM2Lib.worker.protocol import Message
from MedSAM2Lib.worker.relief import features_out_of_gpu, relieved, smaller_batches, smaller_cache
from MedSAM2Lib.worker.snapshot import Sender
from MedSAM2Lib.worker.values import pack, unpack

__all__ = ["Engine"]

_log = logging.getLogger(__name__)
_T = TypeVar("_T")


@dataclass
class _Open:
    """A session, the volume that came for it, the one that it slices, and what the client knows of its state."""

    session: Session
    volume: Volume = field(repr=False)
    sliced: Volume = field(repr=False)  # the same, or what an oblique grid makes of it
    sender: Sender = field(default_factory=Sender)


@dataclass(frozen=True)
class _Call:
    """A request, checked. `wants_state`: the answer brings the session's state."""

    id: int
    method: str
    volume_id: str
    arguments: dict[str, Any]
    wants_state: bool


class _Stream:
    """A propagation on its way to the client: how far it has come, so that it can go on when it was interrupted."""

    def __init__(self, call: _Call, session: Session, channel: Channel) -> None:
        self._call, self._session, self._channel = call, session, channel
        self._total = len(session.plan(**call.arguments)) if call.method == "propagate" else 0
        self.count = 0  # slices sent
        self.cancelled = False

    def go_on(self) -> None:
        # A propagation goes on where an earlier one was stopped, unless it is to do everything anew.
        rest = {"redo": False} if self.count else {}
        for result in getattr(self._session, self._call.method)(**{**self._call.arguments, **rest}):
            self._send(result)
            if self._channel.is_cancelled(self._call.id):
                self.cancelled = True
                return

    def _send(self, result: SliceResult) -> None:
        self.count += 1
        arrays: list[npt.NDArray[Any]] = []
        packed = pack(result, arrays)
        header = {"type": "slice", "id": self._call.id, "result": packed, "done": self.count, "total": self._total}
        self._channel.send(header, arrays)
        self._channel.step()


class Engine:
    """Answers every request with one message "done" or "failed", after any number of "slice" and "progress"."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel
        self._model: LoadedModel | None = None
        self._budget = 0  # bytes for volumes and image features
        self._open: OrderedDict[str, _Open] = OrderedDict()  # the session used last comes last

    def handle(self, message: Message) -> None:
        """Whatever a message asks for, and whatever goes wrong: an answer."""
        try:
            call = _call_of(message)
        except Exception as error:
            self._fail(message.header.get("id"), error)
            return
        self._channel.begin(call.id)
        try:
            self._answer(call)
        except Exception as error:
            self._fail(call.id, error)
        finally:
            self._channel.end(call.id)

    def look_ahead(self, is_asked: Callable[[], bool]) -> bool:
        """While nobody asks for anything: encodes one slice of the volume used last, where a person looks.

        Gives it up as soon as `is_asked`. Returns whether there may be more to do.
        """
        if not self._open:
            return False
        session = next(reversed(self._open.values())).session
        try:
            with given_up_when(is_asked, session.model.network):
                return session.encode_ahead()
        except GivenUpError:
            return True
        except Exception:  # nobody waits for it: who asks for this slice will hear what is wrong with it
            _log.exception("encoding ahead failed")
            return False

    def _answer(self, call: _Call) -> None:
        if self._channel.is_cancelled(call.id):
            self._done(call, cancelled=True)
        elif call.method in METHODS and call.method not in _OWN:
            self._use(call, self._known(call.volume_id))
        elif call.method in _OWN:
            work = getattr(self, _OWN[call.method])
            arguments = call.arguments if call.method == "start" else {**call.arguments, "volume_id": call.volume_id}
            check_arguments(work, arguments)
            self._done(call, self._relieved(call.id, partial(work, **arguments)))
        else:
            raise OptionError(f"The engine does not know {call.method!r}; it knows: {', '.join({**_OWN, **METHODS})}.")

    # ── the model ─────────────────────────────────────────────────────────────────────────────────────────────

    def _start(
        self,
        model: str = "nano",
        network: str | None = None,
        device: str = "auto",
        threads: int | None = None,
        memory_bytes: int | None = None,
        precision: Precision = "float32",
        approximations: Sequence[Approximation] = (),
    ) -> dict[str, Any]:
        """Loads the model; a second start replaces it, and every session goes. Returns what runs, for the user."""
        if (threads is not None and threads < 1) or (memory_bytes is not None and memory_bytes < 1):
            raise OptionError(f"Threads and bytes of memory count from 1, but {threads} and {memory_bytes} came.")
        self._say(None, f"Loading {model}.")
        load = partial(load_model, model, network=network, precision=precision, approximations=approximations)
        loaded = self._loaded(choose_device(device), load)
        torch.set_num_threads(threads or sensible_threads(loaded.network.config))
        gain = bfloat16_gain() if loaded.precision == "bfloat16" and not _is_on_gpu(loaded.network) else None
        import_simpleitk()  # what cleans masks: nobody is to wait for it with the first one, or lack it when memory is full
        self._model, self._budget = loaded, memory_bytes or memory_budget()
        self._open.clear()
        return {
            "version": __version__,
            "model": loaded.name,
            "sha256": loaded.sha256,
            "device": str(loaded.network.device),
            "threads": torch.get_num_threads(),
            "precision": loaded.precision,
            "bfloat16_gain": gain,
            "approximations": list(loaded.approximations),
            "memory_bytes": self._budget,
        }

    def _loaded(self, device: torch.device, load: Callable[..., LoadedModel]) -> LoadedModel:
        """On the processor where a GPU has no room for the model."""
        try:
            return load(device=device)
        except (MemoryError, RuntimeError) as error:
            if device.type == "cpu" or not is_out_of_memory(error):
                raise
        self._say(None, f"Memory is full: {_ON_PROCESSOR}")
        return load(device=torch.device("cpu"))

    # ── volumes ───────────────────────────────────────────────────────────────────────────────────────────────

    def _set_volume(
        self,
        volume_id: str,
        volume: Volume | None = None,
        same_as: str | None = None,
        grid: Geometry | None = None,
        axis: str = "k",
        window: str = "auto",
        options: dict[str, Any] | None = None,
    ) -> None:
        """Opens a session on a volume, in place of an earlier one of the same id.

        same_as  the id of a session that is open on the same volume, instead of sending it again
        grid     of an oblique stack, onto which the volume is resampled first; None: the volume's own
        options  fields of SessionOptions that differ from the model's own
        """
        if self._model is None:
            raise EngineError("The engine has no model yet; start it first.")
        if (volume is None) == (same_as is None):
            raise OptionError("set_volume takes either a volume, or the id of a session that has it, in same_as.")
        volume = volume or self._known(same_as or "").volume
        check_arguments(SessionOptions, options or {})
        own = SessionOptions(zoom=self._model.zoom, depth_prior=self._model.depth_prior)
        session = Session(self._model, replace(own, **(options or {})))
        sliced = volume if grid is None else resample(volume, grid)
        self._make_way(volume_id, volume, sliced)
        session.set_volume(sliced, axis, window)
        self._open[volume_id] = _Open(session, volume, sliced)
        self._share_out()

    def _set_options(self, volume_id: str, options: dict[str, Any]) -> None:
        """Replaces some of a session's options; they hold for what is segmented from then on."""
        session = self._known(volume_id).session
        check_arguments(SessionOptions, options)
        session.options = replace(session.options, **options)
        self._share_out()

    def _close_volume(self, volume_id: str) -> None:
        self._open.pop(volume_id, None)

    def _known(self, volume_id: str) -> _Open:
        if volume_id not in self._open:
            raise VolumeAbsentError(f"The engine has no volume {volume_id!r}; call set_volume first.")
        self._open.move_to_end(volume_id)
        return self._open[volume_id]

    def _make_way(self, volume_id: str, *volumes: Volume) -> None:
        """Closes the sessions used longest ago until a session's volumes fit into the budget beside the others."""
        size = self._volume_bytes((), *volumes)
        if size > self._budget:
            raise VolumeError(
                f"The volume takes {size / 1e6:.0f} MB, but the engine's memory budget is "
                f"{self._budget / 1e6:.0f} MB; raise it in the settings, or crop the volume."
            )
        others = [name for name in self._open if name != volume_id]
        while others and self._volume_bytes(others, *volumes) > self._budget:
            del self._open[others.pop(0)]

    def _volume_bytes(self, names: Iterable[str], *more: Volume) -> int:
        """Of these sessions' volumes; one that several look at counts once."""
        opened = [self._open[name] for name in names]
        arrays = {id(one.array): one.array for one in (*more, *(held for each in opened for held in (each.volume, each.sliced)))}
        return sum(array.nbytes for array in arrays.values())

    def _share_out(self) -> None:
        """Image features get what the volumes leave of the budget: the session used last before the others."""
        left = max(self._budget - self._volume_bytes(self._open), 0)
        for opened in reversed(self._open.values()):
            embeddings = opened.session.embeddings
            embeddings.limit(min(left, opened.session.options.cache_bytes))
            left -= embeddings.kept_bytes

    # ── a session's methods and properties ────────────────────────────────────────────────────────────────────

    def _use(self, call: _Call, opened: _Open) -> None:
        self._share_out()
        member = getattr(opened.session, call.method)
        if not callable(member):
            if call.arguments:
                raise OptionError(f"{call.method} takes no arguments, but {', '.join(call.arguments)} came.")
            self._done(call, member)
            return
        check_arguments(member, call.arguments)
        if call.method in STREAMING:
            self._stream(call, opened)
        else:
            self._done(call, self._relieved(call.id, partial(member, **call.arguments), opened.session), opened)

    def _stream(self, call: _Call, opened: _Open) -> None:
        """Sends slices as they are ready. Between two of them a cancel is obeyed; what came so far stays in any case."""
        stream = _Stream(call, opened.session, self._channel)
        try:
            if call.method == "propagate":
                self._relieved(call.id, stream.go_on, opened.session)
            else:
                stream.go_on()
        except Exception as error:
            self._fail(call.id, error, call, opened)
            return
        self._done(call, stream.count, opened, stream.cancelled)

    # ── memory ────────────────────────────────────────────────────────────────────────────────────────────────

    def _relieved(self, request: int, work: Callable[[], _T], session: Session | None = None) -> _T:
        """What `work` returns, after as many steps to make room as it takes."""
        steps: list[Callable[[], str | None]] = [partial(self._forget_features_of_others, session)]
        if session is not None:
            made = (smaller_batches, features_out_of_gpu, smaller_cache)
            steps += [*(partial(step, session.embeddings) for step in made), self._leave_gpu]
        return relieved(work, steps, lambda text: self._say(request, text))

    def _forget_features_of_others(self, session: Session | None) -> str | None:
        others = [opened.session.embeddings for opened in self._open.values() if opened.session is not session]
        freed = sum(embeddings.kept_bytes for embeddings in others)
        for embeddings in others:
            embeddings.limit(0)
        return f"image features of other volumes are let go ({freed / 1e6:.0f} MB)." if freed else None

    def _leave_gpu(self) -> str | None:
        """Every session goes on on the processor."""
        assert self._model is not None
        network = self._model.network
        if not _is_on_gpu(network):
            return None
        states = [(opened.session, opened.session.state(history=True)) for opened in self._open.values()]
        network.to("cpu")
        torch.set_num_threads(sensible_threads(network.config))
        for session, state in states:
            session.embeddings.limit(0)
            session.embeddings.batch = 1
            session.restore(state)
        self._share_out()
        return _ON_PROCESSOR

    # ── answers ───────────────────────────────────────────────────────────────────────────────────────────────

    def _say(self, request: int | None, text: str) -> None:
        _log.info("%s", text)
        self._channel.send({"type": "progress", "id": request, "done": 0, "total": 0, "text": text})

    def _done(self, call: _Call, value: Any = None, opened: _Open | None = None, cancelled: bool = False) -> None:
        arrays: list[npt.NDArray[Any]] = []
        header = {"type": "done", "id": call.id, "value": pack(value, arrays), "cancelled": cancelled}
        self._channel.send({**header, **_state(call, opened, arrays)}, arrays)

    def _fail(self, request: Any, error: Exception, call: _Call | None = None, opened: _Open | None = None) -> None:
        """Says what went wrong, in words for the user where it is an error of ours, else with the log to look at."""
        if is_out_of_memory(error):
            name, text = "EngineError", "There was not enough memory for this; close other programs or volumes, and try again."
        elif isinstance(error, MedSAM2Error):
            name, text = type(error).__name__, str(error)
        else:
            _log.error("request %r failed\n%s", request, "".join(traceback.format_exception(error)))
            name, text = "EngineError", f"The engine met an unexpected {type(error).__name__} ({error}); its log shows where."
        arrays: list[npt.NDArray[Any]] = []
        header = {"type": "failed", "id": request if type(request) is int else None, "error": name, "message": text}
        self._channel.send({**header, **_state(call, opened, arrays)}, arrays)


# Methods of the engine by the names under which they are asked for.
_OWN = {"start": "_start", "set_volume": "_set_volume", "set_options": "_set_options", "close_volume": "_close_volume"}
_ON_PROCESSOR = "the work goes on on the processor, which is slower."


def _is_on_gpu(network: SAM2) -> bool:
    return network.device.type != "cpu"


def _state(call: _Call | None, opened: _Open | None, arrays: list[npt.NDArray[Any]]) -> dict[str, Any]:
    """What an answer says of the session's state, where it was asked for."""
    if call is None or opened is None or not call.wants_state:
        return {}
    return {"state": opened.sender.changes(opened.session.state(history=True), arrays)}


def _call_of(message: Message) -> _Call:
    header = message.header
    request, method, volume_id, wanted = (header.get(key) for key in ("id", "method", "volume", "state"))
    if header["type"] != "request" or type(request) is not int or not isinstance(method, str):
        raise ProtocolError(f"Expected a request with a whole number as id and a method's name, but {header!r:.200} came.")
    if not isinstance(volume_id, str):
        raise ProtocolError(f"Expected a request's volume to be a text, but {volume_id!r:.80} came.")
    arguments = unpack(header.get("arguments", {}), message.arrays)
    if not isinstance(arguments, dict) or not all(isinstance(key, str) for key in arguments):
        raise ProtocolError(f"Expected a request's arguments to be a dictionary of names, but {arguments!r:.80} came.")
    return _Call(request, method, volume_id, arguments, wanted is True)
