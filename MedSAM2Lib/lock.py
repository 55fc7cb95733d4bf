"""One process at a time: a lock that the system itself gives back when its holder dies. No torch here."""

from __future__ import annotations

import contextlib
import errno
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

from MedSAM2Lib.errors import OutputError

__all__ = ["held"]

_POLL_S = 0.1
# What a lock that somebody else holds answers (flock: EWOULDBLOCK; msvcrt: EACCES, EDEADLK).
_HELD = (errno.EAGAIN, errno.EWOULDBLOCK, errno.EACCES, errno.EDEADLK)


@contextlib.contextmanager
def held(path: Path, check: Callable[[], None] | None = None, on_wait: Callable[[], None] | None = None) -> Iterator[None]:
    """Holds the lock file `path` for the length of the block; waits while another process (or thread) holds it.

    check    called while waiting; may raise to give up
    on_wait  called once when there is something to wait for

    The lock belongs to the open file and not to the file's existence, so a process that was killed leaves none behind.
    The file itself stays: removing it would let two processes hold two locks of one name.
    """
    try:
        stream = path.open("ab")
    except OSError as error:
        raise OutputError(f"{path} cannot be made: {error.strerror}. Choose another folder.") from error
    with stream:
        waiting = False
        while not _try_to_lock(stream, path):
            if not waiting and on_wait is not None:
                on_wait()
            waiting = True
            if check is not None:
                check()
            time.sleep(_POLL_S)
        try:
            yield
        finally:
            _unlock(stream)


def _try_to_lock(stream: BinaryIO, path: Path) -> bool:
    try:
        _lock(stream)
    except OSError as error:
        if error.errno in _HELD:
            return False
        raise OutputError(
            f"The file system of {path.parent} offers no locks ({error.strerror}); choose another folder."
        ) from error
    return True


if sys.platform == "win32":
    import msvcrt

    def _lock(stream: BinaryIO) -> None:
        stream.seek(0)
        msvcrt.locking(stream.fileno(), msvcrt.LK_NBLCK, 1)

    def _unlock(stream: BinaryIO) -> None:
        stream.seek(0)
        msvcrt.locking(stream.fileno(), msvcrt.LK_UNLCK, 1)

else:
    import fcntl

    def _lock(stream: BinaryIO) -> None:
        fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)

    def _unlock(stream: BinaryIO) -> None:
        fcntl.flock(stream, fcntl.LOCK_UN)
