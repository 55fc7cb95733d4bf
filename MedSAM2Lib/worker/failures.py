"""Errors on their way through the pipe: by name, and back into the one tree of `errors`."""

from __future__ import annotations

from MedSAM2Lib import errors
from MedSAM2Lib.errors import EngineError, MedSAM2Error

__all__ = ["VolumeAbsentError", "error_of"]


class VolumeAbsentError(EngineError):
    """The engine does not have a volume, or has no longer; a client that has it sends it again."""


def error_of(name: object, message: object) -> MedSAM2Error:
    """The error that an engine met, from its class's name and its message."""
    known = VolumeAbsentError if name == VolumeAbsentError.__name__ else getattr(errors, str(name), None)
    kind = known if isinstance(known, type) and issubclass(known, MedSAM2Error) else EngineError
    return kind(str(message))
