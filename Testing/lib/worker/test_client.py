"""A front end and a real engine's process: calls, slices, cancel, errors. What happens when it dies is in `test_deaths`."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from MedSAM2Lib.checkpoints.loading import load_model
from MedSAM2Lib.errors import CheckpointError, EngineError, OptionError, PromptError, ProtocolError, UsageError, VolumeError
from MedSAM2Lib.inference.session import Session, SessionOptions
from MedSAM2Lib.prompts import Box, Points
from MedSAM2Lib.slice_stack import SliceStack, resample
from MedSAM2Lib.worker.client import Done, EngineClient, EngineDied, Failed, Progress, SliceReady
from MedSAM2Lib.worker.process import clean_environment
from Testing.lib.worker.support import BOX, EVERY_SLICE, Client, a_volume, events_of, masks, open_volume, until


def test_masks_are_those_of_a_session_in_this_process(an_engine: EngineClient, an_untrained_model: Path) -> None:
    model = load_model(str(an_untrained_model), torch.device("cpu"))
    session = Session(model, SessionOptions(zoom=model.zoom, depth_prior=model.depth_prior, **EVERY_SLICE))  # type: ignore[arg-type]
    session.set_volume(a_volume())
    here = [
        session.add_prompt("organ", BOX),
        session.add_prompt("organ", Points(3, (20.0,), (18.0,), (True,))),
        *session.propagate(),
    ]

    clicked = Points(3, (20.0,), (18.0,), (True,))
    there = [an_engine.call("add_prompt", "ct", name="organ", prompt=prompt) for prompt in (BOX, clicked)]
    there += [
        event.result for event in events_of(an_engine, an_engine.request("propagate", "ct")) if isinstance(event, SliceReady)
    ]

    assert [(one.object, one.slice_index, one.confidence) for one in there] == [
        (one.object, one.slice_index, one.confidence) for one in here
    ]
    assert all(np.array_equal(one.mask, other.mask) for one, other in zip(here, there, strict=True))
    assert np.array_equal(an_engine.call("mask", "ct", name="organ"), session.mask("organ"))
    assert an_engine.call("confidence", "ct", name="organ") == session.confidence("organ")


def test_what_runs_is_told(a_client: Client) -> None:
    client = a_client(precision="bfloat16", approximations=["pooled-memories"])
    open_volume(client)
    assert (client.facts["precision"], client.facts["approximations"]) == ("bfloat16", ["pooled-memories"])
    assert client.facts["bfloat16_gain"] > 0


def test_slices_come_as_they_are_ready_then_how_many_there_were(an_engine: EngineClient) -> None:
    an_engine.call("add_prompt", "ct", name="organ", prompt=BOX)
    run = an_engine.request("propagate", "ct")
    events = events_of(an_engine, run)
    assert [event.result.slice_index for event in events if isinstance(event, SliceReady)] == [4, 2, 5, 1, 6, 0]
    progress = [event for event in events if isinstance(event, Progress) and event.request == run]
    assert [(event.done, event.total) for event in progress] == [(n, 6) for n in range(1, 7)]
    assert events[-1] == Done(run, 6)


def test_asking_and_polling_do_not_wait(an_engine: EngineClient) -> None:
    an_engine.call("add_prompt", "ct", name="organ", prompt=BOX)
    run = an_engine.request("propagate", "ct")
    longest, events = 0.0, []
    while not any(isinstance(event, (Done, Failed)) for event in events):
        began = time.thread_time()  # of this thread alone: a busy machine does not count
        events += an_engine.poll()
        longest = max(longest, time.thread_time() - began)
        time.sleep(0.005)
    assert longest < 0.05
    assert events[-1] == Done(run, 6)


def test_an_oblique_stack_is_resampled_by_the_engine_and_an_axis_of_it_needs_no_second_volume(
    an_engine: EngineClient, an_untrained_model: Path
) -> None:
    volume = a_volume()
    across = (np.cos(0.4), 0.0, np.sin(0.4))
    grid = SliceStack.oblique(volume.geometry, across, (0, 1, 0), volume.geometry.index_to_world((24, 20, 3))).geometry
    for volume_id, axis in (("oblique", "k"), ("side", "j")):
        an_engine.call("set_volume", volume_id, volume=volume, grid=grid, axis=axis, options=EVERY_SLICE)
    sizes = [(an_engine.call("slice_count", one), tuple(an_engine.call("slice_shape", one))) for one in ("oblique", "side")]
    k, j, i = grid.shape
    assert sizes == [(k, (j, i)), (j, (k, i))]

    model = load_model(str(an_untrained_model), torch.device("cpu"))
    session = Session(model, SessionOptions(zoom=model.zoom, depth_prior=model.depth_prior, **EVERY_SLICE))  # type: ignore[arg-type]
    session.set_volume(resample(volume, grid))
    here, there = session.add_prompt("organ", BOX), an_engine.call("add_prompt", "oblique", name="organ", prompt=BOX)
    assert np.array_equal(here.mask, there.mask)
    for volume_id in ("oblique", "side"):
        an_engine.call("close_volume", volume_id)


# ── cancel ────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_cancel_acts_within_one_slice_and_what_came_stays(an_engine: EngineClient) -> None:
    open_volume(an_engine, "long", a_volume(60))
    an_engine.call("add_prompt", "long", name="organ", prompt=BOX)
    run = an_engine.request("propagate", "long")
    came = until(an_engine, lambda event: isinstance(event, SliceReady))
    an_engine.cancel(run)
    came += events_of(an_engine, run)
    slices = [event.result for event in came if isinstance(event, SliceReady)]
    last = came[-1]
    assert isinstance(last, Done)
    assert last.cancelled
    assert last.value == len(slices)
    # The one that was seen, the one worked on meanwhile, and as many as a busy machine is late to show.
    assert len(slices) < 10
    mask = an_engine.call("mask", "long", name="organ")
    assert all(np.array_equal(mask[one.slice_index], one.mask) for one in slices)
    an_engine.call("close_volume", "long")


def test_a_request_that_has_not_begun_can_be_cancelled(an_engine: EngineClient) -> None:
    an_engine.call("add_prompt", "ct", name="organ", prompt=BOX)
    an_engine.request("propagate", "ct")
    late = an_engine.request("add_prompt", "ct", name="other", prompt=BOX)
    an_engine.cancel(late)
    assert events_of(an_engine, late)[-1] == Done(late, None, cancelled=True)
    assert an_engine.call("objects", "ct") == ["organ"]


def test_a_cancel_that_comes_too_late_does_nothing(an_engine: EngineClient) -> None:
    request = an_engine.request("add_prompt", "ct", name="organ", prompt=BOX)
    an_engine.wait(request)
    an_engine.cancel(request)
    assert an_engine.call("objects", "ct") == ["organ"]


# ── errors ────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("method", "arguments", "error", "says"),
    [
        ("add_prompt", {"name": "organ", "prompt": Box(99, 1, 1, 5, 5)}, PromptError, "0..6"),
        ("add_prompt", {"name": "organ"}, OptionError, "prompt"),
        ("add_prompt", {"name": 7, "prompt": BOX}, OptionError, "name"),
        ("add_prompt", {"name": "organ", "prompt": "box"}, OptionError, "prompt"),
        ("propagate", {"first": "a"}, OptionError, "first"),
        ("propagate", {"first": True}, OptionError, "first"),
        ("propagate", {"objects": [3]}, OptionError, "objects"),
        ("objects", {"name": "organ"}, OptionError, "no arguments"),
        ("mask", {"name": "spleen"}, OptionError, "spleen"),
        ("__init__", {}, OptionError, "does not know"),
        ("_propagate", {}, OptionError, "does not know"),
        ("set_volume", {}, OptionError, "same_as"),
        ("set_volume", {"volume": a_volume(), "options": {"zoom": 0.2}}, OptionError, "zoom"),
        ("set_volume", {"volume": a_volume(), "options": {"speed": 2}}, OptionError, "speed"),
        ("set_volume", {"volume": a_volume(), "axis": "diagonal"}, OptionError, "diagonal"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_said_and_nothing_has_changed(
    an_engine: EngineClient, method: str, arguments: dict[str, object], error: type[Exception], says: str
) -> None:
    an_engine.call("add_prompt", "ct", name="organ", prompt=BOX)
    before = masks(an_engine)
    with pytest.raises(error, match=says):
        an_engine.call(method, "ct", **arguments)
    after = masks(an_engine)
    assert list(after) == list(before) == ["organ"]
    assert np.array_equal(after["organ"], before["organ"])


def test_a_volume_must_be_set_first(an_engine: EngineClient) -> None:
    with pytest.raises(EngineError, match="set_volume"):
        an_engine.call("objects", "mr")


def test_what_cannot_be_sent_is_refused_at_once(an_engine: EngineClient) -> None:
    with pytest.raises(ProtocolError, match="object"):
        an_engine.request("add_prompt", "ct", name="organ", prompt=object())
    assert an_engine.call("objects", "ct") == []


def test_a_model_that_is_not_there_is_named(a_client: Client, tmp_path: Path) -> None:
    client = a_client(model=str(tmp_path / "missing.pt"))
    with pytest.raises((CheckpointError, OptionError), match=r"missing\.pt"):
        client.call("set_volume", "ct", volume=a_volume())
    assert not client.is_running


# ── the command ───────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_command_that_does_not_exist_is_reported(a_client: Client) -> None:
    client = a_client(["no-such-program", "worker"])
    request = client.request("objects", "ct")
    died, failed = client.poll()
    assert isinstance(died, EngineDied)
    assert "no-such-program" in died.reason
    assert isinstance(failed, Failed)
    assert failed.request == request


def test_a_command_that_is_no_engine_is_reported_with_what_it_said(a_client: Client) -> None:
    program = "import sys; print('Hello, this is not an engine'); print('it says so here', file=sys.stderr); sys.exit(3)"
    client = a_client([sys.executable, "-c", program])
    request = client.request("objects", "ct")
    events = events_of(client, request)
    died = next(event for event in events if isinstance(event, EngineDied))
    assert "this is not an engine" in died.reason
    assert died.exit_status == 3
    assert died.log[-1] == "it says so here"


def test_what_libraries_print_does_not_disturb(a_client: Client) -> None:
    """As a banner of a remote shell before the first message, and while the engine runs."""
    program = (
        "import os, sys, threading, time\n"
        "os.write(1, b'Welcome to gpu-host\\n')\n"
        "def chatter():\n"
        "    while True:\n"
        "        time.sleep(0.02); print('noise from Python'); os.write(1, b'noise from C\\n')\n"
        "from MedSAM2Lib.worker import server\n"
        "pipes = server._own_pipes\n"
        "def own_pipes():\n"
        "    owned = pipes(); threading.Thread(target=chatter, daemon=True).start(); return owned\n"
        "server._own_pipes = own_pipes\n"
        "server.serve()\n"
    )
    client = a_client([sys.executable, "-c", program])
    open_volume(client)
    assert client.call("add_prompt", "ct", name="organ", prompt=BOX).slice_index == 3


def test_variables_for_another_python_are_not_passed_on(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("PYTHONHOME", "PYTHONPATH", "PYTHONNOUSERSITE", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH"):
        monkeypatch.setenv(name, "/slicer")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    passed = clean_environment({"LD_LIBRARY_PATH": "/wanted"})
    assert "/slicer" not in passed.values()
    assert passed["LD_LIBRARY_PATH"] == "/wanted"
    assert passed["OMP_NUM_THREADS"] == "1"


def test_the_client_needs_neither_torch_nor_qt() -> None:
    program = (
        "import sys\n"
        "for name in ('torch', 'qt', 'PySide6', 'SimpleITK'): sys.modules[name] = None\n"
        "import MedSAM2Lib.worker.client"
    )
    subprocess.run([sys.executable, "-c", program], check=True, env={**os.environ, **clean_environment()})


# ── several volumes ───────────────────────────────────────────────────────────────────────────────────────────────


def test_two_volumes_do_not_know_of_each_other(an_engine: EngineClient) -> None:
    open_volume(an_engine, "mr", a_volume(seed=1))
    first = an_engine.call("add_prompt", "ct", name="organ", prompt=BOX)
    second = an_engine.call("add_prompt", "mr", name="lesion", prompt=BOX)
    assert an_engine.call("objects", "ct") == ["organ"]
    assert an_engine.call("objects", "mr") == ["lesion"]
    assert np.array_equal(an_engine.call("mask", "ct", name="organ")[3], first.mask)
    assert np.array_equal(an_engine.call("mask", "mr", name="lesion")[3], second.mask)
    an_engine.call("close_volume", "mr")
    with pytest.raises(EngineError, match="mr"):
        an_engine.call("objects", "mr")


def test_a_volume_seen_along_two_axes_is_sent_once(an_engine: EngineClient, monkeypatch: pytest.MonkeyPatch) -> None:
    volume, sent = a_volume(), []
    send = an_engine._process.send  # type: ignore[union-attr]
    monkeypatch.setattr(an_engine._process, "send", lambda message: (sent.append(message), send(message)))
    for axis in "kji":
        an_engine.call("set_volume", f"v/{axis}", volume=volume, axis=axis, options=EVERY_SLICE)
    assert [sum(array.nbytes for array in message.arrays) for message in sent] == [volume.array.nbytes, 0, 0]
    assert an_engine.call("slice_shape", "v/k") == [40, 48]
    assert an_engine.call("slice_shape", "v/i") == [7, 40]
    for axis in "kji":
        an_engine.call("close_volume", f"v/{axis}")


def test_volumes_beyond_the_budget_leave_and_come_back(a_client: Client) -> None:
    one, other = a_volume(), a_volume(seed=1)
    client = a_client(memory_bytes=int(1.5 * one.array.nbytes))
    open_volume(client, "one", one)
    first = client.call("add_prompt", "one", name="organ", prompt=BOX)
    open_volume(client, "other", other)
    client.call("add_prompt", "other", name="lesion", prompt=BOX)
    waiting = [client.request("objects", "one"), client.request("mask", "one", name="organ"), client.request("objects", "other")]
    objects, mask, others = (client.wait(request) for request in waiting)
    assert (objects, others) == (["organ"], ["lesion"])
    assert np.array_equal(mask[3], first.mask)
    with pytest.raises(VolumeError, match="budget"):
        open_volume(client, "huge", a_volume(20))


@pytest.mark.parametrize(
    ("message", "reason"),
    [
        ({"type": "done", "id": 1, "value": {"$record": "Popen"}}, "no sense"),
        ({"type": "progress", "id": 1}, "no sense"),
        ({"type": "heartbeat", "busy": 1, "step_s": 1000}, "1000 seconds"),
        ({"type": "fatal", "message": "Expected another version."}, "another version"),
    ],
)
def test_an_engine_that_makes_no_sense_or_does_not_get_on_is_given_up(
    a_client: Client, message: dict[str, object], reason: str
) -> None:
    program = (
        "import sys\n"
        "from MedSAM2Lib.worker.protocol import Message, encode\n"
        f"sys.stdout.buffer.write(b''.join(encode(Message({message!r})))); sys.stdout.flush(); sys.stdin.read()\n"
    )
    client = a_client([sys.executable, "-c", program])
    with pytest.raises(EngineError, match=reason):
        client.call("objects", "ct")
    assert not client.is_running


def test_a_closed_client_fails_what_was_asked_and_can_be_used_again(an_engine: EngineClient) -> None:
    an_engine.call("add_prompt", "ct", name="organ", prompt=BOX)
    pid, late = an_engine.pid, an_engine.request("propagate", "ct")
    an_engine.close()
    with pytest.raises(EngineError, match="closed"):
        an_engine.wait(late)
    with pytest.raises(UsageError, match="nothing to wait for"):
        an_engine.wait(late)
    assert an_engine.call("objects", "ct") == ["organ"]
    assert an_engine.pid != pid
