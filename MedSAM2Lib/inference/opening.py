"""From a model to the session that suits its network."""

from __future__ import annotations

from MedSAM2Lib.checkpoints.loading import LoadedModel, LoadedSAM
from MedSAM2Lib.inference.options import SessionOptions
from MedSAM2Lib.inference.session import Session
from MedSAM2Lib.inference.single_slice import SingleSliceSession

__all__ = ["AnySession", "open_session"]

AnySession = Session | SingleSliceSession


def open_session(model: LoadedModel | LoadedSAM, options: SessionOptions | None = None) -> AnySession:
    """A session on volumes. Networks without memory get one that segments each slice from a box."""
    return SingleSliceSession(model, options) if isinstance(model, LoadedSAM) else Session(model, options)
