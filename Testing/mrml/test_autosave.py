"""Slicer ends in the middle of work: the next one offers what was done, and it is what was done."""

from __future__ import annotations

import random
import stat
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("slicer", reason="needs the slicer-core wheel")

from MedSAM2Lib.errors import StateError, UsageError
from MedSAM2SlicerLib import AutosaveFile
from MedSAM2SlicerLib.Autosave import Autosave
from MedSAM2SlicerLib.SegmentationLogic import SegmentationLogic
from Testing.lib.damage import DAMAGES
from Testing.mrml.engine import InProcessEngine
from Testing.mrml.killed_slicer import digest, killed, work
from Testing.mrml.support import Application, add_patient, add_volume, mask_of


class Slicer:
    """A scene with a logic and its autosaves, as one application has them."""

    def __init__(self, folder: Path, engine: InProcessEngine, patient: bool = True) -> None:
        self.application = Application()
        self.scene = self.application.scene
        self.messages: list[str] = []
        self.logic = SegmentationLogic(self.scene, InProcessEngine(engine.model, engine.options))
        self.logic.onMessage.connect(lambda message: self.messages.append(message.text))
        self.autosave = Autosave(self.scene, self.logic, folder, interval=0)
        self.volume = add_patient(self.scene) if patient else None
        self._work: Iterator[None] | None = None

    def steps(self, count: int) -> None:
        """Goes on with the work of killed_slicer."""
        if self._work is None:
            self.logic.setVolume(self.volume)
            self._work = work(self.scene, self.volume, self.logic)
        for _ in range(count):
            next(self._work)
            while self.logic.isBusy:
                self.logic.poll()

    def saves(self) -> None:
        self.autosave.saveNow()
        self.autosave.poll()
        self.waits()

    def restores(self) -> None:
        self.autosave.restore()
        self.waits()

    def waits(self) -> None:
        for _ in range(5000):
            if not self.autosave.isBusy:
                return
            self.autosave.poll()
        raise AssertionError("the autosave is not done after 5000 polls")

    def crashes(self) -> None:
        """All that the system does for a process that is killed: its locks are free."""
        self.autosave._folder._locks.close()

    def close(self) -> None:
        self.autosave.close()
        self.logic.close()
        self.application.close()


@pytest.fixture
def new_slicer(tmp_path: Path, an_engine: InProcessEngine) -> Iterator[Callable[..., Slicer]]:
    """Makes applications that share a folder for their autosaves."""
    made: list[Slicer] = []

    def make(**options: Any) -> Slicer:
        made.append(Slicer(tmp_path / "autosave", an_engine, **options))
        return made[-1]

    yield make
    for one in made:
        one.close()


def files(folder: Path) -> list[Path]:
    return sorted((folder / "autosave").glob("*/*.autosave"))


@pytest.mark.skipif(sys.platform == "win32", reason="SIGKILL is a POSIX signal")
@pytest.mark.parametrize("seed", [0, *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(1, 10))])
def test_a_killed_slicer_leaves_its_masks(new_slicer: Callable[..., Slicer], tmp_path: Path, seed: int) -> None:
    """Killed at a random moment, of work or of saving: the masks are those of one of its steps, none of the saved ones older."""

    def nothing_is_offered() -> None:
        assert new_slicer().autosave.offered is None  # its owner lives

    wait = random.Random(seed).uniform(0, 0.3)
    masks = killed(tmp_path / "autosave", 3 + seed % 3, wait, nothing_is_offered)
    next_one = new_slicer()
    assert next_one.autosave.offered is not None
    assert next_one.autosave.whyNot() is None
    assert new_slicer().autosave.offered is None  # one of them is enough
    next_one.restores()
    assert digest(next_one.logic) in masks
    assert next_one.messages == ["The work on CT is restored."]
    assert next_one.autosave.offered is None


