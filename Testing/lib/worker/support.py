"""What the tests of the engine's process share: a small volume, work to do on it, ways to end a process."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from MedSAM2Lib.geometry import Geometry
from MedSAM2Lib.prompts import Box
from MedSAM2Lib.volume import Volume
from MedSAM2Lib.worker.client import Done, EngineClient, Event, Failed, Request

__all__ = [
    "BOX",
    "EVERY_SLICE",
    "Client",
    "Mask",
    "a_volume",
    "events_of",
    "kill",
    "masks",
    "open_volume",
    "until",
    "vanishes",
]

Client = Callable[..., EngineClient]
Mask = npt.NDArray[np.bool_]

BOX = Box(3, 12, 11, 36, 29)  # around what the volume shows
EVERY_SLICE = {"stop_after": 0, "keep_largest": False}  # the model is untrained: it may not see the object anywhere


def a_volume(slices: int = 7, seed: int = 0) -> Volume:
    """(slices, 40, 48) voxels: a bright ellipsoid in noise."""
    k, j, i = np.ogrid[:slices, :40, :48]
    inside = ((k - 3) / (slices / 2)) ** 2 + ((j - 20) / 9) ** 2 + ((i - 24) / 12) ** 2 <= 1
    noise = np.random.default_rng(seed).normal(0, 15, inside.shape)
    array = np.round(np.where(inside, 110, -300) + noise).astype(np.int16)
    return Volume(array, Geometry((slices, 40, 48), (0.8, 0.9, 3.0)), modality="CT")


def open_volume(client: EngineClient, volume_id: str = "ct", volume: Volume | None = None) -> None:
    client.call("set_volume", volume_id, volume=volume or a_volume(), options=EVERY_SLICE)


def until(client: EngineClient, done: Callable[[Event], bool], seconds: float = 240.0) -> list[Event]:
    """Polls as a timer does, until an event is the one waited for; returns all that came."""
    events: list[Event] = []
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        came = client.poll()
        events += came
        if any(done(event) for event in came):
            return events
        time.sleep(0.005)
    raise AssertionError(f"Waited {seconds:.0f} seconds; what came: {events}")


def events_of(client: EngineClient, request: Request) -> list[Event]:
    """All events until a request has ended."""
    return until(client, lambda event: isinstance(event, (Done, Failed)) and event.request == request)


def kill(client: EngineClient) -> None:
    """Ends the engine's process as a failing GPU library does: without a word."""
    if (pid := client.pid) is not None:
        os.kill(pid, signal.SIGKILL)


def vanishes(pid: int, seconds: float = 20.0) -> bool:
    """Whether a process ends soon. One that its parent has not taken notice of yet (a zombie) has ended."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
        except OSError:
            return True
        if state == "Z":
            return True
        time.sleep(0.02)
    return False


def masks(client: EngineClient, volume_id: str = "ct") -> dict[str, Mask]:
    """Every object's mask."""
    names: list[Any] = client.call("objects", volume_id)
    return {name: client.call("mask", volume_id, name=name) for name in names}
