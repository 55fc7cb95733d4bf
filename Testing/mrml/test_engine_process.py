"""The logic with the engine that users have: another process, with nano, which may be killed."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

pytest.importorskip("slicer", reason="needs the slicer-core wheel")

from MedSAM2Lib.worker.client import EngineClient
from MedSAM2SlicerLib.SegmentationLogic import SegmentationLogic
from Testing.mrml.support import box_around, mask_of, view, world_of

_PATIENCE_S = 120


def wait(logic: SegmentationLogic, done: Callable[[], bool]) -> float:
    """Ticks like a panel's timer; returns the longest tick in seconds."""
    longest, end = 0.0, time.monotonic() + _PATIENCE_S
    while not done():
        assert time.monotonic() < end, "the engine does not answer"
        began = time.perf_counter()
        logic.poll()
        longest = max(longest, time.perf_counter() - began)
        time.sleep(0.01)
    return longest


def test_the_engine_is_killed_while_slices_come_and_nothing_is_lost(scene: Any, a_volume: Any, the_kidney: np.ndarray) -> None:
    with EngineClient(model="nano", device="cpu", threads=1) as client:
        logic = SegmentationLogic(scene, client)
        told: list[str] = []
        logic.onMessage.connect(lambda message: told.append(f"{message.level}: {message.text}"))
        logic.setVolume(a_volume)
        logic.addObject("kidney")
        view(scene).SetSliceOffset(world_of(a_volume, [(0, 0, 8)])[0, 2])
        logic.addPrompt("kidney", box_around(scene, a_volume, the_kidney, 8), view(scene))
        wait(logic, lambda: not logic.isBusy)
        assert (mask_of(logic, "kidney")[8] & the_kidney[8]).sum() > 0.8 * the_kidney[8].sum()

        seen: list[int] = []
        logic.onSlice.connect(lambda name, index: seen.append(index))
        logic.propagate()
        wait(logic, lambda: len(seen) >= 2)
        assert client.pid is not None
        os.kill(client.pid, signal.SIGKILL)
        wait(logic, lambda: not logic.isBusy)
        assert [text.partition(":")[0] for text in told if "Nothing is lost" in text] == ["warning"]
        assert {mark.index for mark in logic.timeline("kidney") if mark.present} >= {8, *seen[:2]}

        logic.propagate()
        wait(logic, lambda: not logic.isBusy)
        found = mask_of(logic, "kidney")
        assert 2 * (found & the_kidney).sum() / (found.sum() + the_kidney.sum()) > 0.8
        logic.undo()
        wait(logic, lambda: not logic.isBusy)
        assert mask_of(logic, "kidney").sum() < found.sum()
        logic.redo()
        wait(logic, lambda: not logic.isBusy)
        np.testing.assert_array_equal(mask_of(logic, "kidney"), found)
        assert not [text for text in told if text.startswith("error")]
        logic.close()
