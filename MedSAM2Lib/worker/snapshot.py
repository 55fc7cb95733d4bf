"""A session's state on its way to the client, of which only what changed is sent.

A state is a dictionary of JSON in which masks and logits are long texts, most of them the same as the last time. Long
texts are replaced by {"$text": digest}; the client keeps those of the last state, the engine remembers which they were.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from MedSAM2Lib.errors import ProtocolError

__all__ = ["Receiver", "Sender"]

_LONG = 200  # characters; a digest with its wrapping takes 50


@dataclass
class Sender:
    """The engine's side, one per session."""

    _known: frozenset[str] = frozenset()

    def changes(self, state: Mapping[str, Any], arrays: list[npt.NDArray[Any]]) -> dict[str, Any]:
        """What to send of a state; new texts are appended to the message's arrays."""
        texts: dict[str, str] = {}
        tree = _shortened(state, texts)
        new = [digest for digest in texts if digest not in self._known]
        arrays += [np.frombuffer(texts[digest].encode(), dtype=np.uint8) for digest in new]
        self._known = frozenset(texts)
        return {"tree": tree, "new": new, "first": len(arrays) - len(new)}


@dataclass
class Receiver:
    """The client's side, one per session. `state` is the whole state that came last."""

    _texts: dict[str, str] = field(default_factory=dict)

    def state(self, changes: Mapping[str, Any], arrays: Sequence[npt.NDArray[Any]]) -> dict[str, Any]:
        """The state, whole. Raises ProtocolError where a text is missing."""
        came = arrays[changes["first"] : changes["first"] + len(changes["new"])]
        fresh = {digest: text.tobytes().decode() for digest, text in zip(changes["new"], came, strict=True)}
        used: dict[str, str] = {}
        try:
            state: dict[str, Any] = _lengthened(changes["tree"], {**self._texts, **fresh}, used)
        except KeyError as error:
            raise ProtocolError("The engine sent a part of a session's state without what it belongs to.") from error
        self._texts = used
        return state


def _shortened(value: Any, texts: dict[str, str]) -> Any:
    if isinstance(value, str) and len(value) > _LONG:
        digest = hashlib.blake2b(value.encode(), digest_size=16).hexdigest()
        texts[digest] = value
        return {"$text": digest}
    if isinstance(value, Mapping):
        return {key: _shortened(one, texts) for key, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [_shortened(one, texts) for one in value]
    return value


def _lengthened(value: Any, known: Mapping[str, str], used: dict[str, str]) -> Any:
    if isinstance(value, list):
        return [_lengthened(one, known, used) for one in value]
    if not isinstance(value, dict):
        return value
    if "$text" in value:
        digest = value["$text"]
        used[digest] = known[digest]
        return known[digest]
    return {key: _lengthened(one, known, used) for key, one in value.items()}
