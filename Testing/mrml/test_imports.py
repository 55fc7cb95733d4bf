"""The bridges and the logic know neither Qt nor torch: whoever runs Slicer without them can still look at a session."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("slicer", reason="needs the slicer-core wheel")

import MedSAM2SlicerLib

FOLDER = Path(MedSAM2SlicerLib.__file__).parent
LOGIC = (
    "Autosave", "AutosaveFile", "AutosaveFolder", "CommandQueue", "Conversation", "Export", "Patch", "PromptBridge",
    "Records", "SegmentBridge", "SegmentationLogic", "SceneSessions", "SessionNode", "Signal", "Speed", "TimeSequence",
    "TrackedObject", "ViewBridge", "VolumeBridge", "VolumeSession",
)  # fmt: skip


def test_the_logic_imports_without_qt_and_torch() -> None:
    blocked = "import sys; sys.modules.update(dict.fromkeys(('torch', 'qt', 'ctk', 'PySide6')))\n"
    program = blocked + "\n".join(f"import MedSAM2SlicerLib.{name}" for name in LOGIC)
    search = [str(FOLDER.parent), str(FOLDER.parent.parent)]
    result = subprocess.run(
        [sys.executable, "-c", f"import sys; sys.path[:0] = {search}\n{program}"], capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr


@pytest.mark.parametrize("name", LOGIC)
def test_the_scene_is_an_argument(name: str) -> None:
    source = (FOLDER / f"{name}.py").read_text(encoding="utf-8")
    assert not [
        word for word in ("slicer.mrmlScene", "slicer.app", "slicer.util", "slicer.modules", "print(") if word in source
    ]
