"""The panel opens, and says what is missing and what to do, whatever is missing."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from MedSAM2Lib.checkpoints import registry
from MedSAM2Lib.errors import DownloadError


def open_panel(new_host: Callable[..., Any], **options: Any) -> tuple[Any, Any]:
    host = new_host(**options)
    return host, host.open().panel


def test_without_torch_it_says_how_to_get_it(new_host: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    host, panel = open_panel(new_host)
    assert "Install PyTorch" in panel.hint.text
    assert panel.engineSection.installButton.enabled
    assert "PyTorch" in panel.engineSection.status.text
    for file in (host.script.parent / "MedSAM2SlicerLib").glob("*.py"):
        importlib.import_module(f"MedSAM2SlicerLib.{file.stem}".removesuffix(".__init__"))


def test_torch_is_not_imported_into_slicer(new_host: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    class Guard:
        def find_spec(self, name: str, *_: object) -> None:
            assert not name.startswith("torch."), "the panel must not import torch"

    for name in [each for each in sys.modules if each.split(".")[0] == "torch"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(sys, "meta_path", [Guard(), *sys.meta_path])
    open_panel(new_host)
    assert "torch" not in sys.modules


def test_without_its_weights_it_names_the_model(new_host: Callable[..., Any]) -> None:
    host, panel = open_panel(new_host)
    index = panel.engineSection.model.findData("sam2.1-large")
    panel.engineSection.model.currentIndex = index
    host.settle()
    assert "sam2.1-large" in panel.hint.text
    panel.engineSection.model.currentIndex = panel.engineSection.model.findData("nano")
    host.settle()
    assert "Load a CT or MR volume" in panel.hint.text


def test_a_download_that_fails_is_reported(
    new_host: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("MEDSAM2_MODELS", str(tmp_path))
    host, panel = open_panel(new_host)
    panel.engineSection.frame.collapsed = False
    panel.engineSection.model.currentIndex = panel.engineSection.model.findData("medsam2")
    assert "CC-BY-SA-4.0" in panel.engineSection.licence.text
    assert not panel.engineSection.removeButton.enabled

    def no_network(*_: object, **__: object) -> None:
        raise DownloadError("No address gave the file; try again on another network.")

    monkeypatch.setattr(sys.modules["MedSAM2SlicerLib.EngineModels"], "download", no_network)
    host.click(panel.engineSection.downloadButton)
    host.wait_until(lambda: panel.message.visible)
    assert "another network" in panel.message.text
    assert panel.engineSection.downloadButton.enabled


def test_with_an_engine_that_cannot_be_started_it_says_so(new_host: Callable[..., Any]) -> None:
    from patient import box_around, load_patient
    from person import Person

    host, panel = open_panel(new_host)
    panel.engineSection.command.text = "/nowhere/python -m MedSAM2Lib worker"
    panel.engineSection.command.editingFinished.emit()
    person = Person(host)
    person.loads(load_patient(host))
    person.draws_box("Red", *box_around("liver", axis=0)[1:])
    assert "/nowhere/python" in panel.engineSection.log.toPlainText()
    assert panel.message.visible


def test_an_engine_elsewhere_needs_no_weights_here_and_says_what_it_lacks_there(
    new_host: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from patient import box_around, load_patient
    from person import Person

    monkeypatch.setenv("MEDSAM2_MODELS", str(tmp_path))
    host, panel = open_panel(new_host)
    panel.engineSection.model.currentIndex = panel.engineSection.model.findData("sam2.1-tiny")
    assert "sam2.1-tiny" in panel.hint.text
    panel.engineSection.command.text = f"{sys.executable} -m MedSAM2Lib worker"
    panel.engineSection.command.editingFinished.emit()
    assert "Load a CT or MR volume" in panel.hint.text
    person = Person(host)
    person.loads(load_patient(host))
    person.draws_box("Red", *box_around("liver", axis=0)[1:])
    assert "sam2.1-tiny" in panel.message.text
    assert "medsam2 models download" in panel.message.text


def test_the_stop_rule_reaches_the_engine_that_runs(host: Any) -> None:
    from patient import box_around, load_patient
    from person import Person

    person = Person(host)
    person.loads(load_patient(host))
    person.draws_box("Red", *box_around("right kidney", axis=0)[1:])
    client = person.panel.engine.client
    process = client.pid
    person.panel.propagate.stopAfter.value = 7
    person.panel.propagate.limited.checked = True
    person.panel.propagate.first.value, person.panel.propagate.last.value = 17, 19
    host.press("Space")
    person.waits()
    assert (person.panel.engine.client, client.pid) == (client, process)
    (volume_id,) = client._held
    assert client.call("options", volume_id).stop_after == 7


def test_without_a_main_window_it_opens(new_host: Callable[..., Any]) -> None:
    _, panel = open_panel(new_host, main_window=False)
    assert "Load a CT or MR volume" in panel.hint.text


def test_every_text_can_be_translated(new_host: Callable[..., Any]) -> None:
    from patient import box_around, load_patient
    from person import Person
    from PySide6 import QtWidgets

    host, panel = open_panel(new_host, translate=lambda text: f"«{text}»")
    person = Person(host)
    person.loads(load_patient(host))
    person.draws_box("Red", *box_around("right kidney", axis=0)[1:])
    panel.refresh()
    texts: dict[str, str] = {}
    for kind in (QtWidgets.QLabel, QtWidgets.QAbstractButton):
        texts |= {kind.text(each): kind.toolTip(each) for each in QtWidgets.QWidget.findChildren(host.panel.parent, kind)}
    box = QtWidgets.QComboBox
    for each in QtWidgets.QWidget.findChildren(host.panel.parent, box):
        texts |= {box.itemText(each, row): box.toolTip(each) for row in range(box.count(each))}
    said = {text for pair in texts.items() for text in pair if any(letter.isalpha() for letter in text)}
    foreign = {"CT", "CT MedSAM2", "CPU", "CUDA (NVIDIA)", "MPS (Apple)", *registry.MODELS}  # names
    foreign |= {"None", "Loading nano."}  # words of Slicer's own widget, and of the engine, which speaks English
    foreign |= {f"{model.title}\n{model.paper}" for model in registry.MODELS.values()}
    plain = {text for text in said - foreign if "«" not in text}
    assert plain == {text for text in plain if text.endswith(" HU)")}  # windows, named as in papers
    assert len(said) > 100
    assert panel.hint.text.startswith("«")


def mute(host: Any) -> list[str]:
    """Controls that can be seen, cannot be used, and do not say why."""
    from PySide6 import QtWidgets

    kinds = (QtWidgets.QAbstractButton, QtWidgets.QComboBox, QtWidgets.QSpinBox, QtWidgets.QLineEdit, QtWidgets.QTableWidget)
    found = [widget for kind in kinds for widget in QtWidgets.QWidget.findChildren(host.panel.parent, kind)]
    of_spin_boxes = [widget for widget in found if isinstance(QtWidgets.QWidget.parentWidget(widget), QtWidgets.QSpinBox)]
    disabled = [widget for widget in found if not QtWidgets.QWidget.isEnabledTo(widget, QtWidgets.QWidget.parentWidget(widget))]
    why = {id(widget): QtWidgets.QWidget.toolTip(widget) for widget in disabled if widget not in of_spin_boxes}
    assert why
    return [str(widget) for widget in disabled if "\n\n" not in why.get(id(widget), "\n\n")]


def test_every_disabled_control_says_why_whatever_the_state(host: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from patient import box_around, load_patient
    from person import Person

    person = Person(host)
    person.panel.engineSection.frame.collapsed = False
    assert mute(host) == []
    person.loads(load_patient(host))
    assert mute(host) == []
    person.draws_box("Red", *box_around("right kidney", axis=0)[1:])
    assert mute(host) == []
    host.press("Space")
    assert mute(host) == []
    host.press("Space")
    person.waits()
    monkeypatch.setitem(sys.modules, "torch", None)
    person.panel.renewEngine()
    assert mute(host) == []


def test_keys_act_only_while_the_module_is_open(host: Any) -> None:
    from patient import load_patient

    panel = host.panel.panel
    panel.volume.selector.setCurrentNode(load_patient(host))
    host.settle(20)
    host.press("B")
    assert panel.placement.tool == "box"
    host.leave()
    assert panel.placement.tool is None
    host.press("B")
    assert panel.placement.tool is None
    host.enter()
    host.press("B")
    assert panel.placement.tool == "box"


def test_drawing_that_is_given_up_leaves_nothing(host: Any) -> None:
    from patient import load_patient

    panel = host.panel.panel
    panel.volume.selector.setCurrentNode(load_patient(host))
    nodes = {node.GetID() for node in all_nodes(host)}
    for tool in panel.prompt.tools:
        host.click(panel.prompt.tools[tool])
        host.click_at(host.views["Red"], 100, 100)
        host.click_at(host.views["Red"], 150, 150, host.right)
        host.settle(20)
    panel.placement.cancel()
    left = {node.GetID() for node in all_nodes(host)} - nodes
    assert not [each for each in left if "Markups" in each]


def test_a_closed_scene_leaves_an_empty_panel(host: Any) -> None:
    from patient import load_patient

    panel = host.panel.panel
    panel.volume.selector.setCurrentNode(load_patient(host))
    host.press("B")
    host.scene.Clear(0)
    host.settle(50)
    assert panel.logic.volumeNode is None
    assert panel.placement.tool is None
    assert "Load a CT or MR volume" in panel.hint.text


def test_a_picture_with_colours_is_refused_in_the_panel(host: Any) -> None:
    import numpy as np
    import slicer

    panel = host.panel.panel
    node = host.scene.AddNewNodeByClass("vtkMRMLVectorVolumeNode", "photo")
    slicer.util.updateVolumeFromArray(node, np.zeros((3, 4, 5, 3), np.uint8))
    panel.attempt(lambda: panel.logic.setVolume(node))
    assert panel.message.visible
    assert panel.logic.volumeNode is None


def test_sample_data_is_offered_with_checksums(host: Any) -> None:
    sample_data = sys.modules["SampleData"].SampleDataLogic
    sample_data.registered.clear()
    host.app.startupCompleted.emit()
    assert {source["nodeNames"] for source in sample_data.registered} == {"CTLiver", "CTChest", "MRHead"}
    assert all(source["uris"].endswith(source["checksums"].removeprefix("SHA256:")) for source in sample_data.registered)


def all_nodes(host: Any) -> list[Any]:
    return [host.scene.GetNthNode(index) for index in range(host.scene.GetNumberOfNodes())]
