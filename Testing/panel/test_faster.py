"""What is given up for speed is chosen in the panel, told there, and written into what is saved."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK
import torch
from person import Person

from MedSAM2Lib.checkpoints.loading import save_checkpoint
from MedSAM2Lib.network.build import build_network
from MedSAM2Lib.network.config import APPROXIMATIONS, network_config


@pytest.fixture
def own_weights(tmp_path: Path) -> Path:
    """A file of somebody's own: EfficientTAM's tiny network, small enough to load in a moment."""
    torch.manual_seed(0)
    save_checkpoint(build_network(network_config("efficienttam-tiny")), "efficienttam-tiny", tmp_path / "own.pt")
    return tmp_path / "own.pt"


def chooses(person: Person, precision: str) -> None:
    box = person.panel.engineSection.faster.precision
    box.currentIndex = box.findData(precision)


def switch(person: Person, name: str) -> Any:
    return person.panel.engineSection.faster.approximations[name]


def waits_for_engine(person: Person) -> dict[str, Any]:
    person.host.wait_until(lambda: bool(person.panel.engine.facts()))
    person.host.settle(50)
    return person.panel.engine.facts()


def follows(person: Person, first: int, last: int) -> None:
    panel = person.panel
    panel.propagate.limited.checked = True
    panel.propagate.first.value, panel.propagate.last.value = first, last
    person.host.press("Space")
    person.waits()


def test_fast_in_the_middle_of_work_loses_nothing(person: Person, host: Any, tmp_path: Path) -> None:
    panel, name = person.panel, person.logic.currentObject
    follows(person, 15, 20)
    before, marks, first = person.sees(name), person.logic.timeline(name), panel.engine.client
    chooses(person, "bfloat16")
    assert panel.engine.client is not first
    assert waits_for_engine(person)["precision"] == "bfloat16"
    assert panel.engineSection.status.text.endswith("bfloat16")
    assert person.logic.timeline(name) == marks
    assert np.array_equal(person.sees(name), before)
    follows(person, 12, 24)
    panel.finish.path.currentPath = str(tmp_path / "kidney.seg.nrrd")
    host.click(panel.finish.exportButton)
    written = SimpleITK.ReadImage(str(tmp_path / "kidney.seg.nrrd")).GetMetaData("Segment0_Tags")
    assert re.search(r"\|MedSAM2.madeWith:nano \(sha256 \w{12}\), float32; nano \(sha256 \w{12}\), bfloat16\|$", written)
    assert panel.message.text.startswith("Written")
    assert not (before & ~person.sees(name)).any()
    assert person.sees(name)[21:25].any()
    for _ in range(2):
        host.press("Ctrl+Z")
        person.waits()
    assert person.sees(name).any(axis=(1, 2)).sum() == 1
    made = person.logic._current.bridge.madeWith
    record = person.logic.objects()[0]
    host.click(panel.objects.deleteButton)
    person.waits()
    host.press("Ctrl+Z")
    person.waits()
    assert made(record.segmentId).endswith("bfloat16")


def test_a_propagation_that_it_interrupts_can_be_gone_on_with(person: Person, host: Any) -> None:
    name = person.logic.currentObject
    host.press("Space")
    host.wait_until(lambda: sum(mark.present for mark in person.logic.timeline(name)) > 2)
    chooses(person, "bfloat16")
    came = person.sees(name)
    assert "repeat the last step" in person.panel.message.text
    assert came.any(axis=(1, 2)).sum() > 2
    follows(person, 15, 24)
    assert not (came & ~person.sees(name)).any()


def test_what_was_chosen_is_there_when_the_panel_is_made_anew(host: Any) -> None:
    person = Person(host)
    person.panel.engineSection.model.currentIndex = person.panel.engineSection.model.findData("medsam2")
    chooses(person, "bfloat16")
    switch(person, "crop").checked = True
    host.scene.Clear(0)
    host.leave()
    host.panel.cleanup()
    host.open()
    person = Person(host)
    assert person.panel.engineSection.faster.precision.currentData == "bfloat16"
    assert [name for name in APPROXIMATIONS if switch(person, name).checked] == ["crop"]


def test_what_the_model_cannot_be_given_is_grey_and_says_why(person: Person) -> None:
    model, reasons = person.panel.engineSection.model, {"crop": "already", "pooled-memories": "no faster"}
    model.currentIndex = model.findData("medsam2")
    for name in reasons:
        assert switch(person, name).enabled
        switch(person, name).checked = True
    model.currentIndex = model.findData("nano")
    for name, why in reasons.items():
        assert (switch(person, name).enabled, switch(person, name).checked) == (False, False)
        assert why in switch(person, name).toolTip
    person.panel.engine.client.start()
    assert waits_for_engine(person)["approximations"] == []
    model.currentIndex = model.findData("medsam2")
    assert all(switch(person, name).checked for name in reasons)


def test_every_approximation_says_what_it_gains_and_costs(host: Any) -> None:
    from MedSAM2SlicerLib.WidgetFaster import approximationTexts

    assert set(approximationTexts()) == set(APPROXIMATIONS)
    assert all("times as fast" in figures for _, figures in approximationTexts().values())


@pytest.mark.parametrize(("gain", "said"), [(None, "bfloat16"), (1.9, "bfloat16"), (0.5, "slower than exact on this processor")])
def test_the_status_says_where_fast_is_slow(host: Any, gain: float | None, said: str) -> None:
    from MedSAM2SlicerLib.WidgetFaster import fasterBy

    assert fasterBy({"precision": "bfloat16", "bfloat16_gain": gain})[0].endswith(said)


def test_an_approximation_reaches_the_engine_and_masks_stay(person: Person, own_weights: Path) -> None:
    panel, name = person.panel, person.logic.currentObject
    follows(person, 17, 18)
    before = person.sees(name)
    panel.engineSection.weights.currentPath = str(own_weights)
    for approximation in ("crop", "pooled-memories"):
        switch(person, approximation).checked = True
    assert waits_for_engine(person)["approximations"] == ["crop", "pooled-memories"]
    assert "approximate: square around the object" in panel.engineSection.status.text
    assert np.array_equal(person.sees(name), before)
    follows(person, 16, 19)
    assert not panel.message.visible, panel.message.text
    (opened,) = panel.engine.client._held.values()
    assert opened.volume.array.shape == before.shape


def test_an_engine_that_refuses_says_so_and_the_one_before_goes_on(person: Person, tmp_path: Path) -> None:
    panel, name = person.panel, person.logic.currentObject
    before = person.sees(name)
    mine = tmp_path / "mine.pt"
    save_checkpoint(build_network(network_config("nano")), "nano", mine)
    panel.engineSection.weights.currentPath = str(mine)
    assert waits_for_engine(person)["model"] == "mine.pt"
    switch(person, "crop").checked = True
    person.host.wait_until(lambda: "settings before" in panel.message.text)
    assert "sees a crop of the slice as it is" in panel.message.text
    assert not switch(person, "crop").checked
    assert waits_for_engine(person) | {"approximations": []} == panel.engine.facts()
    assert np.array_equal(person.sees(name), before)
    follows(person, 19, 19)
    assert panel.engine.isRunning
