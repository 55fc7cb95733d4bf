from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from MedSAM2Lib.errors import PromptError
from MedSAM2Lib.geometry import Geometry
from MedSAM2Lib.prompt_files import MaskFile, NamedPrompt, PromptSet, read_prompts, resolve, to_json
from MedSAM2Lib.prompts import Box, Box3D, MaskPrompt, Points, RecistLine
from MedSAM2Lib.slice_stack import SliceStack
from MedSAM2Lib.volume_io.write import Segment, write_segmentation

GRID = Geometry((4, 5, 6), (1.0, 1.5, 2.0), (-7.0, 8.0, 9.0), (0.0, 1.0, 0.0, -1.0, 0.0, 0.0, 0.0, 0.0, 1.0))
BOX = {"type": "box", "slice": 2, "box": [1, 2, 3, 4]}
DOCUMENTATION = Path(__file__).parents[2] / "docs" / "prompts.md"


def written(folder: Path, content: Any) -> Path:
    path = folder / "prompts.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


def of_one(prompt: Any) -> dict[str, Any]:
    return {"objects": [{"name": "liver", "prompts": [prompt]}]}


def test_what_is_written_is_read_back(tmp_path: Path) -> None:
    prompts = PromptSet(
        (
            NamedPrompt("liver: left", Box(2, 1.25, 2, 3, 4)),
            NamedPrompt("liver: left", Points(2, (1, 2.5), (3, 4), (True, False))),
            NamedPrompt("lesion", RecistLine(1, 5, 4, 3, 2)),
            NamedPrompt("Niere", Box3D(0, 3, 1, 2, 3, 4)),
            NamedPrompt("spleen", MaskFile(tmp_path / "masks" / "one.nrrd", 3, (1, 2))),
            NamedPrompt("spleen", MaskFile(tmp_path / "two.nrrd")),
        ),
        axis="j",
        first=0,
        last=3,
    )
    assert read_prompts(written(tmp_path, to_json(prompts, tmp_path))) == prompts


def test_masks_are_found_from_the_files_folder_whatever_the_working_folder(tmp_path: Path) -> None:
    content = to_json(PromptSet((NamedPrompt("a", MaskFile(tmp_path / "masks" / "one.nrrd")),)), tmp_path / "reports")
    assert content["objects"][0]["prompts"][0]["file"] == "../masks/one.nrrd"


def test_the_prompts_of_a_report_are_read(tmp_path: Path) -> None:
    report = {"format": "medsam2-report/1", "axis": "k", "prompts": of_one(BOX)}
    assert read_prompts(written(tmp_path, report)).prompts == (NamedPrompt("liver", Box(2, 1, 2, 3, 4)),)


def test_the_documentations_example_is_read(tmp_path: Path) -> None:
    example = DOCUMENTATION.read_text().split("```json\n")[1].split("```")[0]
    prompts = read_prompts(written(tmp_path, example))
    assert [named.name for named in prompts.prompts] == ["liver", "liver", "lesion", "spleen", "left kidney"]
    assert (prompts.axis, prompts.first, prompts.last) == ("k", 20, 60)


def test_the_documentations_steps_are_read(tmp_path: Path) -> None:
    example = DOCUMENTATION.read_text().split("```json\n")[2].split("```")[0]
    prompts = read_prompts(written(tmp_path, example))
    assert (len(prompts.steps), prompts.window, prompts.axis) == (9, (-160, 240), "k")
    assert prompts.prompts == ()
    assert read_prompts(written(tmp_path, to_json(prompts, tmp_path))) == prompts


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("{", "is not JSON"),
        ("[]", 'the file: expected {...} with "objects"'),
        ({}, 'the file lacks "objects"'),
        ({"objects": [], "axes": "k"}, 'the file has "axes", but only'),
        ({"objects": [], "format": "medsam2-prompts/9"}, 'expected "format": "medsam2-prompts/1", but it is "medsam2-prompts/9"'),
        ({"objects": [], "axis": "z"}, 'expected "axis" to be one of k, j, i'),
        ({"objects": [], "range": [3]}, "range: expected 2 numbers, but it is [3]"),
        ({"objects": [], "range": [3, 4.5]}, "range: expected whole numbers"),
        ({"objects": {}}, 'expected "objects" to be a list'),
        ({"objects": [{"name": "", "prompts": [BOX]}]}, 'objects[0]: expected "name" to be a text'),
        ({"objects": [{"name": "a\tb", "prompts": [BOX]}]}, "must be printable text"),
        ({"objects": [{"name": "a", "prompts": []}]}, 'objects[0]: expected "prompts" to be a list of at least one'),
        (of_one({"type": "circle"}), 'objects[0].prompts[0]: expected "type" to be one of box, points, recist, box3d, mask'),
        (of_one(7), 'objects[0].prompts[0]: expected "type"'),
        (of_one({"type": "box", "slice": 2}), 'objects[0].prompts[0] lacks "box"'),
        (of_one({**BOX, "slices": 2}), 'objects[0].prompts[0] has "slices"'),
        (of_one({**BOX, "slice": "2"}), "objects[0].prompts[0].slice: expected 1 numbers"),
        (of_one({**BOX, "slice": True}), "objects[0].prompts[0].slice: expected 1 numbers"),
        (of_one({**BOX, "box": [1, 2, 3]}), "objects[0].prompts[0].box: expected 4 numbers, but it is [1, 2, 3]"),
        (of_one({**BOX, "box": [1, 2, 0, 4]}), "swap the corners"),
        (of_one({**BOX, "box": [1, 2, 10**400, 4]}), "one is too large"),
        (of_one({"type": "points", "slice": 1, "points": [[1, 2]]}), 'a list of [X, Y, "+"]'),
        (of_one({"type": "points", "slice": 1, "points": []}), "at least one"),
        (of_one({"type": "mask", "file": 3}), 'expected "file" to be a path'),
        (of_one({"type": "mask", "file": "a.nrrd", "label": "liver"}), "label: expected 1 numbers"),
    ],
)
def test_a_file_that_is_wrong_says_where(tmp_path: Path, content: Any, said: str) -> None:
    path = written(tmp_path, content)
    with pytest.raises(PromptError) as raised:
        read_prompts(path)
    assert str(raised.value).startswith(str(path))
    assert said in str(raised.value)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(PromptError, match=r"none\.json cannot be read"):
        read_prompts(tmp_path / "none.json")


