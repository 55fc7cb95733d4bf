"""Slicer was killed in the middle of work: the panel of the next one offers what was saved, in a line that is in nobody's way."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest


@pytest.mark.skipif(sys.platform == "win32", reason="SIGKILL is a POSIX signal")
def test_a_press_brings_the_masks_back(new_host: Callable[..., Any], tmp_path: Path) -> None:
    host = new_host()
    from Testing.mrml.killed_slicer import digest, killed
    from Testing.mrml.support import add_patient

    masks = killed(tmp_path / "temporary" / "MedSAM2-autosave", saves=3, seconds=0.1)
    panel = host.open().panel
    offer = panel.autosave
    assert offer.line.visible
    assert "in the middle of work on CT" in offer.text.text
    assert not offer.restoreButton.enabled
    assert "Load CT (48 × 44 × 16 voxels) first" in offer.restoreButton.toolTip

    panel.volume.selector.setCurrentNode(add_patient(host.scene))
    host.settle(50)
    assert offer.restoreButton.enabled
    host.click(offer.restoreButton)
    host.wait_until(lambda: not offer.line.visible)
    assert digest(panel.logic) in masks
    assert panel.logic.currentObject is not None
    assert "restored" in panel.message.text
    assert panel.propagate.button.enabled


def test_a_press_throws_it_away(new_host: Callable[..., Any], tmp_path: Path) -> None:
    host = new_host()
    from MedSAM2SlicerLib import AutosaveFile
    from MedSAM2SlicerLib.AutosaveFolder import AutosaveFolder

    volume = AutosaveFile.Identity("CT", (4, 5, 6), (1, 1, 1), (0, 0, 0), (1, 0, 0, 0, 1, 0, 0, 0, 1), "")
    dead = AutosaveFolder(tmp_path / "temporary" / "MedSAM2-autosave")
    for name in ("one", "two"):
        AutosaveFile.write(dead.path(name), AutosaveFile.Content(volume, "auto", (), (), ""))
    dead._locks.close()
    offer = host.open().panel.autosave
    for _ in range(2):
        assert offer.line.visible
        host.click(offer.discardButton)
    assert not offer.line.visible
    assert list((tmp_path / "temporary" / "MedSAM2-autosave").rglob("*.autosave")) == []


def test_what_is_done_in_the_panel_is_saved(host: Any, tmp_path: Path) -> None:
    from Testing.mrml.support import add_patient

    panel, folder = host.panel.panel, tmp_path / "temporary" / "MedSAM2-autosave"
    panel.volume.selector.setCurrentNode(add_patient(host.scene))
    host.settle(50)
    panel.logic.addObject("kidney")
    panel.autosave._autosave.saveNow()
    host.wait_until(lambda: list(folder.rglob("*.autosave")) and not panel.autosave._autosave.isBusy)
    host.scene.Clear(False)
    assert list(folder.rglob("*.autosave")) == []
