"""One file from one address: HTTPS only, continued where it stopped, never longer than announced. No torch here.

Nothing that a server says is believed without need: a continuation must be of the same file (its ETag or date) and begin
where asked, an announced length must be the published one, and a body that goes on beyond it is refused.

Source: RFC 9110, HTTP Semantics, sections 8.8 (validators), 13.1.5 (If-Range), 14 (ranges).
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import BinaryIO

import requests
import urllib3
from requests.adapters import HTTPAdapter

from MedSAM2Lib.atomic import atomic_path
from MedSAM2Lib.checkpoints.archive import MOST_BYTES
from MedSAM2Lib.errors import OutputError
from MedSAM2Lib.version import __version__

__all__ = ["AddressError", "Connection", "InterruptedTransferError", "Part", "Transfer", "new_session"]

_CHUNK = 32 << 10  # at most so many bytes between two looks at whether to stop
_SPARE_BYTES = 16 << 20  # that a download leaves free on a disk
_SLOWEST = 512  # bytes per second, over the time in which a stall is one: slower is a stall too
_GIVE_UP = (400, 401, 402, 403, 404, 405, 406, 407, 410, 451)  # statuses that no repetition changes
_SHA256 = re.compile(r"[0-9a-f]{64}")
_CONTENT_RANGE = re.compile(r"bytes (\d+)-(\d+)/(\d+)")


@dataclass(frozen=True)
class Connection:
    """How to reach servers. Proxies and certificates of the environment (HTTPS_PROXY, NO_PROXY, REQUESTS_CA_BUNDLE) hold
    where nothing is given here."""

    proxy: str | None = None  # http://user:password@host:port
    ca_file: Path | None = None  # certificates (PEM) to trust instead of the usual ones
    mirrors: tuple[str, ...] = ()  # https folders that hold the files under their names; asked before the publishers
    connect_timeout_s: float = 10.0
    stall_timeout_s: float = 20.0  # without a byte
    attempts: int = 4  # in a row that bring nothing, per address
    backoff_s: float = 1.0  # wait after a failure; doubles while nothing comes


class AddressError(Exception):
    """This address will not do; the text completes "HOST ..."."""


class InterruptedTransferError(Exception):
    """The transfer broke off; another attempt may go on. The text completes "HOST ..."."""

    def __init__(self, reason: str, wait_s: float = 0.0) -> None:
        super().__init__(reason)
        self.wait_s = wait_s  # that the server asks for


@dataclass(frozen=True)
class Origin:
    """What is known of the file that a part belongs to."""

    address: str
    validator: str | None  # strong ETag, else date: the same file has the same
    total: int | None  # bytes of the whole file
    sha256: str | None  # as the server announced it


class Part:
    """A file that is still coming, and a record beside it of where it comes from. Both survive the process."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._record = path.with_name(path.name + ".json")

    @property
    def length(self) -> int:
        return self.path.stat().st_size if self.path.is_file() else 0

    def origin(self) -> Origin | None:
        """None where there is no part, or its record is damaged."""
        try:
            origin = Origin(**json.loads(self._record.read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError):
            return None
        sound = isinstance(origin.address, str) and isinstance(origin.total, int | None) and isinstance(origin.sha256, str | None)
        return origin if sound and isinstance(origin.validator, str | None) else None

    def begin(self, origin: Origin) -> None:
        """An empty part of this origin."""
        self.drop()
        with atomic_path(self._record) as temporary:
            temporary.write_text(json.dumps(asdict(origin)) + "\n", encoding="utf-8")

    def drop(self) -> None:
        with _disk_errors(self.path):
            self.path.unlink(missing_ok=True)
            self._record.unlink(missing_ok=True)

    @contextlib.contextmanager
    def appending(self) -> Iterator[BinaryIO]:
        """Unbuffered: what was written is in the file also when the process is killed. Links are not followed."""
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0)
        with _disk_errors(self.path):
            descriptor = os.open(self.path, flags, 0o644)
        with open(descriptor, "ab", buffering=0) as stream:
            yield stream


def new_session(connection: Connection) -> requests.Session:
    """A session that knows no other protocol than HTTPS, so that a redirection to another cannot be followed."""
    session = requests.Session()
    session.adapters.clear()
    session.mount("https://", HTTPAdapter())
    # Compressed transfer would make lengths and ranges those of something else than the file.
    session.headers.update({"User-Agent": f"medsam2/{__version__}", "Accept-Encoding": "identity"})
    return session


