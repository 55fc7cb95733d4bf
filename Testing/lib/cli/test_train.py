"""`medsam2 train --from ... --cases ...`: from a folder of cases to a checkpoint, and a table that claims what it measured."""

from __future__ import annotations

import csv
import shutil
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
import torch

from MedSAM2Lib.geometry import Geometry
from MedSAM2Lib.simpleitk import import_simpleitk
from MedSAM2Lib.volume_io.itk import image_from_array
from MedSAM2Lib.volume_io.segments import Segment
from MedSAM2Lib.volume_io.write import write_segmentation
from Testing.lib.cli.support import Command, Ended

SHAPE = (5, 40, 48)
GRID = Geometry(SHAPE, (1.0, 1.0, 3.0))


def write_case(folder: Path, name: str, row: int) -> None:
    k, j, i = np.ogrid[: SHAPE[0], : SHAPE[1], : SHAPE[2]]
    ball = (k > 0) & ((j - row) ** 2 + (i - 24) ** 2 <= 80)
    image = np.where(ball, 120, -250) + np.random.default_rng(row).normal(0, 10, ball.shape)
    import_simpleitk().WriteImage(image_from_array(image.astype(np.int16), GRID), str(folder / f"{name}.nrrd"))
    write_segmentation(folder / f"{name}.seg.nrrd", [Segment("ball", ball)], GRID)


