"""What an engine's client hands to a front end. No torch, no Qt."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from MedSAM2Lib.errors import MedSAM2Error
from MedSAM2Lib.results import SliceResult

__all__ = ["Done", "EngineDied", "Event", "Failed", "Progress", "Request", "SliceReady"]


@dataclass(frozen=True)
class Request:
    """One call of a session's method, on its way or answered."""

    id: int
    method: str
    volume_id: str


@dataclass(frozen=True)
class SliceReady:
    """A slice of a request that goes on; `result` has object, slice_index, mask (rows, columns) and confidence."""

    request: Request
    result: SliceResult


@dataclass(frozen=True)
class Progress:
    """`done` of `total` steps, total 0 where nobody knows; `text` where there is something to say to the user.

    request  None where it belongs to none, as when an engine is started or makes room in its memory
    """

    request: Request | None
    done: int = 0
    total: int = 0
    text: str = ""


@dataclass(frozen=True)
class Done:
    """The last event of a request that went well. `value` is what the session's method returned; of one that streams
    slices their number. Where it was cancelled, the slices that came stay and the rest is as before."""

    request: Request
    value: Any = field(default=None, repr=False)
    cancelled: bool = False


@dataclass(frozen=True)
class Failed:
    """The last event of a request that went wrong; the session is as it was before it, but for slices that came."""

    request: Request
    error: MedSAM2Error


@dataclass(frozen=True)
class EngineDied:
    """The engine's process has ended. Nothing is lost: the next request starts another and restores the sessions.

    exit_status  as subprocess has it, None where the process never ran
    log          the last lines of its standard error
    """

    reason: str
    exit_status: int | None
    log: tuple[str, ...] = ()


Event = SliceReady | Progress | Done | Failed | EngineDied
