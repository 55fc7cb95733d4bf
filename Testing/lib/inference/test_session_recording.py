"""A session writes down what was done; done again, it gives the same masks bit for bit."""

from __future__ import annotations

import json
from dataclasses import replace
from itertools import islice
from pathlib import Path

import numpy as np
import pytest

from MedSAM2Lib.checkpoints.loading import LoadedModel
from MedSAM2Lib.errors import PromptError, UsageError
from MedSAM2Lib.inference.session import Session, SessionOptions
from MedSAM2Lib.prompt_files import read_prompts, read_recording, recording_to_json
from MedSAM2Lib.prompts import Box, Box3D, MaskPrompt, Points, RecistLine
from MedSAM2Lib.session_steps import AddPrompt, GoOn, Lock, Propagate, RemoveObject, SessionStep, Undo
from MedSAM2Lib.step_json import AddMaskFile
from MedSAM2Lib.volume import Volume
from Testing.lib.inference.support import PLAIN, Mask, ellipsoid, known, opened, volume_of

SHAPE = (8, 20, 24)
BOX = Box(3, 5, 6, 14, 13)
DAMAGED = {"shape": [3, 3], "box": [0, 3, 0, 3], "bits": "AAAA"}
OPTIONS = SessionOptions(zoom=1.2, stop_after=2)


@pytest.fixture(scope="module")
def a_small_volume() -> Volume:
    return volume_of(ellipsoid(SHAPE))


def painted() -> Mask:
    mask = np.zeros(SHAPE[1:], dtype=bool)
    mask[5:9, 6:11] = True
    return mask


def told(session: Session) -> None:
    """Box, propagation, a click on a wrong slice, propagation again, a lock, back and forth, a second object."""
    session.add_prompt("liver", BOX)
    list(session.propagate())
    session.add_prompt("liver", Points(5, (9.0, 3.0), (9.0, 3.0), (True, False)))
    list(session.propagate())
    session.lock("liver", [1, 2])
    session.undo()
    session.redo()
    session.add_prompt("cyst", MaskPrompt(2, painted()))
    list(islice(session.propagate(["cyst"], first=1), 2))  # cancelled
    results = session.propagate()
    next(results)
    session.add_prompt("cyst", RecistLine(6, 4, 4, 12, 4))  # while it goes on
    next(results)
    session.rename_object("liver", "organ")
    list(results)
    session.add_prompt("node", Box3D(3, 5, 5, 6, 14, 13))
    list(session.propagate(["node"], redo=True))
    session.undo()
    session.unlock("organ", [1])
    session.add_prompt("cyst", Points(2, (9.0,), (9.0,), (True,)))
    session.remove_prompt("cyst", 6)
    session.remove_object("node")


def replayed(session: Session, steps: list[object]) -> Session:
    for step in steps:
        list(session.perform(step))  # type: ignore[arg-type]
    return session


@pytest.fixture
def a_recorded_session(a_model: LoadedModel, a_small_volume: Volume) -> Session:
    session = opened(a_model, a_small_volume, OPTIONS)
    told(session)
    return session


def test_a_recording_done_again_gives_the_same_masks(
    a_recorded_session: Session, a_model: LoadedModel, a_small_volume: Volume, tmp_path: Path
) -> None:
    path = tmp_path / "session.json"
    path.write_text(json.dumps(a_recorded_session.recording()))
    again = opened(a_model, a_small_volume, OPTIONS)
    steps = list(read_prompts(path).steps)
    for number, step in enumerate(steps):
        list(again.perform(step))  # type: ignore[arg-type]
        assert again.recording()["steps"][: number + 1] == a_recorded_session.recording()["steps"][: number + 1]
    assert known(again) == known(a_recorded_session)
    for name in ("organ", "cyst"):
        assert np.array_equal(again.mask(name), a_recorded_session.mask(name))
    while a_recorded_session.can_undo:
        assert again.undo_label == a_recorded_session.undo_label
        assert again.undo() == a_recorded_session.undo()


def test_a_recording_tells_what_was_done_meanwhile(a_model: LoadedModel, a_small_volume: Volume) -> None:
    session = opened(a_model, a_small_volume)
    session.add_prompt("liver", BOX)
    results = session.propagate(first=1)
    for _ in range(2):
        next(results)
    session.lock("liver", [7])
    next(results)
    assert session.recording() == {
        "format": "medsam2-prompts/1",
        "axis": "k",
        "window": [0.0, 255.0],
        "steps": [
            {"do": "prompt", "object": "liver", "prompt": {"type": "box", "slice": 3, "box": [5.0, 6.0, 14.0, 13.0]}},
            {"do": "propagate", "range": [1, None], "results": 2},
            {"do": "lock", "object": "liver", "slices": [7]},
            {"do": "go on", "results": 1},
        ],
    }
    list(results)
    assert session.recording()["steps"][-1] == {"do": "go on"}