@dataclass(frozen=True)
class Transfer:
    """Fills a part."""

    connection: Connection
    part: Part
    expected_bytes: int | None  # of the published file
    progress: Callable[[int, int | None], None]
    check: Callable[[], None]  # called between chunks; may raise to stop

    def receive(self, session: requests.Session, address: str, hash_is_known: bool) -> None:
        """Appends what is missing of the file at `address`; returns when it is whole by its length.

        hash_is_known  the whole file can be verified later, so a part may be continued without the server's word that
                       it is of the same file

        Raises AddressError, InterruptedTransferError, OutputError for the disk, and what `check` raises.
        """
        part = self.part
        offset = _resumable_bytes(part, address, hash_is_known)
        with _network_errors():
            response = self._ask(session, address, offset)
        with response:
            found = _origin_of(response, address, part, offset)
            _check_total(found.total, self.expected_bytes, hash_is_known)
            if response.status_code != requests.codes.partial_content:
                offset = 0  # the whole file comes: the server knows no ranges, or the file changed
                part.begin(found)
            _check_space(part.path, (found.total or 0) - offset)
            with _network_errors():
                self._append(response, offset, found.total)
        if found.total is not None and part.length < found.total:
            raise InterruptedTransferError(f"broke off after {part.length:,} of {found.total:,} bytes")

    def _ask(self, session: requests.Session, address: str, offset: int) -> requests.Response:
        origin = self.part.origin()
        headers = {"Range": f"bytes={offset}-"} if offset else {}
        if offset and origin and origin.address == address and origin.validator:
            headers["If-Range"] = origin.validator
        return session.get(
            address,
            headers=headers,
            stream=True,
            timeout=(self.connection.connect_timeout_s, self.connection.stall_timeout_s),
            # Given with the request: what is given to the session yields to the environment.
            verify=str(self.connection.ca_file) if self.connection.ca_file else None,
            proxies={"https": self.connection.proxy} if self.connection.proxy else None,
        )

    def _append(self, response: requests.Response, position: int, total: int | None) -> None:
        most = total or self.expected_bytes or MOST_BYTES
        self.progress(position, total)
        with self.part.appending() as stream:
            since, at = time.monotonic(), position
            while chunk := _next_bytes(response):
                self.check()
                if position + len(chunk) > most:
                    self.part.drop()
                    raise AddressError(f"sends more than the {most:,} bytes it announced")
                with _disk_errors(self.part.path):
                    _write_all(stream, chunk)
                position += len(chunk)
                self.progress(position, total)
                if (now := time.monotonic()) - since > self.connection.stall_timeout_s:
                    if position - at < _SLOWEST * self.connection.stall_timeout_s:
                        raise InterruptedTransferError("hardly sends anything")
                    since, at = now, position


def _resumable_bytes(part: Part, address: str, hash_is_known: bool) -> int:
    """How much of the part may be continued from this address; drops what may not."""
    origin = part.origin()
    same_source = origin is not None and origin.address == address and origin.validator is not None
    if not part.length or origin is None or not (same_source or hash_is_known):
        part.drop()
    return part.length


def _origin_of(response: requests.Response, address: str, part: Part, offset: int) -> Origin:
    """What an answer says of the file. Raises where the answer is not one to what was asked."""
    status = response.status_code
    if status in _GIVE_UP:
        raise AddressError(f"answers {status} {response.reason}")
    if status == requests.codes.requested_range_not_satisfiable:
        part.drop()
        raise InterruptedTransferError("has a shorter file than before; starting over")
    if status not in (requests.codes.ok, requests.codes.partial_content):
        raise InterruptedTransferError(f"answers {status} {response.reason}", _retry_after(response))
    if response.headers.get("Content-Encoding", "identity") != "identity":
        raise AddressError("sends the file compressed, though asked not to")
    validator = _validator(response)
    if status == requests.codes.ok:
        return Origin(address, validator, _content_length(response), _announced_sha256(response))
    stated = _CONTENT_RANGE.fullmatch(response.headers.get("Content-Range", ""))
    if stated is None or not offset or int(stated[1]) != offset or _is_another(part.origin(), address, validator, int(stated[3])):
        part.drop()
        raise InterruptedTransferError("continues another file, or at another place; starting over")
    return Origin(address, validator, int(stated[3]), _announced_sha256(response))


def _is_another(before: Origin | None, address: str, validator: str | None, total: int) -> bool:
    """Whether what continues is not of the file that began, by what the server says of it."""
    if before is None or before.address != address:
        return False  # the hash decides in the end
    return (before.total or total) != total or bool(before.validator and validator and before.validator != validator)


