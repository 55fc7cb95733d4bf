"""A radiologist's work from the first box to the exported file, on real MRML."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

pytest.importorskip("slicer", reason="needs the slicer-core wheel")

import SimpleITK

from MedSAM2Lib.metrics import dice
from Testing.mrml.engine import InProcessEngine
from Testing.mrml.support import add_markups, box_around, mask_of, view, world_of

Mask = npt.NDArray[np.bool_]


def test_from_a_box_to_a_file(
    scene: Any, a_volume: Any, a_logic: Any, finish: Callable[[], None], the_kidney: Mask, the_cyst: Mask, tmp_path: Path
) -> None:
    logic, red = a_logic, view(scene, "Red")

    # A box on slice 8 gives that slice's mask.
    logic.addObject("kidney")
    red.SetSliceOffset(world_of(a_volume, [(0, 0, 8)])[0, 2])
    logic.addPrompt("kidney", box_around(scene, a_volume, the_kidney, 8), red)
    finish()
    assert [mark.index for mark in logic.timeline("kidney") if mark.present] == [8]
    assert dice(mask_of(logic, "kidney")[8:9], the_kidney[8:9]) > 0.9

    # Propagate: slices appear one after the other; cancel leaves those that have come.
    logic.propagate()
    seen: list[int] = []
    logic.onSlice.connect(lambda name, index: seen.append(index))
    while len(seen) < 3:
        logic.poll(0)
        assert mask_of(logic, "kidney").any((1, 2)).sum() == len({8, *seen})
    logic.cancel()
    finish()
    assert 3 <= len(seen) <= 4  # the slice that was worked on still came
    assert len([mark for mark in logic.timeline("kidney") if mark.present]) == 1 + len(seen)

    # A click corrects a slice; propagating again follows the object to its ends.
    red.SetSliceOffset(world_of(a_volume, [(0, 0, 9)])[0, 2])
    logic.addPrompt("kidney", add_markups(scene, "Fiducial", world_of(a_volume, [(12, 13, 9)])), red)
    logic.propagate()
    finish()
    found = mask_of(logic, "kidney")
    assert dice(found, the_kidney) > 0.9
    assert {prompt.sliceIndex: prompt.kind for prompt in logic.prompts("kidney")} == {8: "box", 9: "points"}
    (row,) = logic.objects()
    assert row.volumeMl == pytest.approx(found.sum() * 0.002)
    assert (row.axis, row.prompted) == ("k", True)

    # Lock, undo, undo, redo, redo: masks and locks go back and forth together.
    logic.lock("kidney", [8, 9])
    finish()
    assert [mark.index for mark in logic.timeline("kidney") if mark.locked] == [8, 9]
    logic.undo()
    logic.undo()
    finish()
    assert not any(mark.locked for mark in logic.timeline("kidney"))
    assert mask_of(logic, "kidney").sum() < found.sum()
    logic.redo()
    logic.redo()
    finish()
    assert [mark.index for mark in logic.timeline("kidney") if mark.locked] == [8, 9]
    np.testing.assert_array_equal(mask_of(logic, "kidney"), found)

    # A second object, drawn in another view, does nothing to the first.
    green = view(scene, "Green")
    logic.addObject()
    green.SetSliceOffset(world_of(a_volume, [(0, 33, 0)])[0, 1])
    logic.addPrompt("Object 1", box_around(scene, a_volume, the_cyst, 33, axis=1), green)
    logic.propagate(["Object 1"])
    finish()
    logic.renameObject("Object 1", "cyst")
    assert [(one.name, one.axis) for one in logic.objects()] == [("kidney", "k"), ("cyst", "j")]
    assert dice(mask_of(logic, "cyst"), the_cyst) > 0.9
    np.testing.assert_array_equal(mask_of(logic, "kidney"), found)

    # Export: on the volume's grid, to the voxel.
    (path,) = logic.export(tmp_path / "masks.nii.gz")
    image = SimpleITK.ReadImage(str(path))
    labels = SimpleITK.GetArrayFromImage(image)
    np.testing.assert_array_equal(labels == 1, found & ~mask_of(logic, "cyst"))
    np.testing.assert_array_equal(labels == 2, mask_of(logic, "cyst"))
    x, y, z = world_of(a_volume, [(0, 0, 0)])[0]
    np.testing.assert_allclose(image.TransformIndexToPhysicalPoint((0, 0, 0)), (-x, -y, z), atol=1e-4)
    files = logic.export(tmp_path / "one.seg.nrrd", onePerObject=True)
    assert [file.name for file in files] == ["one-kidney.seg.nrrd", "one-cyst.seg.nrrd"]
    assert logic.messages == []


def test_who_begins_to_draw_finds_the_engine_ready(
    scene: Any, a_logic: Any, an_engine: InProcessEngine, a_volume: Any, the_kidney: Mask, finish: Callable[[], None]
) -> None:
    view(scene).SetSliceOffset(world_of(a_volume, [(0, 0, 8)])[0, 2])
    a_logic.lookAt(None, view(scene))
    finish()
    a_logic.addObject("kidney")
    a_logic.addPrompt("kidney", box_around(scene, a_volume, the_kidney, 8), view(scene))
    a_logic.lookAt("kidney", view(scene))  # the engine has other things to do
    finish()
    asked = [request.method for request in an_engine.requests]
    assert asked[:3] == ["set_volume", "look_at", "add_prompt"]
    assert asked.count("set_volume") == asked.count("look_at") == 1


def test_a_view_of_another_place_is_not_looked_at(scene: Any, a_logic: Any, an_engine: InProcessEngine) -> None:
    view(scene).SetSliceOffset(10_000)
    a_logic.lookAt(None, view(scene))
    assert not a_logic.isBusy
    assert not an_engine.requests