def test_the_work_goes_on_as_it_would_have(new_slicer: Callable[..., Slicer]) -> None:
    first = new_slicer()
    first.steps(5)
    first.logic.lock("kidney", [7])
    first.logic.setWindow("auto")
    while first.logic.isBusy:
        first.logic.poll()
    first.saves()
    first.crashes()
    second = new_slicer()
    second.restores()
    for name in ("kidney", "cyst"):
        assert second.logic.timeline(name) == first.logic.timeline(name)
        assert second.logic.prompts(name) == first.logic.prompts(name)
    assert second.logic.window == "auto"
    assert [(one.name, one.color, one.volumeMl) for one in second.logic.objects()] == [
        (one.name, one.color, one.volumeMl) for one in first.logic.objects()
    ]
    for one in (first, second):
        one.logic.propagate()
        while one.logic.isBusy:
            one.logic.poll()
    assert digest(second.logic) == digest(first.logic)


def test_what_is_restored_is_saved_again_and_taken_over(new_slicer: Callable[..., Slicer], tmp_path: Path) -> None:
    first = new_slicer()
    first.steps(2)
    first.saves()
    (left,) = files(tmp_path)
    first.crashes()
    second = new_slicer()
    second.restores()
    (own,) = files(tmp_path)
    assert own != left
    second.crashes()
    assert new_slicer().autosave.offered is not None


def test_what_was_painted_by_hand_is_there_too(new_slicer: Callable[..., Slicer]) -> None:
    from MedSAM2Lib.slice_stack import Region

    first = new_slicer()
    first.steps(2)
    (session,) = first.logic.sessions
    box = (slice(0, 2), slice(0, 3), slice(0, 4))
    painted = np.ones((2, 3, 4), dtype=bool)
    session.bridge.write(next(iter(session.objects)), Region(box, painted, painted))
    first.saves()
    first.crashes()
    second = new_slicer()
    second.restores()
    assert mask_of(second.logic, "kidney")[box].all()


def test_nothing_is_written_while_nothing_changes(new_slicer: Callable[..., Slicer], tmp_path: Path) -> None:
    slicer = new_slicer()
    slicer.saves()
    assert files(tmp_path) == []
    slicer.steps(2)
    slicer.saves()
    (file,) = files(tmp_path)
    before = file.stat().st_mtime_ns
    slicer.saves()
    assert file.stat().st_mtime_ns == before
    slicer.logic.renameObject("kidney", "left kidney")
    slicer.saves()
    assert file.stat().st_mtime_ns > before


def test_a_scene_that_is_closed_or_saved_leaves_none(new_slicer: Callable[..., Slicer], tmp_path: Path) -> None:
    slicer = new_slicer()
    slicer.steps(1)
    slicer.saves()
    assert len(files(tmp_path)) == 1
    slicer.scene.SetURL(str(tmp_path / "scene.mrml"))
    slicer.scene.StartState(slicer.scene.SaveState)  # as Slicer's Save does
    slicer.scene.Commit()
    slicer.scene.EndState(slicer.scene.SaveState)
    assert files(tmp_path) == []
    slicer.saves()
    assert files(tmp_path) == []
    slicer.steps(1)
    slicer.saves()
    assert len(files(tmp_path)) == 1
    slicer.scene.Clear(False)
    assert files(tmp_path) == []


def test_an_end_that_is_no_crash_leaves_nothing(new_slicer: Callable[..., Slicer], tmp_path: Path) -> None:
    slicer = new_slicer()
    slicer.steps(1)
    slicer.saves()
    slicer.close()
    assert list((tmp_path / "autosave").iterdir()) == []


def test_discarded_work_is_not_offered_again(new_slicer: Callable[..., Slicer], tmp_path: Path) -> None:
    first = new_slicer()
    first.steps(1)
    first.saves()
    first.crashes()
    second = new_slicer()
    second.autosave.discard()
    assert second.autosave.offered is None
    assert files(tmp_path) == []