@pytest.fixture(scope="session")
def _cases(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("cases")
    for number in range(3):
        write_case(folder, f"case{number}", 16 + 4 * number)
    return folder


@pytest.fixture
def cases(_cases: Path, tmp_path: Path) -> Path:
    """A folder of three cases, to be spoiled as a test likes."""
    return Path(shutil.copytree(_cases, tmp_path / "cases"))


@pytest.fixture
def tune(medsam2: Command, an_untrained_model: Path, cases: Path, tmp_path: Path) -> Command:
    """Two short steps into `tuned`; options as given, later ones win."""

    def run(*options: object) -> Ended:
        few = ("--steps", 2, "--slices", 4, "--workers", 0, "--device", "cpu", "--hold-out", "case1")
        return medsam2("train", "--from", an_untrained_model, "--cases", cases, "-o", tmp_path / "tuned", *few, *options)

    return run


def test_cases_become_a_checkpoint_a_table_and_no_claim(tune: Command, medsam2: Command, cases: Path, tmp_path: Path) -> None:
    ended = tune("--freeze", "image-encoder,memory")
    assert ended.status == 0, ended.err
    folder = tmp_path / "tuned"
    expected = {"fine_tuned.pt", "before_after.csv", "before_after.json", "log.csv", "curve.png", "state.pt", "run.json"}
    assert {path.name for path in folder.iterdir()} == {*expected, "before", "after", "drafts"}
    assert {path.name for path in (folder / "drafts").iterdir()} == {"log.csv", "curve.png", "state.pt"}
    with (folder / "before_after.csv").open(newline="") as stream:
        assert [(line["case"], line["structure"]) for line in csv.DictReader(stream)] == [("case1", "ball")]
    assert "of fewer than 5 cases, nothing can be said of others; no improvement was measured" in ended.out
    box = ("--box", "ball:2:12,10,36,32", "--device", "cpu")
    assert (
        medsam2("segment", cases / "case1.nrrd", "-o", tmp_path / "m.nrrd", "--model", folder / "fine_tuned.pt", *box).status == 0
    )


def test_with_nothing_held_out_nothing_is_claimed(tune: Command, tmp_path: Path) -> None:
    ended = tune("--hold-out", "0")
    assert ended.status == 0, ended.err
    assert "nothing was measured: no improvement can be claimed" in ended.out
    assert not (tmp_path / "tuned" / "before").exists()


def test_an_interrupted_run_goes_on_to_the_same_weights(tune: Command, tmp_path: Path) -> None:
    alone = ("--hold-out", "0")
    assert tune(*alone).status == 0
    whole = torch.load(tmp_path / "tuned" / "fine_tuned.pt", weights_only=True)["model"]
    shutil.rmtree(tmp_path / "tuned")

    from MedSAM2Lib.training import loop

    step = loop._step
    with mock.patch.object(loop, "_step", side_effect=[mock.DEFAULT, KeyboardInterrupt], wraps=step) as interrupted:
        ended = tune(*alone)
    assert interrupted.call_count == 2
    assert ended.status == 130
    assert "give the same command again to go on" in ended.err
    assert (tmp_path / "tuned" / "state.pt").exists()
    assert tune(*alone).status == 0
    resumed = torch.load(tmp_path / "tuned" / "fine_tuned.pt", weights_only=True)["model"]
    assert all(torch.equal(value, resumed[name]) for name, value in whole.items())


def test_another_request_wants_another_folder(tune: Command, cases: Path) -> None:
    assert tune("--hold-out", "0").status == 0
    changed = tune("--hold-out", "0", "--learning-rate", "1e-3")
    assert changed.status == 2
    assert "learning_rate was 0.0001, now 0.001" in changed.err
    write_case(cases, "case2", 18)
    assert "cases was" in tune("--hold-out", "0").err


def test_all_that_is_wrong_with_the_cases_is_said_before_anything_is_trained(tune: Command, cases: Path, tmp_path: Path) -> None:
    shifted = Geometry(SHAPE, (1.0, 1.0, 3.0), (0.5, 0.0, 0.0))
    write_segmentation(cases / "case0.seg.nrrd", [Segment("ball", np.ones(SHAPE, dtype=bool))], shifted)
    write_segmentation(cases / "case2.seg.nrrd", [Segment("ball", np.zeros(SHAPE, dtype=bool))], GRID)
    ended = tune()
    assert ended.status == 1
    assert "2 of 3 cases" in ended.err
    assert "case0.seg.nrrd must be on the grid of case0.nrrd" in ended.err
    assert "case2.seg.nrrd has no voxel in any structure" in ended.err
    assert not (tmp_path / "tuned").exists()


def test_a_case_without_label_is_named(tune: Command, cases: Path) -> None:
    (cases / "case2.seg.nrrd").unlink()
    ended = tune()
    assert ended.status == 2
    assert "case2.nrrd has no segmentation" in ended.err


def test_a_loss_that_is_not_finite_ends_the_run_and_keeps_it(tune: Command, tmp_path: Path) -> None:
    from MedSAM2Lib.training import clip_training

    nan = torch.tensor(float("nan"))
    with mock.patch.object(clip_training, "clip_loss", side_effect=[mock.DEFAULT, nan], wraps=clip_training.clip_loss):
        ended = tune("--hold-out", "0")
    assert ended.status == 1
    assert "The loss of step 1 is nan; the state before it is kept" in ended.err
    assert torch.load(tmp_path / "tuned" / "state.pt", weights_only=True)["step"] == 1


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (("--freeze", "neck"), "Unknown part 'neck'"),
        (("--hold-out", "case7"), "names 'case7'"),
        (("--hold-out", "case0,case1,case2"), "needs a case beside those held out"),
        (("--steps", 0), "--steps must be at least 1"),
        (("--learning-rate", 2), "between 0 and 1"),
        (("--from", "no_such.pt"), "no_such.pt"),
        (("--network", "sam2.1-tiny"), "is not for sam2.1-tiny"),
    ],
)
def test_a_wrong_request_is_one_line(tune: Command, tmp_path: Path, options: tuple[object, ...], told: str) -> None:
    ended = tune(*options)
    assert ended.status in (1, 2)
    assert told in ended.err.splitlines()[-1]
    assert not (tmp_path / "tuned" / "state.pt").exists()


@pytest.mark.parametrize(
    "arguments", [(), ("--from", "nano"), ("--cases", "x"), ("DATA", "--cases", "x"), ("DATA", "--freeze", "x")]
)
def test_it_is_either_fine_tuning_or_training_from_the_beginning(medsam2: Command, arguments: tuple[str, ...]) -> None:
    ended = medsam2("train", *arguments, "-o", "nowhere")
    assert ended.status == 2
    assert len(ended.err.splitlines()) == 1
