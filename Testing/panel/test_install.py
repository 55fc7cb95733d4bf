"""The button that installs PyTorch: through Slicer's PyTorch extension, with a restart in between where one is needed."""

from __future__ import annotations

import sys
from collections.abc import Callable
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

import pytest


@pytest.fixture
def host(new_host: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> Any:
    """A host in which torch is missing, and the Engine section is open."""
    monkeypatch.setitem(sys.modules, "torch", None)
    made = new_host()
    made.open().panel.engineSection.frame.collapsed = False
    return made


def test_without_the_extension_it_is_installed_and_slicer_must_be_restarted(host: Any) -> None:
    panel = host.panel.panel
    host.click(panel.engineSection.installButton)
    assert "Installing Slicer's PyTorch extension" in panel.message.text
    host.wait_until(lambda: "Restart Slicer" in panel.message.text)
    host.settle(20)
    assert host.extensions.installed == ["PyTorch"]

    assert panel.engineSection.installButton.text == "Restart Slicer"
    host.click(panel.engineSection.installButton)
    assert host.app.restarts == 1

    panel.renewEngine()  # as after the restart
    assert "still to be installed" in panel.hint.text
    assert panel.engineSection.installButton.enabled


def test_with_the_extension_torch_is_installed_and_the_engine_can_start(host: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[dict[str, Any]] = []

    class Logic:
        """PyTorchUtils.PyTorchUtilsLogic of the PyTorch extension."""

        def installTorch(self, **options: Any) -> ModuleType:  # noqa: N802
            asked.append(options)
            monkeypatch.delitem(sys.modules, "torch")
            return ModuleType("torch")

    module = ModuleType("PyTorchUtils")
    module.__spec__ = ModuleSpec("PyTorchUtils", None)
    module.PyTorchUtilsLogic = Logic  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "PyTorchUtils", module)

    panel = host.panel.panel
    host.click(panel.engineSection.installButton)
    assert "may not answer for some minutes" in panel.message.text
    host.wait_until(lambda: asked)
    host.settle(50)
    assert asked == [{"askConfirmation": True, "torchVersionRequirement": ">=2.1"}]
    assert "Load a CT or MR volume" in panel.hint.text


def test_an_extension_that_cannot_be_installed_is_reported(host: Any) -> None:
    host.extensions.installExtensionFromServer = lambda *_: False
    host.click(host.panel.panel.engineSection.installButton)
    host.wait_until(lambda: "could not be installed" in host.panel.panel.message.text)
    assert "name another Python" in host.panel.panel.message.text
