"""`medsam2 batch` from end to end, with real processes."""

from __future__ import annotations

import csv
import hashlib
import json
import shutil
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK

from MedSAM2Lib.batch import cluster
from MedSAM2Lib.batch.records import Records
from MedSAM2Lib.cli import batch
from MedSAM2Lib.cli.batch_case import CaseTask, perform
from MedSAM2Lib.cli.engine import Engine
from MedSAM2Lib.cli.inputs import Request
from MedSAM2Lib.cli.main import main
from MedSAM2Lib.cli.prompt_options import parse_prompt
from MedSAM2Lib.lock import held
from MedSAM2Lib.prompt_files import PromptSet
from MedSAM2Lib.volume_io.write import is_segmentation_path
from Testing.lib.cli.support import BOX, Command, Ended, environment

TWO_BOXES = f"{BOX}; vessel: left:2:20,18,28,24"
# A table with one case of every kind, and what is said of those that fail.
CASES = {
    "box": ["scan.nrrd", "", BOX],
    "file": ["scan.nrrd", "lists/p.json", ""],
    "two": ["scan.nrrd", "", TWO_BOXES],
    "nothing": ["scan.nrrd", "", ""],
    "both": ["scan.nrrd", "lists/p.json", BOX],
    "absent": ["none.nrrd", "", BOX],
    "unnamed": ["", "", BOX],
    "no prompts": ["scan.nrrd", "lists/none.json", ""],
    "no box": ["scan.nrrd", "", "organ:3:12,11"],
    "outside": ["scan.nrrd", "", "organ:9:12,11,36,29"],
    "damaged": ["damaged.nrrd", "", BOX],
}
FAILURES = {
    "nothing": "has neither a box nor a file of prompts",
    "both": "has both boxes and a file of prompts",
    "absent": "none.nrrd does not exist; correct the path, which is relative to the table",
    "unnamed": "has no image",
    "no prompts": "none.json cannot be read",
    "no box": 'is written "NAME:SLICE:X0,Y0,X1,Y1"',
    "outside": "within 0..5",
    "damaged": "damaged.nrrd",
}


def write_table(path: Path, cases: dict[str, list[str]]) -> Path:
    with path.open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(["case", "image", "prompts", "box"])
        writer.writerows([name, *values] for name, values in cases.items())
    return path


def summary_of(folder: Path) -> list[dict[str, str]]:
    with (folder / "summary.csv").open(newline="") as stream:
        return list(csv.DictReader(stream))


