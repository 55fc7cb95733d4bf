"""A file is written whole or not at all."""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
from collections.abc import Iterator
from pathlib import Path

from MedSAM2Lib.errors import OutputError

__all__ = ["atomic_path", "check_writable"]

# The temporary name keeps this many characters of the real one's end, so that it stays below the 255 of a file system.
_KEPT_NAME_LENGTH = 150


@contextlib.contextmanager
def atomic_path(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yields a temporary path to write to; when the block ends well, that file takes the place of `path`.

    The temporary file is in the same folder and ends as `path` does, so that a writer that looks at the extension
    picks the same format. It is flushed to the disk before it is renamed. When the block raises (or is interrupted),
    the temporary file is removed and whatever was at `path` is as before.

    Raises OutputError where the system refuses to write: no folder, no permission, a full disk.
    """
    target = _real_target(path)
    temporary = target.with_name(f".{secrets.token_hex(4)}-{target.name[-_KEPT_NAME_LENGTH:]}")
    try:
        yield temporary
        _flush_to_disk(temporary)
        if target.exists():
            shutil.copymode(target, temporary)
        os.replace(temporary, target)
    except OSError as error:
        raise _output_error(path, error) from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


def check_writable(path: str | os.PathLike[str]) -> None:
    """Raises OutputError unless a file can be made at `path`; call it before long work.

    Tries it: makes an empty file of a temporary name beside it and removes it. Touches nothing that exists.
    """
    target = _real_target(path)
    probe = target.with_name(f".{secrets.token_hex(4)}-{target.name[-_KEPT_NAME_LENGTH:]}")
    try:
        probe.touch(exist_ok=False)
        probe.unlink()
    except OSError as error:
        raise _output_error(path, error) from error


def _real_target(path: str | os.PathLike[str]) -> Path:
    """The file itself where `path` is a symbolic link, so that the link survives."""
    target = Path(os.path.realpath(path))
    if target.is_dir():
        raise OutputError(f"The output must be a file, but {os.fspath(path)} is a folder; add a file name.")
    if not target.parent.is_dir():
        raise OutputError(f"The output's folder must exist, but {target.parent} does not; create it first.")
    return target


def _flush_to_disk(path: Path) -> None:
    with path.open("rb+") as stream:
        os.fsync(stream.fileno())


def _output_error(path: str | os.PathLike[str], error: OSError) -> OutputError:
    reason = error.strerror or str(error)
    return OutputError(f"{os.fspath(path)} cannot be written: {reason}. Free the space, or choose another place.")
