"""A real HTTPS server on this machine that misbehaves as told, and a proxy to reach it through."""

from __future__ import annotations

import contextlib
import http.server
import re
import select
import socket
import socketserver
import ssl
import threading
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

_RANGE = re.compile(r"bytes=(\d+)-")


@dataclass(frozen=True)
class Answer:
    """How one request is answered; the default is how a good server does it."""

    cut_after: int | None = None  # bytes of the body, then the connection breaks
    stall_after: int | None = None  # bytes of the body, then nothing more comes
    drip: bool = False  # the body comes a byte at a time, slowly
    stated_bytes: int | None = None  # length of the whole file, as the headers say
    knows_ranges: bool = True
    knows_if_range: bool = True
    chunked: bool = False  # without a length
    endless: bool = False  # the body repeats for ever
    shift: int = 0  # a continuation begins so many bytes later than asked, and says so
    content: bytes | None = None  # instead of the file's
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Asked:
    path: str
    first_byte: int | None
    if_range: str | None


class FileServer(socketserver.ThreadingMixIn, http.server.HTTPServer):
    """Serves `files`; the next requests are answered as `plan` says, those after it well."""

    daemon_threads = True
    request_queue_size = 50

    def __init__(self, context: ssl.SSLContext | None) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.context = context
        self.files: dict[str, bytes] = {}
        self.etags: dict[str, str] = {}
        self.plan: deque[Answer] = deque()
        self.asked: list[Asked] = []
        self.sent_bytes = 0
        self.closing = threading.Event()

    def address(self, name: str) -> str:
        return f"{'https' if self.context else 'http'}://localhost:{self.server_port}/{name}"

    def finish_request(self, request: Any, client_address: Any) -> None:
        if self.context is None:
            super().finish_request(request, client_address)
            return
        with self.context.wrap_socket(request, server_side=True) as encrypted:
            super().finish_request(encrypted, client_address)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Clients that hang up are what the tests are about."""


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: FileServer

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def do_GET(self) -> None:
        name = self.path.partition("?")[0].lstrip("/")
        stated = _RANGE.fullmatch(self.headers.get("Range", ""))
        self.server.asked.append(Asked(name, int(stated[1]) if stated else None, self.headers.get("If-Range")))
        answer = self.server.plan.popleft() if self.server.plan else Answer()
        if answer.status != 200 or name not in self.server.files:
            self.send_response(answer.status if answer.status != 200 else 404)
            self._end_headers(answer, 0)
            return
        self._send_file(name, int(stated[1]) if stated else 0, answer)

    def _send_file(self, name: str, first: int, answer: Answer) -> None:
        content = self.server.files[name] if answer.content is None else answer.content
        total = len(content) if answer.stated_bytes is None else answer.stated_bytes
        etag = self.server.etags.get(name)
        if not answer.knows_ranges or (answer.knows_if_range and self.headers.get("If-Range") not in (None, etag)):
            first = 0
        if first >= max(len(content), 1):
            self.send_response(416)
            self._end_headers(answer, 0)
            return
        self.send_response(206 if first else 200)
        if first:
            first += answer.shift
            self.send_header("Content-Range", f"bytes {first}-{total - 1}/{total}")
        if etag:
            self.send_header("ETag", etag)
        self._end_headers(answer, None if answer.chunked else total - first)
        self._send_body(content[first:], answer)

    def _end_headers(self, answer: Answer, length: int | None) -> None:
        for key, value in answer.headers.items():
            self.send_header(key, value)
        if length is None:
            self.send_header("Transfer-Encoding", "chunked")
        else:
            self.send_header("Content-Length", str(length))
        self.end_headers()

    def _send_body(self, body: bytes, answer: Answer) -> None:
        ends = [end for end in (answer.cut_after, answer.stall_after) if end is not None]
        pieces = [bytes([value]) for value in body] if answer.drip else [body[: ends[0] if ends else None]]
        for piece in pieces:
            self._write(piece, answer.chunked)
            if answer.drip and self.server.closing.wait(0.02):
                return
        while answer.endless:
            self._write(body, answer.chunked)
        if answer.stall_after is not None:
            self.server.closing.wait(30)
        if ends:
            self.close_connection = True
            self.connection.shutdown(socket.SHUT_RDWR)
        elif answer.chunked:
            self.wfile.write(b"0\r\n\r\n")

    def _write(self, piece: bytes, chunked: bool) -> None:
        self.server.sent_bytes += len(piece)
        self.wfile.write(b"%x\r\n%s\r\n" % (len(piece), piece) if chunked else piece)


@contextlib.contextmanager
def serving(context: ssl.SSLContext | None) -> Iterator[FileServer]:
    """A running server; without a context it speaks plain HTTP."""
    with FileServer(context) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield server
        finally:
            server.closing.set()
            server.shutdown()
            thread.join()


class Proxy(socketserver.ThreadingTCPServer):
    """Tunnels what CONNECT asks for, and remembers where to."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Tunnel)
        self.tunnels: list[str] = []

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class _Tunnel(socketserver.StreamRequestHandler):
    server: Proxy

    def handle(self) -> None:
        target = self.rfile.readline().split()[1].decode()
        while self.rfile.readline().strip():
            pass
        self.server.tunnels.append(target)
        host, port = target.split(":")
        with socket.create_connection((host, int(port))) as other:
            self.wfile.write(b"HTTP/1.1 200 OK\r\n\r\n")
            ends = {self.connection: other, other: self.connection}
            while True:
                for source in select.select(list(ends), [], [])[0]:
                    if not (piece := source.recv(65536)):
                        return
                    ends[source].sendall(piece)


@contextlib.contextmanager
def proxying() -> Iterator[Proxy]:
    with Proxy() as proxy:
        thread = threading.Thread(target=proxy.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield proxy
        finally:
            proxy.shutdown()
            thread.join()
