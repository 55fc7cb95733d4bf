"""The engine's process: reads requests on one pipe, answers on another, until its parent goes.

Three threads. One reads, so that a cancel is seen while the network works; one says that the process lives; the main one
works, one request after the other. Standard output belongs to the protocol: what any library prints goes to standard
error, where the log is.
"""

from __future__ import annotations

import contextlib
import logging
import os
import queue
import signal
import sys
import threading
import time
from typing import IO, NoReturn

from MedSAM2Lib.errors import ProtocolError
from MedSAM2Lib.worker.channel import PARENT_WENT, Channel, leave
from MedSAM2Lib.worker.protocol import DamagedMessageError, Message, read_message

__all__ = ["serve"]

_HEARTBEAT_S = 1.0
_CONNECTION_LOST = 70  # EX_SOFTWARE of sysexits.h

_log = logging.getLogger(__name__)


def serve() -> NoReturn:
    """Serves this process's standard input and output until the parent goes."""
    source, sink = _own_pipes()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C in the parent's terminal is for the parent, which then goes
    channel = Channel(sink)
    inbox: queue.SimpleQueue[Message] = queue.SimpleQueue()
    threading.Thread(target=_beat, args=(channel,), name="heartbeat", daemon=True).start()
    threading.Thread(target=_read, args=(source, channel, inbox), name="reader", daemon=True).start()
    from MedSAM2Lib.worker.engine import Engine  # torch: seconds, during which the heart beats already

    engine = Engine(channel)
    while True:
        while inbox.empty() and engine.look_ahead(lambda: not inbox.empty()):
            pass
        engine.handle(inbox.get())


def _own_pipes() -> tuple[IO[bytes], IO[bytes]]:
    """Standard input and output for the protocol alone; in their place nothing to read, and standard error."""
    sys.stdout.flush()
    source, sink = os.dup(0), os.dup(1)
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    os.dup2(2, 1)
    sys.stdout = sys.stderr
    if sys.platform == "win32":
        import msvcrt

        for descriptor in (source, sink):
            msvcrt.setmode(descriptor, os.O_BINARY)
    return open(source, "rb"), open(sink, "wb")


def _beat(channel: Channel) -> None:
    while True:
        with contextlib.suppress(MemoryError):  # a beat that is left out does no harm, a heart that stops does
            channel.beat()
        time.sleep(_HEARTBEAT_S)


def _read(source: IO[bytes], channel: Channel, inbox: queue.SimpleQueue[Message]) -> None:
    try:
        while (message := _next(source, channel)) is not None:
            if message.header["type"] == "cancel" and type(message.header.get("id")) is int:
                channel.cancel(message.header["id"])
            else:
                inbox.put(message)
    except ProtocolError as error:
        _log.error("%s", error)
        channel.send({"type": "fatal", "message": str(error)})
        leave(_CONNECTION_LOST)
    except Exception:
        _log.exception("the reader failed")
        leave(_CONNECTION_LOST)
    leave(PARENT_WENT)  # whatever is being worked on: nobody waits for it


def _next(source: IO[bytes], channel: Channel) -> Message | None:
    """The next message that can be understood; None at the end."""
    while True:
        try:
            return read_message(source)
        except DamagedMessageError as error:
            request = error.header.get("id")
            channel.send({"type": "failed", "id": request, "error": "ProtocolError", "message": str(error)})
