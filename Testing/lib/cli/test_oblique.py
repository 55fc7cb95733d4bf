"""`medsam2 segment --plane`: slices in any direction, and the masks where the object is."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import SimpleITK

from MedSAM2Lib import geometry
from MedSAM2Lib.cli import prompt_options, segmentation
from MedSAM2Lib.geometry import Geometry
from MedSAM2Lib.metrics import dice
from MedSAM2Lib.slice_plane import SlicePlane
from MedSAM2Lib.volume_io.itk import image_from_array
from MedSAM2Lib.volume_io.read import read_labels, read_volume
from Testing.lib.cli.support import BOX, Command
from Testing.lib.inference.support import SeesBright, loaded

GRID = Geometry((24, 40, 44), (1.1, 1.0, 1.3), (-30.0, 12.0, 400.0), (0.8, -0.6, 0.0, 0.6, 0.8, 0.0, 0.0, 0.0, 1.0))
NORMAL = np.array((0.25, -0.35, 0.9))  # RAS
RAS = np.array((-1.0, -1.0, 1.0))


def tilted_cylinder() -> npt.NDArray[np.bool_]:
    """(k, j, i): about the direction NORMAL through the middle of the grid, 18 mm long and 16 mm across."""
    k, j, i = np.indices(GRID.shape)
    middle = GRID.index_to_world((np.array(GRID.shape[::-1]) - 1) / 2)
    away = GRID.index_to_world(np.stack((i, j, k), axis=-1)) - middle
    along = away @ (NORMAL * RAS / np.linalg.norm(NORMAL))
    inside: npt.NDArray[np.bool_] = (np.abs(along) <= 9) & ((away**2).sum(-1) - along**2 <= 8**2)
    return inside


@pytest.fixture(scope="module")
def a_tilted_object(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("scans") / "tilted.nrrd"
    noise = np.random.default_rng(0).normal(0, 5, GRID.shape)
    array = np.round(np.where(tilted_cylinder(), 220, 30) + noise).astype(np.int16)
    SimpleITK.WriteImage(image_from_array(array, GRID), str(path))
    return path


@pytest.fixture
def seeing(monkeypatch: pytest.MonkeyPatch, medsam2: Command, a_tilted_object: Path, tmp_path: Path) -> Command:
    """`medsam2 segment` of the tilted object by a network that answers what is bright."""
    monkeypatch.setattr(segmentation.segment, "__defaults__", (lambda _: replace(loaded(SeesBright), name="seeing"),))

    def run(*options: object) -> Any:
        common = ("--window", "0:255", "--zoom", "off", "--report", tmp_path / "report.json")
        return medsam2("segment", a_tilted_object, "-o", tmp_path / "mask.nrrd", *common, *options)

    return run


def corners() -> str:
    """Of a box around the cylinder on the slice through its middle, RAS mm."""
    plane = SlicePlane.normal_to(NORMAL * RAS)
    middle = GRID.index_to_world((np.array(GRID.shape[::-1]) - 1) / 2)
    across = 9.5 * (np.array(plane.right) + np.array(plane.down))
    return ",".join(f"{value:.2f}" for corner in (middle - across, middle + across) for value in corner * RAS)


PLANE = "ras:" + ",".join(map(str, NORMAL))


def test_spaces_are_those_of_the_library() -> None:
    assert prompt_options._SPACES == geometry.WORLD_SPACES


def test_a_box_in_millimetres_on_oblique_slices_gives_a_mask_where_the_object_is(seeing: Command, tmp_path: Path) -> None:
    ended = seeing("--plane", PLANE, "--box", f"rod:ras:{corners()}", "--preview", tmp_path / "p.png")
    assert ended.status == 0, ended.err
    assert "oblique slices:" in ended.err
    labels = read_labels(tmp_path / "mask.nrrd")
    mask, truth = labels.array > 0, tilted_cylinder()
    np.testing.assert_allclose(labels.geometry.direction, GRID.direction, atol=1e-6)
    found = dice(mask, truth)
    assert found > 0.9  # a rim of a voxel is a seventh of so thin a rod
    for axis in range(3):
        for step in (1, -1):
            assert dice(np.roll(mask, step, axis), truth) < found - 0.02
    told = json.loads((tmp_path / "report.json").read_text())
    assert told["objects"][0]["voxels"] == mask.sum()
    first, last = told["objects"][0]["slices"]
    apart = told["oblique_slices"]["spacing_ijk_mm"][2]
    assert 18 - apart <= (last - first + 1) * apart <= 18 + 2 * apart  # the rod's length, as slices across it see it


def test_the_report_does_it_again_and_so_does_a_file_of_steps(seeing: Command, tmp_path: Path) -> None:
    clicks = ("--point", f"rod:ras:{','.join(corners().split(',')[:3])}:-")
    assert seeing("--plane", PLANE, "--box", f"rod:ras:{corners()}", *clicks).status == 0
    mask = read_labels(tmp_path / "mask.nrrd").array
    asked = json.loads((tmp_path / "report.json").read_text())["prompts"]
    steps = [{"do": "prompt", "object": "rod", "prompt": prompt} for prompt in asked["objects"][0]["prompts"]]
    for content in (asked, {"plane": asked["plane"], "steps": [*steps, {"do": "propagate"}]}):
        (tmp_path / "again.json").write_text(json.dumps(content))
        ended = seeing("--prompts", tmp_path / "again.json")
        assert ended.status == 0, ended.err
        np.testing.assert_array_equal(read_labels(tmp_path / "mask.nrrd").array, mask)


def test_masks_in_files_and_several_orientations_go_with_oblique_slices(seeing: Command, tmp_path: Path) -> None:
    assert seeing("--plane", PLANE, "--box", f"rod:ras:{corners()}").status == 0
    (tmp_path / "mask.nrrd").rename(tmp_path / "painted.nrrd")
    uncertainty = tmp_path / "map.nrrd"
    masks = ("--mask", f"rod={tmp_path / 'painted.nrrd'}", "--orientations", 3, "--uncertainty", uncertainty)
    assert seeing("--plane", PLANE, *masks).status == 0
    again = read_labels(tmp_path / "mask.nrrd").array > 0
    assert dice(again, read_labels(tmp_path / "painted.nrrd").array > 0) > 0.95
    assert read_volume(uncertainty).array.shape == GRID.shape


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--plane", "0,0,1"), '--plane is written "SPACE:NORMAL"'),
        (("--plane", "ras:0,0"), '--plane is written "SPACE:NORMAL"'),
        (("--plane", "ras:0,0,0"), "length above 0"),
        (("--plane", "ras:0,0,nan"), "length above 0"),
        (("--plane", "ras:0,0,1", "--axis", "k"), "leave --axis out"),
        (("--box", "organ:ras:0,0,0,1,1,1"), "organ: ras 0,0,0 mm lies beside the image; were the numbers lps?"),
    ],
)
def test_a_plane_that_makes_no_sense_is_one_line(segment: Command, options: tuple[str, ...], said: str) -> None:
    ended = segment("--box", BOX, *options)
    assert ended.status == 2
    assert said in ended.err.splitlines()[-1]


def test_a_file_that_counts_otherwise_refuses_a_plane(segment: Command, tmp_path: Path) -> None:
    prompts = {"axis": "k", "objects": [{"name": "a", "prompts": [{"type": "box", "slice": 3, "box": [12, 11, 36, 29]}]}]}
    (tmp_path / "prompts.json").write_text(json.dumps(prompts))
    ended = segment("--prompts", tmp_path / "prompts.json", "--plane", "ras:0,0,1")
    assert ended.status == 2
    assert "leave --plane out" in ended.err
    (tmp_path / "both.json").write_text(json.dumps({**prompts, "plane": {"space": "ras", "normal": [0, 0, 1]}}))
    assert 'expected "axis" or "plane"' in segment("--prompts", tmp_path / "both.json").err