def files_in(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir() if path.name != "records"}


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory, a_scan: Path) -> Path:
    """A folder with a scan, a damaged one, and a file of prompts."""
    folder = tmp_path_factory.mktemp("study")
    scan = a_scan.read_bytes()
    (folder / "scan.nrrd").write_bytes(scan)
    (folder / "damaged.nrrd").write_bytes(scan[: len(scan) // 2])
    (folder / "lists").mkdir()
    clicks = {"type": "points", "slice": 4, "points": [[24, 20, "+"]]}
    prompts = [{"type": "box", "slice": 3, "box": [12, 11, 36, 29]}, clicks]
    (folder / "lists/p.json").write_text(json.dumps({"objects": [{"name": "organ", "prompts": prompts}]}))
    return folder


@pytest.fixture(scope="module")
def masks(study: Path) -> Path:
    return study / "masks"


@pytest.fixture(scope="module")
def the_first_run(study: Path, masks: Path, an_untrained_model: Path) -> Ended:
    """All cases, on two processes; as a process of its own, elsewhere than the table."""
    table = write_table(study / "cases.csv", CASES)
    arguments = ["batch", table, "-o", masks, "--model", an_untrained_model, "--device", "cpu"]
    arguments += ["--jobs", 2, "--previews", "--reports"]
    command = [sys.executable, "-m", "MedSAM2Lib", *map(str, arguments)]
    ended = subprocess.run(command, capture_output=True, text=True, env=environment(), check=False, timeout=120)
    return Ended(ended.returncode, ended.stdout, ended.stderr)


@pytest.fixture
def run(medsam2: Command, study: Path, an_untrained_model: Path) -> Command:
    """`medsam2 batch` of some cases of the study, with options as given."""

    def run_batch(cases: dict[str, list[str]], *options: object) -> Ended:
        table = write_table(study / "some.csv", cases)
        return medsam2("batch", table, "--model", an_untrained_model, "--device", "cpu", *options)

    return run_batch


def some(*names: str) -> dict[str, list[str]]:
    return {name: CASES[name] for name in names}


# ── one run ───────────────────────────────────────────────────────────────────────────────────────────────────────


def test_bad_cases_are_told_and_stop_no_other(the_first_run: Ended, masks: Path) -> None:
    assert the_first_run.status == 1
    rows = summary_of(masks)
    assert list(dict.fromkeys(row["case"] for row in rows)) == list(CASES)
    failed = {row["case"]: row["message"] for row in rows if row["status"] == "failed"}
    assert failed.keys() == FAILURES.keys()
    for case, said in FAILURES.items():
        assert said in failed[case]
        assert f"medsam2: warning: {case}: " in the_first_run.err
    assert "Traceback" not in the_first_run.err
    assert "unexpected" not in the_first_run.err


def test_the_summary_has_a_line_per_object_of_what_was_done(the_first_run: Ended, masks: Path) -> None:
    done = [row for row in summary_of(masks) if row["status"] == "done"]
    assert [(row["case"], row["object"]) for row in done] == [
        ("box", "organ"), ("file", "organ"), ("two", "organ"), ("two", "vessel: left"),
    ]  # fmt: skip
    report = json.loads((masks / "two.json").read_text())
    assert [row["volume_ml"] for row in done[2:]] == [f"{one['volume_ml']:.6g}" for one in report["objects"]]
    assert all(float(row["seconds"]) > 0 for row in done)


def test_the_terminal_shows_the_same_table(the_first_run: Ended, masks: Path) -> None:
    head, *lines, counted, wrote = the_first_run.out.splitlines()
    assert head.split() == ["case", "status", "seconds", "objects"]
    assert [line.split("  ")[0] for line in lines if not line.startswith(" ")] == list(CASES)
    assert lines[0].split()[1] == "done"
    assert "organ " in lines[0]
    assert " mL" in lines[0]
    assert counted == "3 of 11 cases done, 8 failed"
    assert wrote == f"wrote {masks / 'summary.csv'}"


def test_only_what_is_whole_is_there(the_first_run: Ended, masks: Path) -> None:
    assert the_first_run.status == 1
    done = {f"{case}.{ending}" for case in ("box", "file", "two") for ending in ("seg.nrrd", "png", "json")}
    assert files_in(masks) == {*done, "summary.csv"}


@pytest.mark.parametrize(
    ("case", "options"),
    [
        ("box", ["--box", BOX]),
        ("file", ["--prompts", "lists/p.json"]),
        ("two", [o for b in TWO_BOXES.split("; ") for o in ("--box", b)]),
    ],
)
def test_masks_are_those_of_segment(
    the_first_run: Ended, medsam2: Command, study: Path, an_untrained_model: Path, tmp_path: Path, case: str, options: list[str]
) -> None:
    options = [str(study / option) if option.endswith(".json") else option for option in options]
    alone = tmp_path / "alone.seg.nrrd"
    assert medsam2("segment", study / "scan.nrrd", "-o", alone, "--model", an_untrained_model, *options).status == 0
    assert (study / "masks" / f"{case}.seg.nrrd").read_bytes() == alone.read_bytes()
    assert the_first_run.status == 1


# ── the same folder again ─────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def again(the_first_run: Ended, masks: Path, tmp_path: Path) -> list[object]:
    """Options of the first run, in a copy of its folder, `tmp_path / "masks"`."""
    assert the_first_run.status == 1
    shutil.copytree(masks, tmp_path / "masks")
    return ["-o", tmp_path / "masks", "--previews", "--reports"]


def test_what_is_done_is_not_done_again(run: Command, again: list[object], tmp_path: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "masks").glob("*.seg.nrrd")}
    ended = run(some("two", "box", "file"), *again)
    assert ended.status == 0
    assert ended.err == "3 of 3 cases were finished before\n"
    assert "3 of 3 cases done (3 of them before), 0 failed" in ended.out
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "masks").glob("*.seg.nrrd")} == before
    assert [row["case"] for row in summary_of(tmp_path / "masks")] == ["two", "two", "box", "file"]


