"""Weights from their publishers, whole or not at all, on networks that are not.

A file grows as NAME.part beside where it belongs and takes its name when its length and SHA-256 are right; a transfer
that breaks off is continued, now or by the next call. Processes that want the same file wait for one another. No torch here.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlsplit

from MedSAM2Lib.atomic import flush_to_disk, replace_durably
from MedSAM2Lib.checkpoints.registry import Model
from MedSAM2Lib.checkpoints.store import (
    check_content,
    check_hash,
    expected_sha256,
    lock_path,
    make_store,
    part_path,
    pin,
    sha256_of,
    store_folder,
    stored_path,
)
from MedSAM2Lib.checkpoints.transfer import AddressError, Connection, InterruptedTransferError, Part, Transfer, new_session
from MedSAM2Lib.errors import CheckpointError, DownloadCancelledError, DownloadError, OptionError, OutputError
from MedSAM2Lib.lock import held

__all__ = ["Connection", "Progress", "download"]

Progress = Callable[[int, "int | None"], None]  # bytes that are here, and of how many (None: not known)

_log = logging.getLogger(__name__)

_MOST_CONNECTIONS = 1000  # per address: a server that sends one byte each time is no server
_LONGEST_WAIT_S = 30.0
_POLL_S = 0.1


def download(
    model: Model,
    folder: Path | None = None,
    connection: Connection | None = None,
    progress: Progress | None = None,
    cancelled: Callable[[], bool] | None = None,
) -> Path:
    """The file of a model, fetched if it is not here whole. A file that is here but damaged stays until the new one is whole.

    cancelled  asked between chunks and while waiting; True ends the download with DownloadCancelledError, and what has
               arrived is kept. During a stall the answer comes after `connection.stall_timeout_s` at most.

    Raises OptionError where a model cannot be downloaded, DownloadError where no address gave the file, OutputError where
    it cannot be stored.
    """
    connection = connection or Connection()
    folder = folder or store_folder()
    addresses = _addresses(model, connection)
    if connection.ca_file is not None and not connection.ca_file.is_file():
        raise OptionError(f"The certificates {connection.ca_file} should be a PEM file, but there is none; check the path.")

    def check() -> None:
        if cancelled is not None and cancelled():
            raise DownloadCancelledError(f"The download of {model.id} was stopped; what has arrived is kept for the next one.")

    def waiting() -> None:
        _log.warning("another process is fetching %s; waiting for it", model.file_name)

    make_store(folder)
    with held(lock_path(model, folder), check, waiting):
        target = stored_path(model, folder)
        if _is_whole(model, target, folder, check):
            return target
        fetching = _Fetching(model, folder, connection, progress or (lambda *_: None), check)
        failures = []
        for address in addresses:
            try:
                return fetching.fetch(address)
            except AddressError as error:
                failures.append(f"{urlsplit(address).hostname} {error}")
        raise DownloadError(_failure(model, failures, fetching.part.length))


def _addresses(model: Model, connection: Connection) -> list[str]:
    if not model.addresses:
        raise OptionError(f"{model.id} is not downloaded: it is {model.source}.")
    addresses = [f"{mirror.rstrip('/')}/{model.file_name}" for mirror in connection.mirrors] + [*model.addresses]
    if plain := [address for address in addresses if urlsplit(address).scheme != "https" or not urlsplit(address).hostname]:
        raise OptionError(f"Models are fetched by https only, but {plain[0]!r} is something else; use https://HOST/FOLDER.")
    return addresses


def _is_whole(model: Model, path: Path, folder: Path, check: Callable[[], None]) -> bool:
    if not path.is_file():
        return False
    try:
        with path.open("rb") as stream:
            check_hash(model, sha256_of(stream, check), folder)
    except (CheckpointError, OSError) as error:
        _log.warning("%s is fetched again: %s", path.name, error)
        return False
    return True


def _failure(model: Model, failures: list[str], kept: int) -> str:
    size = f" of {model.bytes / 1e6:.1f}" if model.bytes else ""
    again = f"{kept / 1e6:.1f}{size} MB are kept: the same command goes on from there." if kept else "Try again later."
    reasons = "; ".join(failures).rstrip(".")
    return (
        f"{model.file_name} could not be fetched: {reasons}. {again} Without a network, get it from {model.source} "
        "elsewhere and give it to `medsam2 models import`."
    )


class _Fetching:
    """The file of one model, from whichever address gives it."""

    def __init__(self, model: Model, folder: Path, connection: Connection, progress: Progress, check: Callable[[], None]) -> None:
        self._model, self._folder, self._connection, self._check = model, folder, connection, check
        self.part = Part(part_path(model, folder))
        self._transfer = Transfer(connection, self.part, model.bytes, progress, check)

    def fetch(self, address: str) -> Path:
        """Raises AddressError where this address does not give the right file."""
        was_continued = self._receive(address)
        try:
            return self._install()
        except CheckpointError as error:
            self.part.drop()
            if not was_continued:
                raise AddressError(f"sends something else. {error}") from error
        _log.warning("the pieces of %s make another file; fetching it from the beginning", self._model.file_name)
        self._receive(address)
        try:
            return self._install()
        except CheckpointError as error:
            self.part.drop()
            raise AddressError(f"sends something else. {error}") from error

    def _receive(self, address: str) -> bool:
        """Receives until the part has its full length, through as many interruptions as bring something.

        Returns whether it was made of several pieces.
        """
        began_with = self.part.length
        host = urlsplit(address).hostname
        fruitless = 0
        with new_session(self._connection) as session:
            for attempt in range(_MOST_CONNECTIONS):
                if self._is_complete(address):
                    return True
                before = self.part.length
                try:
                    self._transfer.receive(session, address, hash_is_known=self._sha256() is not None)
                    return began_with > 0 or attempt > 0
                except InterruptedTransferError as error:
                    fruitless = 0 if self.part.length > before else fruitless + 1
                    if fruitless >= self._connection.attempts:
                        raise AddressError(str(error)) from error
                    backoff_s = self._connection.backoff_s * 2 ** max(fruitless - 1, 0)
                    wait_s = max(min(backoff_s, _LONGEST_WAIT_S), error.wait_s)
                    _log.warning("%s %s; trying again in %.0f s", host, error, wait_s)
                    self._wait(wait_s)
        raise AddressError(f"broke off {_MOST_CONNECTIONS} times")

    def _sha256(self) -> str | None:
        return expected_sha256(self._model, self._folder)

    def _is_complete(self, address: str) -> bool:
        """Whether an earlier call received everything and only could not finish."""
        origin = self.part.origin()
        if origin is None or not self.part.length:
            return False
        is_its_file = origin.address == address or self._sha256() is not None
        return is_its_file and self.part.length == (self._model.bytes or origin.total)

    def _wait(self, seconds: float) -> None:
        until = time.monotonic() + seconds
        while (left := until - time.monotonic()) > 0:
            self._check()
            time.sleep(min(left, _POLL_S))

    def _install(self) -> Path:
        """Gives the part its name. Raises CheckpointError where it is not the right file."""
        target, origin = stored_path(self._model, self._folder), self.part.origin()
        try:
            flush_to_disk(self.part.path)
            with self.part.path.open("rb") as stream:
                sha256 = sha256_of(stream, self._check)
                check_content(self._model, stream, sha256, self._folder)
            if origin is not None and origin.sha256 not in (None, sha256) and self._model.sha256 is None:
                raise CheckpointError(f"it announced the SHA-256 {origin.sha256[:16]}..., but what came has {sha256[:16]}...")
            pin(self._model, sha256, self._folder)
            replace_durably(self.part.path, target)
        except OSError as error:
            raise OutputError(f"{os.fspath(target)} cannot be written: {error.strerror}; what has arrived is kept.") from error
        self.part.drop()
        return target