def test_the_right_volume_must_be_there(new_slicer: Callable[..., Slicer]) -> None:
    first = new_slicer()
    first.steps(1)
    first.saves()
    first.crashes()
    second = new_slicer(patient=False)
    assert second.autosave.whyNot() == "Load CT (48 × 44 × 16 voxels) first; the image itself is not in the saved work."
    with pytest.raises(UsageError, match="Load CT"):
        second.autosave.restore()
    other = add_patient(second.scene)  # on the same grid, with other voxels
    image = other.GetImageData()
    image.GetPointData().GetScalars().SetTuple1(0, 999)
    second.restores()
    assert "have other voxels" in second.messages[-1]
    assert second.logic.volumeNode is None
    assert second.autosave.offered is not None
    add_patient(second.scene)
    second.restores()
    assert len(second.logic.objects()) == 1


def test_work_that_was_begun_meanwhile_stays(new_slicer: Callable[..., Slicer]) -> None:
    first = new_slicer()
    first.steps(4)
    first.saves()
    first.crashes()
    second = new_slicer()
    second.steps(1)
    before = digest(second.logic)
    second.restores()
    assert "has objects already" in second.messages[-1]
    assert digest(second.logic) == before
    assert second.autosave.offered is not None


@pytest.mark.skipif(sys.platform == "win32", reason="modes of POSIX")
def test_only_this_user_can_read_them(new_slicer: Callable[..., Slicer], tmp_path: Path) -> None:
    slicer = new_slicer()
    slicer.steps(1)
    slicer.saves()
    assert stat.S_IMODE(files(tmp_path)[0].parent.stat().st_mode) == 0o700


def test_a_place_that_takes_no_files_is_told_once(tmp_path: Path, an_engine: InProcessEngine) -> None:
    (tmp_path / "autosave").write_text("in the way")
    slicer = Slicer(tmp_path / "autosave", an_engine)
    slicer.steps(1)
    for _ in range(3):
        slicer.saves()
    assert len(slicer.messages) == 1
    assert "cannot be made" in slicer.messages[0]
    slicer.close()


def test_a_damaged_autosave_is_refused(new_slicer: Callable[..., Slicer], tmp_path: Path) -> None:
    first = new_slicer()
    first.steps(2)
    first.saves()
    (file,) = files(tmp_path)
    whole, chance = file.read_bytes(), random.Random(0)
    content, said = AutosaveFile.read(file), []
    for _ in range(200):
        file.write_bytes(chance.choice(DAMAGES)(bytearray(whole), chance))
        try:
            assert AutosaveFile.read(file) == content  # where blanks were blank before
        except StateError as error:
            said.append(str(error))
    assert len(said) > 190
    assert all(message.endswith("discard it.") for message in said)
    file.write_bytes(b"{")
    first.crashes()
    assert new_slicer().autosave.offered is None


def test_the_event_loop_never_waits(new_slicer: Callable[..., Slicer], tmp_path: Path) -> None:
    """A large image of which half is segmented: 50 ms of this thread are more than any piece of the work takes."""
    from MedSAM2Lib.slice_stack import Region

    slicer = new_slicer(patient=False)
    voxels = np.random.default_rng(0).integers(0, 200, (60, 512, 512)).astype(np.int16)
    slicer.logic.setVolume(add_volume(slicer.scene, voxels))
    slicer.logic.addObject("body")
    (session,) = slicer.logic.sessions
    everywhere = tuple(slice(0, size) for size in voxels.shape)
    half = voxels > 100
    session.bridge.write(next(iter(session.objects)), Region(everywhere, np.ones_like(half), half))
    slicer.autosave.saveNow()
    longest, polls = 0.0, 0
    while not polls or slicer.autosave.isBusy:
        began = time.thread_time()
        slicer.autosave.poll()
        longest, polls = max(longest, time.thread_time() - began), polls + 1
    assert polls > 5
    assert longest < 0.05
    assert len(files(tmp_path)) == 1
