from __future__ import annotations

import csv
import json
import random
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from MedSAM2Lib.errors import OptionError, UsageError
from MedSAM2Lib.evaluation.bootstrap import mean_with_interval
from MedSAM2Lib.evaluation.manifest import read_manifest
from MedSAM2Lib.evaluation.rows import MODEL, Row
from MedSAM2Lib.evaluation.sources import cases_sharing_a_source
from MedSAM2Lib.evaluation.summary import group_rows, modality_of, summarise, write_csv, write_json
from Testing.lib.evaluation.support import WriteManifest, entry, slice_entry


def a_row(case: str, structure: str, method: str = MODEL, dice: float | None = 0.5, **changes: object) -> Row:
    row = Row(0.75, dice, 0.4, 0.3, 5.0, -1.5, -0.2, case, structure, "CT", "block", method, 0, 1, (4,), 2.5, 0.1)
    return replace(row, **changes)  # type: ignore[arg-type]


def some_rows() -> list[Row]:
    """Two structures of a volume and one of a slice, the model and a baseline each."""
    return [
        a_row("a", "ball", dice=0.9, hd95_mm=None),
        a_row("a", "bar", dice=0.5, hd95_mm=3.0),
        a_row("b", "disc", dice=None, slice_dice=0.3, iou=None, surface_dice=None, hd95_mm=None, relative_volume_error=None),
        a_row("a", "ball", "ellipsoid", dice=0.8),
        a_row("a", "bar", "ellipsoid", dice=0.6),
        a_row("b", "disc", "ellipsoid", dice=None, slice_dice=0.2),
    ]


def test_3d_means_leave_out_images_of_one_slice() -> None:
    model = summarise("all", some_rows()).find(MODEL)
    assert model is not None
    assert (model.structures, model.cases, model.structures_3d) == (3, 2, 2)
    assert model.dice is not None
    assert model.dice.mean == pytest.approx(0.7)
    assert model.slice_dice.mean == pytest.approx((0.75 + 0.75 + 0.3) / 3)


def test_distances_are_of_the_masks_that_there_are() -> None:
    rows = [row for row in some_rows() if row.dice is not None]
    model = summarise("all", rows).find(MODEL)
    assert model is not None
    assert (model.median_hd95_mm, model.empty_masks, model.median_volume_error) == (3.0, 1, 0.2)


def test_it_says_where_the_baseline_was_beaten() -> None:
    group = summarise("all", some_rows())
    model, baseline = group.find(MODEL), group.find("ellipsoid")
    assert model is not None
    assert baseline is not None
    assert model.beats_in_3d == {"ellipsoid": 0.5}
    assert model.beats_on_the_slice == {"ellipsoid": pytest.approx(1 / 3)}  # a draw is not a win
    assert baseline.beats_in_3d == {}


def test_a_group_of_slices_alone_has_no_3d_measure() -> None:
    model = summarise("slices", [row for row in some_rows() if row.case == "b"]).find(MODEL)
    assert model is not None
    assert (model.dice, model.median_hd95_mm, model.beats_in_3d) == (None, None, {})


def test_groups_are_all_then_sources_then_modality_then_anatomy() -> None:
    rows = [a_row("a", "x", modality="MR T1"), a_row("b", "y", modality="CT (2D)", anatomy="brain")]
    assert list(group_rows(rows)) == ["all", "CT", "MR", "block", "brain"]
    groups = group_rows(rows, frozenset({"a"}))
    assert [row.case for row in groups["source shared with training"]] == ["a"]
    assert [row.case for row in groups["no source shared with training"]] == ["b"]
    assert modality_of(rows[1]) == "CT"


# ── intervals ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_the_interval_is_the_same_every_time_and_touches_no_global_state() -> None:
    values = np.random.default_rng(0).uniform(size=20).tolist()
    clusters = [f"case {n % 4}" for n in range(20)]
    before = random.getstate(), np.random.get_state()[1].tolist()  # type: ignore[index]
    assert mean_with_interval(values, clusters, seed=1) == mean_with_interval(values, clusters, seed=1)
    assert mean_with_interval(values, clusters, seed=1) != mean_with_interval(values, clusters, seed=2)
    assert before == (random.getstate(), np.random.get_state()[1].tolist())  # type: ignore[index]


def test_the_interval_is_about_two_standard_errors_either_way() -> None:
    values = np.random.default_rng(0).normal(0.8, 0.1, size=100)
    interval = mean_with_interval(values.tolist(), [str(n) for n in range(100)])
    assert interval.mean == pytest.approx(values.mean())
    assert interval.high - interval.low == pytest.approx(4 * 0.01, rel=0.15)


def test_structures_of_one_case_count_for_less() -> None:
    values = [0.9] * 10 + [0.5] * 10
    alone = mean_with_interval(values, [str(n) for n in range(20)])
    together = mean_with_interval(values, ["a"] * 10 + ["b"] * 10)
    assert together.high - together.low > 2 * (alone.high - alone.low)


def test_one_structure_has_an_interval_of_no_width() -> None:
    interval = mean_with_interval([0.4], ["a"])
    assert (interval.low, interval.mean, interval.high) == (0.4, 0.4, 0.4)


# ── files ─────────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_the_table_leaves_blank_what_does_not_apply(tmp_path: Path) -> None:
    write_csv(tmp_path / "rows.csv", some_rows())
    with (tmp_path / "rows.csv").open(newline="") as stream:
        lines = list(csv.DictReader(stream))
    assert len(lines) == 6
    assert (lines[0]["case"], lines[0]["structure"], lines[0]["dice"], lines[0]["hd95_mm"]) == ("a", "ball", "0.9", "")
    assert (lines[2]["dice"], lines[2]["prompted_slices"]) == ("", "4")


def test_the_json_holds_question_groups_rows_and_problems(tmp_path: Path) -> None:
    write_json(tmp_path / "all.json", {"prompt": "box"}, [summarise("all", some_rows())], some_rows(), ["one was empty"])
    content = json.loads((tmp_path / "all.json").read_text())
    assert content["asked"] == {"prompt": "box"}
    assert content["groups"][0]["methods"][0]["dice"]["mean"] == pytest.approx(0.7)
    assert len(content["rows"]) == 6
    assert content["problems"] == ["one was empty"]


# ── sources ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def training_manifest(folder: Path, *volumes: object) -> Path:
    path = folder / "train.json"
    path.write_text(json.dumps({"volumes": volumes}))
    return path


def test_a_repository_in_common_is_a_source_in_common(write_manifest: WriteManifest, tmp_path: Path) -> None:
    cases = read_manifest(write_manifest(entry(), {**slice_entry(), "origin": None}))
    train = training_manifest(tmp_path, {"origin": {"repo": "someone/somewhere"}}, {"origin": [{"repo": "other/place"}]})
    assert cases_sharing_a_source(cases, train) == {"volume"}


def test_a_case_that_a_training_volume_names_shares_its_source(write_manifest: WriteManifest, tmp_path: Path) -> None:
    cases = read_manifest(write_manifest(entry(), slice_entry()))
    train = training_manifest(tmp_path, {"relation_to_shared_data": "same source as slice, other patient"})
    assert cases_sharing_a_source(cases, train) == {"slice"}


def test_another_file_is_no_training_manifest(write_manifest: WriteManifest, tmp_path: Path) -> None:
    manifest = write_manifest()
    with pytest.raises(UsageError, match="not a manifest of training volumes"):
        cases_sharing_a_source(read_manifest(manifest), manifest)
    with pytest.raises(OptionError, match="does not exist"):
        cases_sharing_a_source(read_manifest(manifest), tmp_path / "none.json")
