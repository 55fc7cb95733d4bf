"""A file is written whole or not at all."""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import stat
import sys
from collections.abc import Iterator
from pathlib import Path

from MedSAM2Lib.errors import OptionError, OutputError

__all__ = ["atomic_path", "check_output", "check_writable", "flush_to_disk", "make_folder", "replace_durably"]

# The temporary name keeps this many characters of the real one's end, so that it stays below the 255 of a file system.
_KEPT_NAME_LENGTH = 150


@contextlib.contextmanager
def atomic_path(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yields a temporary path to write to; when the block ends well, that file takes the place of `path`.

    The temporary file is in the same folder and ends as `path` does, so that a writer that looks at the extension
    picks the same format. It is flushed to the disk before it is renamed, and the renaming too: after a loss of power
    there is the old file or the new one. When the block raises (or is interrupted), the temporary file is removed and
    whatever was at `path` is as before; when the process is killed, the temporary file stays beside it, hidden.

    Raises OutputError where the system refuses to write: no folder, no permission, a full disk, a file marked read-only.
    """
    target = _real_target(path)
    temporary = target.with_name(f".{secrets.token_hex(4)}-{target.name[-_KEPT_NAME_LENGTH:]}")
    try:
        yield temporary
        flush_to_disk(temporary)
        if target.exists():
            shutil.copymode(target, temporary)
        replace_durably(temporary, target)
    except OSError as error:
        raise _output_error(path, error) from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


def make_folder(folder: Path) -> None:
    """Makes a folder for results, and those above it, where it is missing. Raises OutputError."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"The folder {folder} cannot be made: {error.strerror}; choose another place.") from error


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


def check_output(path: Path, what: str, extension: str) -> None:
    """Raises OptionError where the name of `what` does not end in `extension`, OutputError where it cannot be written."""
    if path.suffix.lower() != extension:
        raise OptionError(f"{what} is written as {extension}, but {path} ends otherwise; change the extension.")
    check_writable(path)


def _real_target(path: str | os.PathLike[str]) -> Path:
    """The file itself where `path` is a symbolic link, so that the link survives."""
    target = Path(os.path.realpath(path))
    if target.is_dir():
        raise OutputError(f"The output must be a file, but {os.fspath(path)} is a folder; add a file name.")
    if not target.parent.is_dir():
        raise OutputError(f"The output's folder must exist, but {target.parent} does not; create it first.")
    # Renaming asks nothing of the file that it replaces, so that a mark against writing would be passed over.
    if target.exists() and not target.stat().st_mode & stat.S_IWUSR:
        raise OutputError(f"{os.fspath(path)} is marked read-only; choose another name, or take the mark away.")
    return target


def flush_to_disk(path: Path) -> None:
    """Returns when the content of a file would survive a loss of power. Raises OSError."""
    with path.open("rb+") as stream:
        os.fsync(stream.fileno())


def replace_durably(source: Path, target: Path) -> None:
    """Renames a file, over another if there is one, so that it would survive a loss of power. Raises OSError."""
    os.replace(source, target)
    if sys.platform != "win32":  # where a folder cannot be opened, and its changes are written through
        folder = os.open(target.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def _output_error(path: str | os.PathLike[str], error: OSError) -> OutputError:
    reason = error.strerror or str(error)
    return OutputError(f"{os.fspath(path)} cannot be written: {reason}. Free the space, or choose another place.")