def test_what_changed_is_done_again_but_a_corrected_mask_is_left_alone(run: Command, again: list[object], tmp_path: Path) -> None:
    folder = tmp_path / "masks"
    two, file = folder / "two.seg.nrrd", folder / "file.seg.nrrd"
    (folder / "box.seg.nrrd").unlink()
    file.write_bytes(file.read_bytes()[:-9])
    corrected, before = file.read_bytes(), two.read_bytes()
    ended = run({**some("box", "file"), "two": ["scan.nrrd", "", f"{BOX}; vein:2:20,18,28,24"]}, *again)
    assert ended.status == 1
    assert "2 of 3 cases done, 1 failed" in ended.out
    assert [(row["case"], row["object"], row["status"]) for row in summary_of(folder)] == [
        ("box", "organ", "done"), ("file", "", "failed"), ("two", "organ", "done"), ("two", "vein", "done"),
    ]  # fmt: skip
    assert "file.seg.nrrd was changed or damaged after it was made" in ended.err
    assert (folder / "box.seg.nrrd").exists()
    assert two.read_bytes() != before
    assert file.read_bytes() == corrected


def test_two_batches_do_not_share_a_folder(run: Command, tmp_path: Path) -> None:
    (tmp_path / "records").mkdir()
    with held(tmp_path / "records" / "lock"):
        ended = run(some("box"), "-o", tmp_path)
    assert ended.status == 1
    assert (
        ended.err == f"medsam2: error: Another batch is working in {tmp_path}; wait until it is done, or choose another folder.\n"
    )


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals")
def test_ctrl_c_leaves_what_is_whole_and_the_same_command_goes_on(study: Path, an_untrained_model: Path, tmp_path: Path) -> None:
    noise = np.random.default_rng(0).normal(0, 100, (400, 40, 48)).astype(np.int16)
    SimpleITK.WriteImage(SimpleITK.GetImageFromArray(noise), str(study / "long.nrrd"))
    table = write_table(study / "long.csv", {**some("box"), "long": ["long.nrrd", "", "organ:200:12,11,36,29"], **some("two")})
    options = ["--model", str(an_untrained_model), "--device", "cpu", "--no-depth-prior", "--stop-after", "0"]
    command = [sys.executable, "-m", "MedSAM2Lib", "batch", str(table), "-o", str(tmp_path / "masks"), *options]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment()) as process:
        try:
            assert process.stderr is not None
            assert process.stderr.readline().startswith("segmenting: 33%, 1 cases")
            process.send_signal(signal.SIGINT)
            _, err = process.communicate(timeout=60)
        finally:
            process.kill()
    assert process.returncode == 130
    assert err == "medsam2: interrupted; no file was left half-written.\n"
    assert files_in(tmp_path / "masks") == {"box.seg.nrrd", "summary.csv"}
    assert [(row["case"], row["status"]) for row in summary_of(tmp_path / "masks")] == [
        ("box", "done"), ("long", "open"), ("two", "open"),
    ]  # fmt: skip
    write_table(table, some("box", "two"))
    assert main(["batch", str(table), "-o", str(tmp_path / "masks"), *options]) == 0
    assert [row["status"] for row in summary_of(tmp_path / "masks")] == ["done"] * 3


