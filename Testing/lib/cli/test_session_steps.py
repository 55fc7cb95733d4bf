"""A session that was recorded is done again from a file of steps, bit for bit."""

from __future__ import annotations

import json
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from MedSAM2Lib.checkpoints.loading import load_model
from MedSAM2Lib.inference.session import Session, SessionOptions
from MedSAM2Lib.prompts import Box, MaskPrompt, Points
from MedSAM2Lib.volume_io.read import read_labels, read_volume
from MedSAM2Lib.volume_io.write import Segment, write_segmentation
from Testing.lib.cli.support import Command


@pytest.fixture(scope="module")
def a_recorded_session(an_untrained_model: Path, a_scan: Path) -> Session:
    """Box, propagation, a click on a wrong slice, propagation again, a lock, back and forth, a second object."""
    model = load_model(str(an_untrained_model), torch.device("cpu"))
    session = Session(model, SessionOptions(depth_prior=model.depth_prior))
    session.set_volume(read_volume(a_scan), "k", "-200:200")
    session.add_prompt("organ", Box(3, 12, 11, 36, 29))
    list(session.propagate(last=4))
    session.add_prompt("organ", Points(1, (24.0, 4.0), (20.0, 4.0), (True, False)))
    list(session.propagate(last=4))
    session.lock("organ", [0, 4])
    session.undo()
    session.redo()
    painted = np.zeros(session.slice_shape, dtype=bool)
    painted[4:9, 7:12] = True
    session.add_prompt("vessel", MaskPrompt(2, painted))
    list(islice(session.propagate(["vessel"], last=4), 2))
    list(session.propagate(last=4))
    return session


@pytest.fixture
def steps_file(tmp_path: Path, a_recorded_session: Session) -> Path:
    path = tmp_path / "session.json"
    path.write_text(json.dumps(a_recorded_session.recording()))
    return path


def assert_same_masks(path: Path, session: Session) -> None:
    """The later label has the voxels that two objects share."""
    expected = np.zeros(read_labels(path).array.shape, dtype=np.uint8)
    for label, name in enumerate(session.objects, start=1):
        expected[session.mask(name)] = label
    assert set(np.unique(expected)) == {0, 1, 2}
    np.testing.assert_array_equal(read_labels(path).array, expected)


def test_a_recorded_session_gives_the_same_masks(
    segment: Command, tmp_path: Path, a_recorded_session: Session, steps_file: Path
) -> None:
    report = tmp_path / "report.json"
    ended = segment("--prompts", steps_file, "--zoom", "off", "--report", report, "--preview", tmp_path / "p.png")
    assert ended.status == 0, ended.err
    assert "following steps" in ended.err
    assert_same_masks(tmp_path / "mask.nrrd", a_recorded_session)
    written: dict[str, Any] = json.loads(report.read_text())
    assert written["prompts"] == a_recorded_session.recording()


def test_steps_may_take_masks_from_files(segment: Command, tmp_path: Path, a_scan: Path) -> None:
    geometry = read_volume(a_scan).geometry
    painted = np.zeros(geometry.shape, dtype=bool)
    painted[2:4, 10:30, 12:36] = True
    write_segmentation(tmp_path / "painted.nrrd", [Segment("organ", painted)], geometry)
    steps = [
        {"do": "prompt", "object": "organ", "prompt": {"type": "mask", "file": "painted.nrrd"}},
        {"do": "lock", "object": "organ", "slices": [2, 3]},
    ]
    (tmp_path / "steps.json").write_text(json.dumps({"steps": steps}))
    ended = segment("-o", tmp_path / "mask.nrrd", "--prompts", tmp_path / "steps.json")
    assert ended.status == 0, ended.err
    np.testing.assert_array_equal(read_labels(tmp_path / "mask.nrrd").array > 0, painted)


@pytest.mark.parametrize(
    ("steps", "more", "said"),
    [
        ([{"do": "undo"}], (), "Step 1: There is nothing to undo"),
        ([{"do": "reset"}], (), "leave no object to write"),
        ([{"do": "propagate"}], ("--range", "1:3"), "leave --range and other prompts out"),
        ([{"do": "propagate"}], ("--box", "organ:3:12,11,36,29"), "leave --range and other prompts out"),
        ([{"do": "jump"}], (), 'expected "do" to be one of'),
    ],
)
def test_steps_that_cannot_be_followed_end_with_a_message(
    segment: Command, tmp_path: Path, steps: list[Any], more: tuple[str, ...], said: str
) -> None:
    (tmp_path / "steps.json").write_text(json.dumps({"steps": steps}))
    ended = segment("--prompts", tmp_path / "steps.json", *more)
    assert ended.status == 2
    assert said in ended.err
    assert not (tmp_path / "mask.nrrd").exists()
