"""The engine dies or hangs, at whatever moment: the client says so, starts another, and the work ends in the same masks."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from MedSAM2Lib.checkpoints.loading import load_model
from MedSAM2Lib.errors import EngineError
from MedSAM2Lib.inference.session import Session, SessionOptions
from MedSAM2Lib.prompts import Box, MaskPrompt, Points
from MedSAM2Lib.worker.client import Done, EngineClient, EngineDied, Failed, SliceReady
from Testing.lib.worker.support import (
    BOX,
    EVERY_SLICE,
    Mask,
    a_volume,
    events_of,
    kill,
    masks,
    open_volume,
    until,
    vanishes,
)

PAINTED = np.zeros((40, 48), dtype=bool)
PAINTED[12:24, 15:30] = True
WORK = [
    ("add_prompt", {"name": "organ", "prompt": BOX}),
    ("propagate", {}),
    ("add_prompt", {"name": "organ", "prompt": Points(5, (20.0, 5.0), (18.0, 5.0), (True, False))}),
    ("propagate", {"objects": ["organ"]}),
    ("lock", {"name": "organ", "slices": [2, 3]}),
    ("add_prompt", {"name": "lesion", "prompt": MaskPrompt(1, PAINTED)}),
    ("add_prompt", {"name": "lesion", "prompt": Box(4, 20, 15, 30, 25)}),
    ("propagate", {"redo": True}),
    ("rename_object", {"old": "lesion", "new": "cyst"}),
    ("remove_prompt", {"name": "organ", "slice_index": 5}),
    ("propagate", {"first": 1, "last": 6}),
]  # fmt: skip


UNDONE = 4  # steps, after WORK


@pytest.fixture(scope="module")
def the_masks(an_untrained_model: Path) -> list[dict[str, Mask]]:
    """What WORK leads to when nothing dies, in this process; and each of UNDONE steps back."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    model = load_model(str(an_untrained_model), torch.device("cpu"))
    options = SessionOptions(zoom=model.zoom, depth_prior=model.depth_prior, **EVERY_SLICE)  # type: ignore[arg-type]
    session = Session(model, options)
    session.set_volume(a_volume())
    for method, arguments in WORK:
        came = getattr(session, method)(**arguments)
        if method == "propagate":
            list(came)
    led_to = [{name: session.mask(name) for name in session.objects}]
    for _ in range(UNDONE):
        session.undo()
        led_to.append({name: session.mask(name) for name in session.objects})
    torch.set_num_threads(threads)
    return led_to


def same(one: dict[str, Mask], other: dict[str, Mask]) -> bool:
    return list(one) == list(other) and all(np.array_equal(one[name], other[name]) for name in one)


class Killer:
    """Kills an engine at random moments: while it starts, works, or waits. Every death must be reported, once."""

    def __init__(self, seed: int, deaths: int) -> None:
        self._chance = random.Random(seed)
        self.left = deaths

    def work(self, client: EngineClient) -> None:
        """Does all of WORK."""
        for method, arguments in WORK:
            self.do(client, method, arguments)

    def do(self, client: EngineClient, method: str, arguments: dict[str, object]) -> None:
        """A step, again where it failed because of a death."""
        while not self._step(client, method, arguments):
            pass

    def _step(self, client: EngineClient, method: str, arguments: dict[str, object]) -> bool:
        """Whether a step was done."""
        if not self.left or self._chance.random() < 0.2:
            client.call(method, "ct", **arguments)
            return True
        self.left -= 1
        if self._chance.random() < 0.7:  # not while it starts
            client.call("objects", "ct")
        request = client.request(method, "ct", **arguments)
        time.sleep(self._chance.choice([0.0, self._chance.uniform(0, 0.1), self._chance.uniform(0, 1.5)]))
        kill(client)
        events = until(client, lambda event: isinstance(event, EngineDied))
        died = [event for event in events if isinstance(event, EngineDied)]
        assert [event.exit_status for event in died] == [-signal.SIGKILL]
        events += client.poll()
        (ended,) = (event for event in events if isinstance(event, (Done, Failed)) and event.request == request)
        assert isinstance(ended, Done) or isinstance(ended.error, EngineError)
        return isinstance(ended, Done)


def test_killed_at_random_moments_the_work_ends_in_the_same_masks(
    an_engine: EngineClient, the_masks: list[dict[str, Mask]]
) -> None:
    killed_at_random_moments(an_engine, the_masks, seed=1, deaths=2)


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("seed", range(5))
def test_killed_at_fifty_random_moments_the_work_ends_in_the_same_masks(
    an_engine: EngineClient, the_masks: list[dict[str, Mask]], seed: int
) -> None:
    killed_at_random_moments(an_engine, the_masks, seed, deaths=10)


def killed_at_random_moments(client: EngineClient, the_masks: list[dict[str, Mask]], seed: int, deaths: int) -> None:
    killer = Killer(seed, deaths)
    killer.work(client)
    assert killer.left == 0
    assert same(masks(client), the_masks[0])
    killer.left = 1  # and once more while steps are taken back
    for before in the_masks[1:]:
        killer.do(client, "undo", {})
        assert same(masks(client), before)


