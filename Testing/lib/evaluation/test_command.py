"""`medsam2 evaluate` from end to end."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path
from unittest import mock

import pytest

from MedSAM2Lib.cli import evaluate
from MedSAM2Lib.cli.main import main
from MedSAM2Lib.evaluation import corrections, prompting
from Testing.lib.evaluation.support import WriteManifest, entry, slice_entry

Evaluate = Callable[..., int]


@pytest.fixture
def run(an_untrained_model: Path, tmp_path: Path) -> Evaluate:
    """`medsam2 evaluate` into `scores` with the untrained model; returns the exit status."""

    def evaluate_into_scores(manifest: Path, *options: object) -> int:
        arguments = ["evaluate", manifest, "-o", tmp_path / "scores", "--model", an_untrained_model, "--device", "cpu", *options]
        return main([str(argument) for argument in arguments])

    return evaluate_into_scores


def test_choices_are_those_of_the_library() -> None:
    assert evaluate.PROMPTS == prompting.PROMPT_KINDS
    assert evaluate.SLICES == prompting.SLICE_CHOICES
    assert evaluate.WORST == corrections.WORST_BY
    assert evaluate.CORRECTIONS == corrections.CORRECTIONS


def test_a_manifest_becomes_tables_plots_and_pictures(
    run: Evaluate, write_manifest: WriteManifest, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(write_manifest(entry(), slice_entry()), "--corrections", 1) == 0
    said = capsys.readouterr().out
    assert "all: 4 structures of 2 cases, 2 of them in volumes" in said
    assert "model, 1 corrected" in said
    folder = tmp_path / "scores"
    expected = {"results.csv", "summary.json", "groups.png", "corrections.png", "contact_sheet.png", "results.jsonl", "run.json"}
    assert {path.name for path in folder.iterdir()} == {*expected, "pictures"}
    with (folder / "results.csv").open(newline="") as stream:
        assert len(list(csv.DictReader(stream))) == 4 * 4  # two baselines, the model before and after
    groups = [group["name"] for group in json.loads((folder / "summary.json").read_text())["groups"]]
    assert groups == ["all", "CT", "block"]


def test_an_interrupted_run_goes_on_where_it_stopped(run: Evaluate, write_manifest: WriteManifest, tmp_path: Path) -> None:
    manifest = write_manifest(entry(), slice_entry())
    load = "MedSAM2Lib.cli.evaluation.load_case"
    from MedSAM2Lib.evaluation.cases import load_case

    with mock.patch(load, side_effect=[load_case_of(manifest, 0), KeyboardInterrupt]):
        assert run(manifest) == 130
    results = tmp_path / "scores" / "results.jsonl"
    first = results.read_text()
    assert len(first.splitlines()) == 1
    with mock.patch(load, side_effect=load_case) as loaded:
        assert run(manifest) == 0
    assert [call.args[0].id for call in loaded.call_args_list] == ["slice"]
    assert results.read_text().startswith(first)
    assert len(results.read_text().splitlines()) == 2


def load_case_of(manifest: Path, number: int) -> object:
    from MedSAM2Lib.evaluation.cases import load_case
    from MedSAM2Lib.evaluation.manifest import read_manifest

    return load_case(read_manifest(manifest)[number])


def test_other_options_want_another_folder(
    run: Evaluate, write_manifest: WriteManifest, capsys: pytest.CaptureFixture[str]
) -> None:
    manifest = write_manifest(slice_entry())
    assert run(manifest) == 0
    assert run(manifest, "--prompt", "point") == 2
    assert "prompt was 'box', now 'point'" in capsys.readouterr().err


def test_a_case_that_cannot_be_read_does_not_stop_the_others(
    run: Evaluate, write_manifest: WriteManifest, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    manifest = write_manifest(entry(label="slice_label.nrrd"), slice_entry())
    assert run(manifest) == 1
    said = capsys.readouterr()
    assert "not scored: Case 'volume': image and label map must be on one grid" in said.out
    assert "all: 2 structures of 1 case" in said.out
    write_manifest(entry(), slice_entry())
    assert run(manifest) == 0  # put right, the same command does what was missing
    assert "all: 4 structures of 2 cases" in capsys.readouterr().out


def test_cases_that_share_a_source_with_the_training_are_reported_apart(
    run: Evaluate, write_manifest: WriteManifest, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    train = tmp_path / "train.json"
    train.write_text(json.dumps({"volumes": [{"relation_to_shared_data": "same source as slice"}]}))
    assert run(write_manifest(entry(), slice_entry()), "--train-manifest", train) == 0
    said = capsys.readouterr().out
    assert "no source shared with training: 2 structures of 1 case\n" in said
    assert "source shared with training: 2 structures of 1 case, 0 of them in volumes" in said


def test_what_was_asked_for_is_told(run: Evaluate, write_manifest: WriteManifest, capsys: pytest.CaptureFixture[str]) -> None:
    options = ("--prompt", "recist", "--every", 0.5, "--orientations", 3, "--memory", "self-sorting", "--zoom", "off")
    assert run(write_manifest(slice_entry()), *options) == 0
    told = "prompt: recist on 50% of the slices; window auto; whole slice; memory self-sorting; 3 orientations"
    assert told in capsys.readouterr().out


def test_only_the_cases_asked_for_are_run(
    run: Evaluate, write_manifest: WriteManifest, capsys: pytest.CaptureFixture[str]
) -> None:
    manifest = write_manifest(entry(), slice_entry())
    assert run(manifest, "--cases", "slice") == 0
    assert "all: 2 structures of 1 case" in capsys.readouterr().out
    assert run(manifest, "--cases", "slice,nobody") == 2
    assert "Unknown case nobody: cases are volume, slice" in capsys.readouterr().err


@pytest.mark.parametrize("options", [("--zoom", "0.5"), ("--every", "2"), ("--corrections", "-1"), ("--threads", "0")])
def test_a_wrong_option_is_one_line(
    run: Evaluate, write_manifest: WriteManifest, capsys: pytest.CaptureFixture[str], options: tuple[str, ...]
) -> None:
    assert run(write_manifest(), *options) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1


def test_without_matplotlib_the_tables_are_there(
    run: Evaluate, write_manifest: WriteManifest, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with mock.patch.dict("sys.modules", {"matplotlib": None, "matplotlib.figure": None}):
        assert run(write_manifest()) == 0
    assert "pip install matplotlib" in capsys.readouterr().err
    assert (tmp_path / "scores" / "results.csv").exists()
    assert not (tmp_path / "scores" / "groups.png").exists()