def _validator(response: requests.Response) -> str | None:
    tag = response.headers.get("ETag", "")
    return tag if tag.startswith('"') else response.headers.get("Last-Modified")


def _announced_sha256(response: requests.Response) -> str | None:
    """Hugging Face names the SHA-256 of a large file when it redirects to it, though its pages may not show it."""
    named = [answer.headers.get("X-Linked-Etag", "").strip('"') for answer in (*response.history, response)]
    return next((name for name in named if _SHA256.fullmatch(name)), None)


def _content_length(response: requests.Response) -> int | None:
    stated = response.headers.get("Content-Length", "")
    return int(stated) if stated.isdecimal() else None


def _retry_after(response: requests.Response) -> float:
    """Seconds that a busy server asks for; at most a minute. A date counts as none."""
    stated = response.headers.get("Retry-After", "")
    return min(float(stated), 60.0) if stated.isdecimal() else 0.0


def _check_total(total: int | None, expected: int | None, hash_is_known: bool) -> None:
    if total is None and not hash_is_known:
        raise AddressError("does not say how long the file is, and no hash is published: nothing could tell whether it is whole")
    if expected is not None and total is not None and total != expected:
        raise AddressError(f"offers {total:,} bytes, but the published file has {expected:,}")
    if total is not None and total > MOST_BYTES:
        raise AddressError(f"offers {total:,} bytes, more than any model has")


def _check_space(path: Path, missing: int) -> None:
    with _disk_errors(path):
        free = shutil.disk_usage(path.parent).free
    if free < missing + _SPARE_BYTES:
        raise OutputError(
            f"{path.parent} has {free / 1e6:,.0f} MB free, but {(missing + _SPARE_BYTES) / 1e6:,.0f} MB are needed: free some, "
            "or choose another folder of models with --store."
        )


def _next_bytes(response: requests.Response) -> bytes:
    """What the next read of the socket brings, so that a connection that breaks off loses nothing that came through it.

    urllib3 before 2.2 has no such read: there, up to a chunk is lost, and a server that drips is noticed a chunk later.
    """
    read = getattr(response.raw, "read1", response.raw.read)
    received: bytes = read(_CHUNK)
    return received


def _write_all(stream: BinaryIO, chunk: bytes) -> None:
    view = memoryview(chunk)
    while view:
        view = view[stream.write(view) :]


@contextlib.contextmanager
def _disk_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise OutputError(
            f"{path} cannot be written: {error.strerror or error}. Free some space, or choose another folder of models with "
            "--store; what has arrived is kept."
        ) from error


@contextlib.contextmanager
def _network_errors() -> Iterator[None]:
    """What goes wrong on the way, in words; a refused certificate or protocol is final."""
    try:
        yield
    except requests.exceptions.SSLError as error:
        if "CERTIFICATE_VERIFY_FAILED" in str(error):
            raise AddressError(
                "shows a certificate that this computer does not trust; where a network inspects what passes, give its "
                "certificate with --ca-file"
            ) from error
        raise InterruptedTransferError("broke off the encrypted connection") from error
    except requests.exceptions.InvalidSchema as error:
        raise AddressError("redirects to an address that is not https, which is refused") from error
    except requests.exceptions.TooManyRedirects as error:
        raise AddressError("redirects without end") from error
    except ValueError as error:  # whatever parses it: requests, urllib3, the codec of host names
        raise AddressError("is, or redirects to, no proper address") from error
    except requests.exceptions.ProxyError as error:
        raise InterruptedTransferError("cannot be reached through the proxy") from error
    except requests.exceptions.ConnectTimeout as error:
        raise InterruptedTransferError("does not answer") from error
    except (requests.exceptions.Timeout, urllib3.exceptions.TimeoutError) as error:
        raise InterruptedTransferError("stalled") from error
    except urllib3.exceptions.HTTPError as error:  # while the body comes
        raise InterruptedTransferError(f"broke off ({_cause(error)})") from error
    except requests.exceptions.RequestException as error:
        raise InterruptedTransferError(f"cannot be reached ({_cause(error)})") from error


def _cause(error: BaseException) -> str:
    """What the innermost error says, which is nearest to the reason: a name that is not known, a connection refused."""
    while (inner := error.__cause__ or error.__context__) is not None:
        error = inner
    return (isinstance(error, OSError) and error.strerror) or type(error).__name__
