"""The module's own self-test, which Slicer runs, runs here as well."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import pytest


@pytest.mark.parametrize("main_window", [True, False])
def test_the_self_test_passes(new_host: Callable[..., Any], main_window: bool) -> None:
    host = new_host(main_window=main_window)
    host.open()
    sys.modules["MedSAM2Slicer"].MedSAM2SlicerTest().runTest()


def test_the_panel_can_be_reloaded(host: Any) -> None:
    host.panel.onReload()
    assert not [name for name in sys.modules if name.startswith("MedSAM2SlicerLib")]
    host.panel.setup()
    host.panel.enter()
    assert "Load a CT or MR volume" in host.panel.panel.hint.text