def test_the_client_says_what_happened_and_what_was_asked_fails(an_engine: EngineClient) -> None:
    open_volume(an_engine, "long", a_volume(40))
    an_engine.call("add_prompt", "long", name="organ", prompt=BOX)
    an_engine.poll()
    run, after = an_engine.request("propagate", "long"), an_engine.request("mask", "long", name="organ")
    until(an_engine, lambda event: isinstance(event, SliceReady))
    kill(an_engine)
    events = events_of(an_engine, after)
    died = next(event for event in events if isinstance(event, EngineDied))
    assert died.exit_status == -signal.SIGKILL
    assert "signal 9" in died.reason
    failed = [event for event in events if isinstance(event, Failed)]
    assert [event.request for event in failed] == [run, after]
    assert all(isinstance(event.error, EngineError) for event in failed)
    assert not an_engine.is_running
    assert an_engine.call("objects", "long") == ["organ"]  # another engine
    an_engine.call("close_volume", "long")


def test_everything_that_was_done_comes_back(an_engine: EngineClient) -> None:
    """What was undone stays undone; other options; a second volume; more prompts than the client does again one by one."""
    an_engine.call("set_options", "ct", options={"stop_after": 2})
    an_engine.call("add_prompt", "ct", name="organ", prompt=BOX)
    an_engine.call("propagate", "ct")
    an_engine.call("add_prompt", "ct", name="organ", prompt=Points(5, (5.0,), (5.0,), (True,)))
    an_engine.call("undo", "ct")
    assert an_engine.call("undo_label", "ct") == "propagation"
    open_volume(an_engine, "mr", a_volume(seed=1))
    for index in range(45):
        clicks = Points(index % 7, (20.0,), (index / 2,), (True,))
        an_engine.request("add_prompt", "mr", name=f"organ {index % 3}", prompt=clicks)
    piped = a_volume(seed=2)  # asked for all at once
    an_engine.request("set_volume", "pt", volume=piped, options=EVERY_SLICE)
    an_engine.request("add_prompt", "pt", name="organ", prompt=BOX)
    an_engine.request("propagate", "pt")
    before = {volume_id: masks(an_engine, volume_id) for volume_id in ("ct", "mr", "pt")}
    assert len(an_engine._held["mr"].steps) < 20
    pid = an_engine.pid
    kill(an_engine)
    until(an_engine, lambda event: isinstance(event, EngineDied))
    assert all(same(masks(an_engine, volume_id), one) for volume_id, one in before.items())
    assert an_engine.pid != pid
    assert an_engine.call("undo_label", "ct") == "propagation"
    assert an_engine.call("redo_label", "ct") == "click on slice 5 of organ"
    assert an_engine.call("options", "ct").stop_after == 2
    assert an_engine.call("options", "mr").stop_after == 0
    for volume_id in ("mr", "pt"):
        an_engine.call("close_volume", volume_id)


def test_an_engine_that_hangs_is_noticed_and_replaced(an_engine: EngineClient, monkeypatch: pytest.MonkeyPatch) -> None:
    pid = an_engine.pid
    assert pid is not None
    os.kill(pid, signal.SIGSTOP)
    request = an_engine.request("objects", "ct")
    with monkeypatch.context() as patch:
        patch.setattr(an_engine, "_silence_s", 1.0)
        events = events_of(an_engine, request)
    died = next(event for event in events if isinstance(event, EngineDied))
    assert "no sign of life" in died.reason
    assert vanishes(pid)
    assert an_engine.call("objects", "ct") == []


def test_a_session_that_cannot_be_restored_is_not_gone_on_with(an_engine: EngineClient) -> None:
    an_engine.call("add_prompt", "ct", name="organ", prompt=BOX)
    an_engine.call("propagate", "ct")
    state = an_engine._held["ct"].state
    assert state is not None
    an_engine._held["ct"].state = {**state, "checksum": "0"}
    an_engine._present.clear()  # as after a death
    with pytest.raises(EngineError, match="could not be restored"):
        an_engine.call("objects", "ct")
    open_volume(an_engine)  # the way out
    assert an_engine.call("objects", "ct") == []


def test_the_engine_ends_when_its_parent_is_killed(an_untrained_model: Path) -> None:
    """In the middle of work, and without the parent having said a word."""
    program = (
        "import os, sys, time\n"
        "from MedSAM2Lib.worker.client import EngineClient\n"
        "from Testing.lib.worker.support import BOX, a_volume, open_volume\n"
        f"client = EngineClient(model={str(an_untrained_model)!r}, device='cpu', threads=1)\n"
        "open_volume(client, 'ct', a_volume(60))\n"
        "client.call('add_prompt', 'ct', name='organ', prompt=BOX)\n"
        "client.request('propagate', 'ct')\n"
        "print(client.pid, flush=True)\n"
        "time.sleep(600)\n"
    )
    root = Path(__file__).parents[3]
    environment = {**os.environ, "PYTHONPATH": str(root)}
    parent = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, env=environment)
    with parent:
        assert parent.stdout is not None
        engine = int(parent.stdout.readline())
        parent.kill()
    assert vanishes(engine)
