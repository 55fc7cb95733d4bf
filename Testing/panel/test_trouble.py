"""What goes wrong during work is said in the panel, and nothing is lost."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import Any

import pytest
from person import Person


@pytest.fixture
def person(host: Any) -> Person:
    """Someone who has a mask on one slice."""
    from patient import box_around, load_patient

    made = Person(host)
    made.loads(load_patient(host))
    made.draws_box("Red", *box_around("right kidney", axis=0)[1:])
    return made


@pytest.mark.skipif(sys.platform == "win32", reason="SIGKILL is a POSIX signal")
def test_a_killed_engine_is_reported_and_the_next_press_goes_on(person: Person, host: Any) -> None:
    panel, name = person.panel, person.logic.currentObject
    before = person.sees(name)
    host.press("Space")
    os.kill(panel.engine.client.pid, signal.SIGKILL)
    person.waits()
    assert panel.message.visible
    assert "engine" in panel.message.text.lower()
    assert not (before & ~person.sees(name)).any()
    panel.propagate.limited.checked = True
    panel.propagate.first.value, panel.propagate.last.value = 20, 24
    host.press("Space")
    person.waits()
    assert person.panel.engine.isRunning


def test_a_volume_that_is_deleted_during_propagation_ends_it(person: Person, host: Any) -> None:
    host.press("Space")
    host.scene.RemoveNode(person.logic.volumeNode)
    person.waits()
    assert not person.logic.isPropagating
    assert person.logic.volumeNode is None
    assert "Load a CT or MR volume" in person.reads_hint()


def test_a_folder_that_cannot_be_written_and_a_point_beside_the_volume_are_reported(
    person: Person, host: Any, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("in the way")
    person.panel.finish.path.currentPath = str(tmp_path / "file" / "masks.nii.gz")
    host.click(person.panel.finish.exportButton)
    assert person.panel.message.visible
    assert str(tmp_path / "file") in person.panel.message.text

    prompts = person.logic.prompts(person.logic.currentObject)
    host.press("P")
    host.click_at(host.views["Red"], 3, 300)
    host.settle(50)
    assert "on the volume" in person.panel.message.text
    assert person.logic.prompts(person.logic.currentObject) == prompts