def test_what_was_refused_or_never_begun_is_not_recorded(a_model: LoadedModel, a_small_volume: Volume) -> None:
    session = opened(a_model, a_small_volume)
    session.add_prompt("liver", BOX)
    before = session.recording()
    session.propagate()
    for refused in (
        lambda: session.add_prompt("liver", replace(BOX, slice_index=99)),
        lambda: session.lock("liver", [99]),
        lambda: session.remove_prompt("liver", 2),
        lambda: session.propagate(["spleen"]),
        session.redo,
    ):
        with pytest.raises(UsageError):
            refused()
    assert session.recording() == before


def test_another_volume_begins_another_recording(a_recorded_session: Session, a_small_volume: Volume) -> None:
    a_recorded_session.set_volume(a_small_volume, "j", "0:100")
    assert a_recorded_session.recording() == {
        "format": "medsam2-prompts/1", "axis": "j", "window": [0.0, 100.0], "steps": [],
    }  # fmt: skip


def test_every_step_is_read_back() -> None:
    told_steps: list[SessionStep] = [
        AddPrompt("a: b", Box3D(1, 4, 1.5, 2, 3, 4)),
        Propagate(("a: b",), 2, 7, True, 0),
        GoOn(3),
        Lock("a: b", (1, 5)),
        RemoveObject("a: b"),
        Undo(),
    ]
    assert read_recording(json.loads(json.dumps(recording_to_json(told_steps, "k", (0, 1))))) == told_steps


def test_masks_in_files_are_steps_too_but_not_of_a_recording(tmp_path: Path) -> None:
    content = {"steps": [{"do": "prompt", "object": "a", "prompt": {"type": "mask", "file": "a.nrrd", "label": 2}}]}
    path = tmp_path / "steps.json"
    path.write_text(json.dumps(content))
    (step,) = read_prompts(path).steps
    assert isinstance(step, AddMaskFile)
    assert (step.object, step.mask.path, step.mask.label) == ("a", tmp_path / "a.nrrd", 2)
    with pytest.raises(ValueError, match="names no files"):
        read_recording(content)


@pytest.mark.parametrize(
    ("step", "said"),
    [
        (7, 'steps[0]: expected "do" to be one of prompt, remove prompt, propagate'),
        ({"do": "jump"}, 'but it is "jump"'),
        ({"do": "lock", "object": "a"}, 'steps[0] lacks "slices"'),
        ({"do": "undo", "twice": True}, 'steps[0] has "twice"'),
        ({"do": "prompt", "object": "", "prompt": {}}, 'expected "object" to be a text'),
        ({"do": "prompt", "object": "a", "prompt": {"type": "circle"}}, 'steps[0].prompt: expected "type" to be one of box'),
        ({"do": "propagate", "range": [1]}, "[FIRST, LAST]"),
        ({"do": "propagate", "objects": "a"}, "a list of names"),
        ({"do": "propagate", "redo": 1}, "true or false"),
        ({"do": "propagate", "results": -1}, "count slices"),
        ({"do": "lock", "object": "a", "slices": [1.5]}, "whole numbers"),
        ({"do": "prompt", "object": "a", "prompt": {"type": "painted", "slice": 1, "pixels": {}}}, "lacks"),
        (
            {"do": "prompt", "object": "a", "prompt": {"type": "painted", "slice": 1, "pixels": DAMAGED}},
            "as a session writes it",
        ),
    ],
)  # fmt: skip
def test_a_step_that_is_wrong_says_where(tmp_path: Path, step: object, said: str) -> None:
    path = tmp_path / "steps.json"
    path.write_text(json.dumps({"steps": [step]}))
    with pytest.raises(PromptError) as raised:
        read_prompts(path)
    assert str(raised.value).startswith(str(path))
    assert said in str(raised.value)


def test_a_propagation_goes_on_only_after_it_began(a_model: LoadedModel, a_small_volume: Volume) -> None:
    with pytest.raises(UsageError, match="no propagation that could go on"):
        list(opened(a_model, a_small_volume, PLAIN).perform(GoOn()))
