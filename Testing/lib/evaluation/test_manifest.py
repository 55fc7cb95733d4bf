from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from MedSAM2Lib.errors import MedSAM2Error, OptionError, UsageError
from MedSAM2Lib.evaluation.manifest import read_manifest, select_cases
from MedSAM2Lib.prompts import Box
from Testing.lib.evaluation.support import WriteManifest, entry, slice_entry


def test_a_case_is_read_with_its_boxes(write_manifest: WriteManifest) -> None:
    (case,) = read_manifest(write_manifest())
    assert (case.id, case.modality, case.anatomy) == ("volume", "CT angiography", "block")
    assert case.display_window == (-100, 200)
    assert case.repositories == {"someone/somewhere"}
    ball, bar = case.structures
    assert ball.suggested == Box(4, 3, 6, 17, 18)
    assert (bar.suggested, bar.centre) == (None, None)


def test_without_structures_every_label_is_one(write_manifest: WriteManifest) -> None:
    (case,) = read_manifest(write_manifest(entry(structures=None)))
    assert [(one.name, one.label_values) for one in case.structures] == [("ball", (1,)), ("bar", (2,))]


def test_a_bare_list_of_cases_will_do(write_manifest: WriteManifest) -> None:
    path = write_manifest()
    path.write_text(json.dumps([entry()]))
    assert [case.id for case in read_manifest(path)] == ["volume"]


def test_a_changed_entry_is_another_case(write_manifest: WriteManifest) -> None:
    before, after = (read_manifest(write_manifest(one))[0].digest for one in (entry(), entry(anatomy="cube")))
    assert before != after


def refusal(write_manifest: WriteManifest, *entries: dict[str, Any]) -> str:
    with pytest.raises(UsageError) as refused:
        read_manifest(write_manifest(*entries))
    return str(refused.value)


def structure(**changes: Any) -> dict[str, Any]:
    return {"structures": [{"name": "ball", "label_values": [1], **changes}]}


def prompt(**changes: Any) -> dict[str, Any]:
    return structure(prompt={"slice_k": 4, "box_ijk": {"i": [3, 17], "j": [6, 18]}, **changes})


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"id": None}, "case number 1: 'id' must be a text, but nothing came"),
        ({"label": None}, "case 'volume' has no 'label'; give the path of its label map"),
        ({"image": "missing.nrrd"}, "does not exist"),
        ({"structures": [], "labels": None}, "expected a list of 'structures', or 'labels'"),
        (structure(label_values=[7]), "structure 'ball': unknown label value 7; the case's labels are 1 = ball, 2 = bar"),
        (structure(label_values=[0]), "whole numbers above 0"),
        (structure(name=""), "'name' must be a text"),
        (structure(prompt={"slice_k": 4}), "'prompt' must be"),
        (prompt(axis="j"), "along axis k"),
        (prompt(box_ijk={"i": [9, 3], "j": [1, 2]}), "swap the corners"),
        ({"structures": 2 * structure()["structures"]}, "'ball' occurs 2 times"),
        ({"display_window": [1]}, "'display_window' must be [LOW, HIGH]"),
        ({"labels": ["ball"]}, "'labels' must be an object"),
    ],
)
def test_what_is_wrong_is_named_with_its_place(write_manifest: WriteManifest, changes: dict[str, Any], expected: str) -> None:
    assert expected in refusal(write_manifest, entry(**changes))


def test_two_cases_of_one_name_are_refused(write_manifest: WriteManifest) -> None:
    assert "'volume' occurs 2 times" in refusal(write_manifest, entry(), entry())


@pytest.mark.parametrize("content", ["{", "[]", '{"cases": {}}', '{"schema": "other/2", "cases": []}', "3"])
def test_another_json_is_no_manifest(tmp_path: Path, content: str) -> None:
    path = tmp_path / "manifest.json"
    path.write_text(content)
    with pytest.raises(UsageError, match=r"manifest\.json"):
        read_manifest(path)


def test_a_missing_manifest_is_told(tmp_path: Path) -> None:
    with pytest.raises(OptionError, match="does not exist"):
        read_manifest(tmp_path / "none.json")


def test_cases_are_chosen_by_id(write_manifest: WriteManifest) -> None:
    cases = read_manifest(write_manifest(entry(), slice_entry()))
    assert [case.id for case in select_cases(cases, ["slice"])] == ["slice"]
    assert select_cases(cases, None) == cases
    with pytest.raises(MedSAM2Error, match="Unknown case other: cases are volume, slice"):
        select_cases(cases, ["slice", "other"])
