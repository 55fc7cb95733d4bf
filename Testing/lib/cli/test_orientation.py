"""`--orientations` and `--memory` of `medsam2 segment`."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import SimpleITK

from MedSAM2Lib.cli import orientation
from MedSAM2Lib.inference import orientations
from MedSAM2Lib.volume_io.read import read_labels, read_volume
from Testing.lib.cli.support import BOX, Command


def test_what_help_says_is_what_the_library_has() -> None:
    assert orientation.COUNTS == orientations.COUNTS
    assert orientation.AGGREGATIONS == orientations.AGGREGATIONS


def test_three_orientations_make_a_mask_a_map_and_a_report(segment: Command, a_scan: Path, tmp_path: Path) -> None:
    uncertainty, report = tmp_path / "uncertainty.nii.gz", tmp_path / "report.json"
    ended = segment("--box", BOX, "--orientations", 3, "--uncertainty", uncertainty, "--report", report)
    assert ended.status == 0, ended.err
    assert f"wrote {uncertainty} (where orientations disagree)" in ended.out
    assert "other orientations: done, 2 sequences" in ended.err
    values = SimpleITK.GetArrayFromImage(SimpleITK.ReadImage(str(uncertainty)))
    assert values.shape == read_volume(a_scan).geometry.shape
    assert {round(float(value), 3) for value in np.unique(values)} <= {0, 0.667}
    told = json.loads(report.read_text())
    assert told["orientations"]["count"] == 3
    assert told["orientations"]["objects"]["organ"]["sequences"] == ["k outwards", "j outwards", "i outwards"]
    assert 0 <= told["orientations"]["objects"]["organ"]["agreement"] <= 1
    assert told["outputs"]["uncertainty"] == str(uncertainty)


def test_a_range_holds_for_every_orientation(segment: Command, tmp_path: Path) -> None:
    assert segment("--box", BOX, "--range", "2:4", "--orientations", 3, "--aggregate", "majority").status == 0
    occupied = np.flatnonzero(read_labels(tmp_path / "mask.nrrd").array.any((1, 2)))
    assert set(occupied.tolist()) <= {2, 3, 4}


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--uncertainty", "map.nrrd"), "--uncertainty is about several orientations"),
        (("--aggregate", "mean"), "--aggregate is about several orientations"),
        (("--orientations", "2"), "invalid choice"),
        (("--orientations", "3", "--uncertainty", "map.seg.nrrd"), "write it as .nrrd"),
        (("--orientations", "3", "--uncertainty", "map.png"), "change the extension"),
        (("--memory", "newest"), "invalid choice: 'newest'"),
    ],
)
def test_a_wrong_option_is_one_line(segment: Command, options: tuple[str, ...], said: str) -> None:
    ended = segment("--box", BOX, *options)
    assert ended.status == 2
    assert said in ended.err.splitlines()[-1]


def test_the_map_does_not_take_the_place_of_the_mask(segment: Command, tmp_path: Path) -> None:
    ended = segment("--box", BOX, "--orientations", 3, "--uncertainty", tmp_path / "mask.nrrd")
    assert ended.status == 2
    assert "would replace" in ended.err


def test_the_report_tells_the_memory(segment: Command, tmp_path: Path) -> None:
    for memory in ("recent", "self-sorting"):
        report = tmp_path / f"{memory}.json"
        assert segment("--box", BOX, "--memory", memory, "--report", report).status == 0
        told = json.loads(report.read_text())
        assert told["options"]["memory"] == memory
        assert told["orientations"]["count"] == 1
