"""One engine for a long day: memory and file descriptors stay where they are."""

from __future__ import annotations

import random
import sys
from pathlib import Path
from typing import Any

import pytest

from MedSAM2Lib.prompts import Box, Points
from MedSAM2Lib.worker.client import Done, EngineClient, Failed, SliceReady
from Testing.lib.worker.support import a_volume, events_of, until

INTERACTIONS = 2000
WARM_UP = 200  # interactions, until caches have filled
OPTIONS = {"stop_after": 0, "cache_bytes": 2**22, "history_bytes": 2**20}
NAMES = ("liver", "spleen", "lesion")


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_memory_and_file_descriptors_stay_flat(the_engine: EngineClient, capsys: pytest.CaptureFixture[str]) -> None:
    chance = random.Random(0)
    the_engine.call("set_volume", "ct", volume=a_volume(), options=OPTIONS)
    used, ended = {}, {"done": 0, "failed": 0}
    for turn in range(INTERACTIONS + 1):
        if turn in (WARM_UP, INTERACTIONS // 2, INTERACTIONS):
            used[turn] = resident_and_open(the_engine)
        ended["done" if interact(the_engine, chance) else "failed"] += 1
    with capsys.disabled():
        sys.stdout.write(f"\n{ended}; after interactions: (resident MB, file descriptors) {used}\n")
    (first, files), _, (last, files_at_end) = used.values()
    assert files == files_at_end
    assert last < 1.05 * first + 8
    assert ended["done"] > ended["failed"] > 0


def interact(client: EngineClient, chance: random.Random) -> bool:
    """Does something that a person might do, possible or not; whether it was."""
    name, index = chance.choice(NAMES), chance.randrange(7)
    x, y = chance.uniform(0, 47), chance.uniform(0, 39)
    something: list[tuple[str, dict[str, Any]]] = [
        ("add_prompt", {"name": name, "prompt": Box(index, x / 2, y / 2, x / 2 + 15, y / 2 + 15)}),
        ("add_prompt", {"name": name, "prompt": Points(index, (x,), (y,), (chance.random() < 0.7,))}),
        ("add_prompt", {"name": name, "prompt": Box(99, 0, 0, 5, 5)}),
        ("propagate", {"first": max(index - 2, 0), "last": min(index + 2, 6)}),
        ("remove_prompt", {"name": name, "slice_index": index}),
        ("lock", {"name": name, "slices": [index]}),
        ("unlock", {"name": name}),
        ("undo", {}),
        ("redo", {}),
        ("mask", {"name": name}),
        ("state", {}),
        ("remove_object", {"name": name}),
    ]
    method, arguments = chance.choice(something)
    if chance.random() < 0.01:
        method, arguments = "set_volume", {"volume": a_volume(seed=chance.randrange(5)), "options": OPTIONS}
    request = client.request(method, "ct", **arguments)
    if method == "propagate" and chance.random() < 0.3:
        until(client, lambda event: isinstance(event, (SliceReady, Done, Failed)))
        client.cancel(request)
        after = client.request("objects", "ct")
        return isinstance(events_of(client, after)[-1], Done)
    return isinstance(events_of(client, request)[-1], Done)


def resident_and_open(client: EngineClient) -> tuple[int, int]:
    """Megabytes of memory and file descriptors of the engine's process."""
    process = Path(f"/proc/{client.pid}")
    resident = next(int(line.split()[1]) for line in (process / "status").read_text().splitlines() if line.startswith("VmRSS"))
    return resident // 1024, len(list((process / "fd").iterdir()))