# ── a case in a worker ────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def a_task(a_scan: Path, an_untrained_model: Path, tmp_path: Path) -> CaseTask:
    (tmp_path / "records").mkdir()
    weights = hashlib.sha256(an_untrained_model.read_bytes()).hexdigest()
    engine = Engine(str(an_untrained_model), device="cpu")
    prompts = PromptSet((parse_prompt("--box", BOX),))
    request = Request(a_scan, tmp_path / "p1.nrrd", prompts, engine=engine)
    return CaseTask("p1", request, "this", Records(tmp_path), weights)


def test_an_answer_that_was_lost_on_its_way_is_not_made_again(a_task: CaseTask) -> None:
    first, made = perform(a_task), a_task.request.output.stat()
    assert first.error is None
    assert perform(a_task) == first
    assert a_task.request.output.stat().st_ino == made.st_ino


@pytest.mark.parametrize(
    ("other", "said"),
    [({"version": "0.0.1"}, "was started by MedSAM2 0.0.1"), ({"weights_sha256": "0" * 64}, "are not those of the batch")],
    ids=["version", "weights"],
)
def test_a_worker_with_other_software_or_weights_refuses(a_task: CaseTask, other: dict[str, Any], said: str) -> None:
    result = perform(replace(a_task, **other))
    assert said in (result.error or "")
    assert not a_task.request.output.exists()


def test_a_file_that_is_not_of_the_batch_is_left_alone(a_task: CaseTask) -> None:
    a_task.request.output.write_text("mine")
    assert "not from this batch" in (perform(a_task).error or "")
    assert a_task.request.output.read_text() == "mine"


# ── requests that cannot be met ───────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--jobs", 0], "--jobs must be at least 1"),
        (["--jobs", 2, "--scheduler", "tcp://127.0.0.1:1"], "leave one out"),
        (["--zoom", "much"], "--zoom is auto, off, or a number"),
        (["--stop-after", -1], "--stop-after must be at least 0"),
        (["--aggregate", "mean"], "add --orientations 3 or 6"),
        (["--model", "nanoo"], "'nanoo' is neither a file nor a model"),
        (["--format", "png"], "invalid choice: 'png'"),
    ],
    ids=str,
)
def test_a_wrong_option_is_one_line_and_nothing_is_made(run: Command, tmp_path: Path, options: list[object], said: str) -> None:
    ended = run(some("box"), "-o", tmp_path / "out", *options)
    assert ended.status == 2
    assert said in ended.err
    assert ended.err.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_a_wrong_table_is_one_line_and_nothing_is_made(run: Command, tmp_path: Path) -> None:
    ended = run({"../x": CASES["box"]}, "-o", tmp_path / "out")
    assert ended.status == 2
    assert "line 2: a case's name becomes the name of its files" in ended.err
    assert not (tmp_path / "out").exists()


def test_a_file_in_the_folders_place_is_told(run: Command, tmp_path: Path) -> None:
    (tmp_path / "out").touch()
    ended = run(some("box"), "-o", tmp_path / "out")
    assert ended.status == 1
    assert "cannot be made" in ended.err


def test_without_dask_a_scheduler_is_no_use(run: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "distributed", None)
    ended = run(some("box"), "-o", tmp_path / "out", "--scheduler", "tcp://127.0.0.1:1")
    assert ended.status == 2
    assert 'pip install "dask[distributed]"' in ended.err.splitlines()[-1]


def test_a_scheduler_that_does_not_answer_is_told(run: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("distributed", reason="needs dask[distributed]")
    monkeypatch.setattr(cluster, "_CONNECT_S", 1)
    ended = run(some("box"), "-o", tmp_path / "out", "--scheduler", "tcp://127.0.0.1:1")
    assert ended.status == 2
    assert "No Dask scheduler answers at tcp://127.0.0.1:1" in ended.err.splitlines()[-1]


def test_formats_are_those_of_the_library() -> None:
    assert all(is_segmentation_path(Path(f"mask.{ending}")) for ending in batch.FORMATS)
