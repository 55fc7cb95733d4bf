"""A process that works as Slicer does, saves itself, and is killed by a test.

    python -m Testing.mrml.killed_slicer FOLDER

After each step it writes a line "masks DIGEST", and after each autosave "saved".
"""

from __future__ import annotations

import hashlib
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from itertools import cycle
from pathlib import Path
from typing import Any

from MedSAM2Lib.inference.session import SessionOptions
from Testing.lib.inference.support import SeesBright, loaded
from Testing.lib.network.parity.weights import SMALL
from Testing.mrml.engine import InProcessEngine
from Testing.mrml.support import Application, add_patient, box_around, mask_of, the_cyst, the_kidney, view, world_of


def killed(folder: Path, saves: int, seconds: float, meanwhile: Callable[[], object] = lambda: None) -> list[str]:
    """Lets such a process save so often, and kills it so long afterwards; what its masks may be by what it said."""
    command = [sys.executable, "-m", "Testing.mrml.killed_slicer", str(folder)]
    with subprocess.Popen(command, cwd=Path(__file__).parents[2], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        lines: list[str] = []
        while lines.count("saved\n") < saves:
            lines.append(process.stdout.readline())
            assert lines[-1], "it ended by itself"
        meanwhile()
        time.sleep(seconds)
        process.send_signal(signal.SIGKILL)
        lines += process.stdout.readlines()
    saved = max(place for place, line in enumerate(lines) if line == "saved\n")
    return [line.split()[1] for line in lines[saved - 1 :] if line.startswith("masks")]


def digest(logic: Any) -> str:
    """Of the masks of all objects."""
    found = hashlib.sha256()
    for one in logic.objects():
        found.update(one.name.encode() + mask_of(logic, one.name).tobytes())
    return found.hexdigest()


def work(scene: Any, volume: Any, logic: Any) -> Any:
    """Draws, follows, draws again: for ever. Yields after each step, when the engine is done."""
    things = {"kidney": the_kidney(), "cyst": the_cyst()}
    for index, (name, thing) in zip(cycle((8, 6, 7, 9, 5, 10)), cycle(things.items()), strict=False):
        if name not in [one.name for one in logic.objects()]:
            logic.addObject(name)
        red = view(scene, "Red")
        red.SetSliceOffset(world_of(volume, [(0, 0, index)])[0, 2])
        logic.addPrompt(name, box_around(scene, volume, thing, index), red)
        yield
        logic.propagate([name], first=index - 1, last=index + 1)
        yield


def main(folder: Path) -> None:
    from MedSAM2SlicerLib.Autosave import Autosave
    from MedSAM2SlicerLib.SegmentationLogic import SegmentationLogic

    application = Application()
    engine = InProcessEngine(loaded(SeesBright, replace(SMALL, image_size=128)), SessionOptions(zoom=1.6))
    logic = SegmentationLogic(application.scene, engine)
    volume = add_patient(application.scene)
    logic.setVolume(volume)
    autosave = Autosave(application.scene, logic, folder, interval=0)
    for _ in work(application.scene, volume, logic):
        while logic.isBusy:
            logic.poll()
        sys.stdout.write(f"masks {digest(logic)}\n")
        sys.stdout.flush()
        autosave.saveNow()
        autosave.poll()
        while autosave.isBusy:
            autosave.poll()
        sys.stdout.write("saved\n")
        sys.stdout.flush()
        time.sleep(0.01)


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[2] / "MedSAM2Slicer"))
    main(Path(sys.argv[1]))
