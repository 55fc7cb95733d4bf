"""Keys of the panel, which act only while its module is open."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import qt

__all__ = ["WidgetShortcuts"]


class WidgetShortcuts:
    """`actions` maps keys as Qt writes them ("Ctrl+Z") to what they do."""

    def __init__(self, parent: Any, actions: Mapping[str, Callable[[], object]]) -> None:
        self._shortcuts = []
        for keys, action in actions.items():
            shortcut = qt.QShortcut(qt.QKeySequence(keys), parent)
            shortcut.enabled = False
            shortcut.autoRepeat = False
            shortcut.connect("activated()", action)
            # Another part of Slicer may have the same key; while this module is open the key means this.
            shortcut.connect("activatedAmbiguously()", action)
            self._shortcuts.append(shortcut)

    def setEnabled(self, enabled: bool) -> None:
        for shortcut in self._shortcuts:
            shortcut.enabled = enabled

    def remove(self) -> None:
        """Takes the keys away from the main window, which outlives the panel."""
        for shortcut in self._shortcuts:
            shortcut.enabled = False
            shortcut.setParent(None)
            shortcut.deleteLater()
        self._shortcuts = []
