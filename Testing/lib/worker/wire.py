"""A real engine's process, spoken to in bytes."""

from __future__ import annotations

import struct
import subprocess
import zlib
from typing import Any

from MedSAM2Lib.worker.process import clean_environment, default_command
from MedSAM2Lib.worker.protocol import MAGIC, VERSION, Message, encode, read_message
from MedSAM2Lib.worker.values import pack, unpack

__all__ = ["Wire", "sealed"]


class Wire:
    """A worker, bytes in and messages out. Ends with its `with` block."""

    def __init__(self) -> None:
        environment = {**clean_environment(), "OMP_NUM_THREADS": "1"}
        self.process = subprocess.Popen(
            default_command(), stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=environment
        )
        self._id = 0

    def send(self, content: bytes) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(content)
        self.process.stdin.flush()

    def answer(self) -> Message | None:
        """The next message that answers something; None at the end."""
        assert self.process.stdout is not None
        while (message := read_message(self.process.stdout)) is not None:
            if message.header["type"] in ("done", "failed", "fatal"):
                return message
        return None

    def ask(self, method: str, **arguments: Any) -> Any:
        self.send(self.request(method, **arguments))
        message = self.answer()
        assert message is not None
        assert message.header["type"] == "done", message
        return unpack(message.header["value"], message.arrays)

    def request(self, method: str, **arguments: Any) -> bytes:
        return b"".join(encode(Message(*self.parts(method, **arguments))))

    def parts(self, method: str, **arguments: Any) -> tuple[dict[str, Any], list[Any]]:
        self._id += 1
        arrays: list[Any] = []
        header = {"type": "request", "id": self._id, "method": method, "volume": "ct", "arguments": pack(arguments, arrays)}
        return header, arrays

    def __enter__(self) -> Wire:
        return self

    def __exit__(self, *_: object) -> None:
        with self.process:
            self.process.kill()


def sealed(header: bytes, payload: bytes) -> bytes:
    """A message of whatever content, with right sizes and checksums."""
    prelude = struct.pack("<4sHHIQI", MAGIC, VERSION, 0, len(header), len(payload), zlib.crc32(header + payload))
    return prelude + struct.pack("<I", zlib.crc32(prelude)) + header + payload
