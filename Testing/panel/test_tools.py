"""Every way to draw a prompt, in views along and across the volume's axes, gives the object a mask where it was drawn."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np


def test_every_tool_gives_a_mask_where_it_was_drawn(host: Any) -> None:
    from patient import box_around, load_patient
    from person import Person

    person = Person(host)
    person.loads(load_patient(host))
    slice_index, first, last = box_around("right kidney", axis=0, margin=-3)
    person.pages("Red", first)
    corner = np.array([first[0], last[1], first[2]])
    middle = (first + last) / 2
    clicks = {
        "box": [first, last],
        "line": [first, last],
        "point": [middle],
        "outline": [first, corner, last],
        "scribble": [middle, (middle + last) / 2],
        "box3d": [first, last],
    }
    kinds = {}
    for tool, places in clicks.items():
        person.logic.addObject(tool)
        host.settle(50)
        host.click(person.panel.prompt.tools[tool])
        for place in places:
            host.click_on("Red", place)
        if tool in ("point", "outline", "scribble"):
            host.click_on("Red", middle, host.right)  # ends it
        person.waits()
        assert person.panel.placement.tool is None, tool
        present = [mark.index for mark in person.logic.timeline(tool) if mark.present]
        assert present == [slice_index], (tool, person.panel.message.text)
        kinds[tool] = person.logic.prompts(tool)[0].kind
    assert set(kinds) == set(person.panel.prompt.tools)
    assert (kinds["box"], kinds["line"], kinds["outline"], kinds["box3d"]) == ("box", "line", "mask", "box3d")


def test_a_box_in_an_oblique_view_follows_the_view(host: Any, screenshots: Path) -> None:
    import vtk
    from heartbeat import LONGEST_BLOCK_MS, Heartbeat
    from patient import load_patient, phantom, ras
    from person import Person

    person = Person(host)
    person.loads(load_patient(host))
    where = np.argwhere(phantom().structures["right kidney"])
    middle = ras(where.mean(0)[::-1])
    turn = vtk.vtkTransform()
    turn.Translate(*middle)
    turn.RotateX(25)
    turn.Concatenate(host.slice_nodes["Red"].GetSliceToRAS())
    to_ras = turn.GetMatrix()
    for row in range(3):
        to_ras.SetElement(row, 3, middle[row])
    host.slice_nodes["Red"].GetSliceToRAS().DeepCopy(to_ras)
    host.slice_nodes["Red"].UpdateMatrices()
    across, up = (np.array([to_ras.GetElement(row, column) for row in range(3)]) for column in (0, 1))
    heartbeat = Heartbeat()
    heartbeat.start()
    host.press("B")
    host.click_on("Red", middle - 25 * across - 25 * up)
    host.click_on("Red", middle + 25 * across + 25 * up)
    person.waits()
    heartbeat.stop()
    record = person.logic.objects()[0]
    assert record.axis == "oblique", person.panel.message.text
    host.screenshot(screenshots / "panel_oblique.png")
    inside = np.argwhere(person.sees(record.name))
    assert len(inside) > 0
    assert all(np.linalg.norm(ras(voxel[::-1]) - middle) < 45 for voxel in inside[::20])

    heartbeat.start()
    host.press("Space")
    person.waits()
    sys.stdout.write(f"\nLongest block of the event loop in an oblique view: {heartbeat.stop()}.\n")
    assert sum(mark.present for mark in person.logic.timeline(record.name)) > 5
    assert heartbeat.longest_work_ms < LONGEST_BLOCK_MS


def test_escape_drops_what_is_being_drawn(host: Any) -> None:
    from patient import box_around, load_patient
    from person import Person

    person = Person(host)
    person.loads(load_patient(host))
    _, first, _ = box_around("right kidney", axis=0, margin=-3)
    person.pages("Red", first)
    host.press("B")
    host.click_on("Red", first)
    assert person.panel.placement.tool == "box"
    for _ in range(2):  # the second time there is nothing to drop
        host.press("Esc")
        assert person.panel.placement.tool is None
        assert host.scene.GetNumberOfNodesByClass("vtkMRMLMarkupsROINode") == 0
    assert not person.logic.objects()


def test_a_click_beside_the_object_looks_like_a_minus(host: Any) -> None:
    from patient import box_around, load_patient
    from person import Person

    person = Person(host)
    person.loads(load_patient(host))
    _, first, last = box_around("right kidney", axis=0, margin=-3)
    person.draws_box("Red", first, last)
    for key, place in (("P", (first + last) / 2), ("N", first)):
        host.press(key)
        host.click_on("Red", place)
        person.waits()
    host.click_on("Red", first, host.right)
    clicks = host.scene.GetNodesByClass("vtkMRMLMarkupsFiducialNode")
    on, beside = (clicks.GetItemAsObject(number).GetDisplayNode() for number in range(2))
    assert beside.GetGlyphType() == beside.Dash2D
    assert on.GetGlyphType() != on.Dash2D
