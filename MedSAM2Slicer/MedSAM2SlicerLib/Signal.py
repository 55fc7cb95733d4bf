"""A list of functions to call when something happens: custom Qt signals made in Python crash Slicer."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

__all__ = ["Signal"]

_LOGGER = logging.getLogger(__name__)


class Signal:
    """Calls its listeners in the order of their connection, on the thread that emits.

        signal.connect(listener)
        signal.emit("liver", 42)      # calls listener("liver", 42)

    A listener that raises is logged and does not keep the others from being called, as with Qt's slots in Slicer.
    """

    def __init__(self) -> None:
        self._listeners: list[Callable[..., object]] = []

    def connect(self, listener: Callable[..., object]) -> None:
        """From now on the listener is called; connecting it twice changes nothing."""
        if listener not in self._listeners:
            self._listeners.append(listener)

    def disconnect(self, listener: Callable[..., object]) -> None:
        """The listener is called no more; one that never was connected is passed over."""
        if listener in self._listeners:
            self._listeners.remove(listener)

    def emit(self, *arguments: Any) -> None:
        for listener in tuple(self._listeners):
            try:
                listener(*arguments)
            except Exception:
                _LOGGER.exception("A listener failed")
