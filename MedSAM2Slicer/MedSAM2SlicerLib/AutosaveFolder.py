"""Where autosaves lie, and whose they are: a folder for each running Slicer, locked as long as it runs. No MRML, no Qt.

    ROOT/4f0c.../lock           held by the Slicer that made the folder; the system takes it back when that one dies
    ROOT/4f0c.../0.autosave     one of its sessions

A folder whose lock is free is what a Slicer left behind that did not end well. Who finds it takes the lock, so that of
several Slicers that start afterwards only one offers what is in there.
"""

from __future__ import annotations

import contextlib
import logging
import os
import secrets
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

from MedSAM2Lib.errors import MedSAM2Error, OutputError
from MedSAM2Lib.lock import held

__all__ = ["AutosaveFolder"]

_LOGGER = logging.getLogger(__name__)
_LOCK, _ENDING = "lock", ".autosave"
_OFFERED_DAYS = 30  # what nobody asked for so long goes


class AutosaveFolder:
    """Nothing is made before the first `path`. Autosaves hold masks and names: only this user may read them."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._locks = ExitStack()
        self._own: Path | None = None

    def path(self, name: str) -> Path:
        """For an autosave of this process. Raises OutputError where there can be none."""
        if self._own is None:
            self._own = self._made()
        return self._own / f"{name}{_ENDING}"

    def _made(self) -> Path:
        folder = self._root / secrets.token_hex(8)
        try:
            self._root.mkdir(parents=True, exist_ok=True)
            folder.mkdir(mode=0o700)
        except OSError as error:
            raise OutputError(
                f"{folder} cannot be made ({error.strerror}); free some space, or change its permissions."
            ) from error
        self._locks.enter_context(held(folder / _LOCK))
        return folder

    def clear(self) -> None:
        """Removes the autosaves of this process: nothing in them is needed any more."""
        if self._own is not None:
            for file in self._own.glob(f"*{_ENDING}"):
                self.remove(file)

    @staticmethod
    def remove(file: Path) -> None:
        """An autosave of this process, or one that was left behind."""
        with contextlib.suppress(OSError):  # it may be gone; and what cannot be removed now is offered once more
            file.unlink()

    def close(self) -> None:
        """The end of a process that ends well: what it wrote goes, what others left behind stays until somebody asks for it."""
        self.clear()
        self._locks.close()
        if self._own is not None:
            _dissolve(self._own)
            self._own = None

    def left_behind(self) -> list[Path]:
        """Autosaves of this user's processes that are no more, newest first; they are this process's to offer from now on."""
        found: list[Path] = []
        for folder in self._others():
            with contextlib.suppress(_HeldError, OutputError, OSError):  # or it is just being taken away by its owner
                self._locks.enter_context(held(folder / _LOCK, check=_give_up))
                found += _fresh(folder)
        return sorted(found, key=lambda file: file.stat().st_mtime, reverse=True)

    def _others(self) -> Iterator[Path]:
        folders = sorted(self._root.iterdir()) if self._root.is_dir() else []
        for folder in folders:
            if folder != self._own and (folder / _LOCK).is_file() and not folder.is_symlink() and _is_ours(folder):
                yield folder


class _HeldError(MedSAM2Error):
    """Its owner lives."""


def _give_up() -> None:
    raise _HeldError("The owner of this folder is running; its autosaves are its own.")


def _is_ours(folder: Path) -> bool:
    """Temporary folders may be everybody's: what another user put there is not offered."""
    return not hasattr(os, "getuid") or folder.stat().st_uid == os.getuid()


def _fresh(folder: Path) -> list[Path]:
    """The autosaves in a folder that are not too old; without any the folder goes."""
    oldest = time.time() - _OFFERED_DAYS * 24 * 3600
    files = list(folder.glob(f"*{_ENDING}"))
    for file in files:
        if file.stat().st_mtime < oldest:
            _LOGGER.info("The autosave %s is older than %d days and goes", file, _OFFERED_DAYS)
            AutosaveFolder.remove(file)
    kept = [file for file in files if file.exists()]
    if not kept:
        _dissolve(folder)
    return kept


def _dissolve(folder: Path) -> None:
    """Takes a folder away that holds no autosaves any more; half-written ones of a killed process go with it."""
    with contextlib.suppress(OSError):  # on Windows a file that is open stays; its folder is found empty the next time
        for file in folder.iterdir():
            file.unlink()
        folder.rmdir()