def a_mask_file(folder: Path, grid: Geometry = GRID) -> Path:
    """Label 1 on slices 1 and 2 of k, label 2 on slice 3."""
    one, two = np.zeros((2, *grid.shape), dtype=bool)
    one[1, 2, 3] = one[2, 2:4, 3] = two[3, 0, 0] = True
    path = folder / "mask.nrrd"
    write_segmentation(path, [Segment("one", one), Segment("two", two)], grid)
    return path


def test_each_painted_slice_of_a_mask_is_a_prompt(tmp_path: Path) -> None:
    first, second = resolve(MaskFile(a_mask_file(tmp_path), label=1), SliceStack.along(GRID, 0))
    assert isinstance(first, MaskPrompt)
    assert isinstance(second, MaskPrompt)
    assert (first.slice_index, second.slice_index) == (1, 2)
    assert (first.mask.sum(), second.mask.sum()) == (1, 2)
    assert second.mask.shape == (5, 6)


def test_slices_of_a_mask_go_along_the_slicing_axis(tmp_path: Path) -> None:
    (prompt,) = resolve(MaskFile(a_mask_file(tmp_path), label=1), SliceStack.along(GRID, 2))
    assert isinstance(prompt, MaskPrompt)
    assert (prompt.slice_index, prompt.mask.shape, prompt.mask.sum()) == (3, (4, 5), 3)


def test_some_slices_of_a_mask_can_be_chosen(tmp_path: Path) -> None:
    prompts = resolve(MaskFile(a_mask_file(tmp_path), label=1, slices=(2,)), SliceStack.along(GRID, 0))
    assert [prompt.slice_index for prompt in prompts if isinstance(prompt, MaskPrompt)] == [2]


@pytest.mark.parametrize(
    ("label", "slices", "said"),
    [
        (None, None, "holds the labels 1, 2; say which one"),
        (7, None, "has no voxel with label 7; it has 1, 2"),
        (1, (0, 2), "has no voxel on slice 0; it has some on 1..2"),
    ],
)
def test_an_unclear_mask_is_refused(tmp_path: Path, label: int | None, slices: tuple[int, ...] | None, said: str) -> None:
    with pytest.raises(PromptError, match=said):
        resolve(MaskFile(a_mask_file(tmp_path), label, slices), SliceStack.along(GRID, 0))


@pytest.mark.parametrize(
    ("grid", "said"),
    [
        (Geometry((4, 5, 7), GRID.spacing, GRID.origin, GRID.direction), r"grid of \(4, 5, 7\) voxels"),
        (Geometry(GRID.shape, GRID.spacing, (-7.0, 8.0, 9.5), GRID.direction), r"up to 0\.50 mm apart"),
        (Geometry(GRID.shape, GRID.spacing, GRID.origin), "mm apart"),
    ],
)
def test_a_mask_on_another_grid_is_refused(tmp_path: Path, grid: Geometry, said: str) -> None:
    with pytest.raises(PromptError, match=said):
        resolve(MaskFile(a_mask_file(tmp_path), 1), SliceStack.along(grid, 0))


def test_an_empty_mask_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "empty.nrrd"
    write_segmentation(path, [Segment("nothing", np.zeros(GRID.shape, dtype=bool))], GRID)
    with pytest.raises(PromptError, match="has no voxel with a label"):
        resolve(MaskFile(path), SliceStack.along(GRID, 0))
