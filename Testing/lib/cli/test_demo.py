from __future__ import annotations

import contextlib
import io
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from MedSAM2Lib.cli import segment
from MedSAM2Lib.cli.main import main
from MedSAM2Lib.metrics import dice
from MedSAM2Lib.phantom import Phantom, make_phantom
from MedSAM2Lib.volume_io.read import read_volume
from Testing.lib.cli.support import Command

SEED = 3


@dataclass(frozen=True)
class Demonstration:
    folder: Path
    out: list[str]
    masks: dict[str, np.ndarray]
    phantom: Phantom


@pytest.fixture(scope="module")
def a_demonstration(tmp_path_factory: pytest.TempPathFactory, an_untrained_model: Path) -> Demonstration:
    """One run of `medsam2 demo`, and the masks that it made."""
    folder = tmp_path_factory.mktemp("demo") / "new" / "demo"
    masks: dict[str, np.ndarray] = {}
    perform = segment.perform

    def watched(args: object) -> object:
        outcome = perform(args)  # type: ignore[arg-type]
        masks.update({one.name: one.mask for one in outcome.segments})
        return outcome

    out = io.StringIO()
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(out):
        patch.setattr(segment, "perform", watched)
        assert main(["demo", "-o", str(folder), "--seed", str(SEED), "--model", str(an_untrained_model)]) == 0
    return Demonstration(folder, out.getvalue().splitlines(), masks, make_phantom(SEED))


def test_it_leaves_everything_to_look_at(a_demonstration: Demonstration) -> None:
    written = {path.name for path in a_demonstration.folder.iterdir()}
    assert written == {"patient.nrrd", "truth.seg.nrrd", "masks.seg.nrrd", "preview.png", "report.json"}
    image, volume = read_volume(a_demonstration.folder / "patient.nrrd"), a_demonstration.phantom.volume
    np.testing.assert_array_equal(image.array, volume.array)
    assert image.geometry == volume.geometry


def test_it_shows_the_command_that_it_runs(a_demonstration: Demonstration, an_untrained_model: Path) -> None:
    command = a_demonstration.out[0]
    assert command.startswith(f"medsam2 segment {a_demonstration.folder / 'patient.nrrd'} -o ")
    assert command.count('--box "') == len(a_demonstration.phantom.structures)
    assert command.endswith(f"--model {an_untrained_model}")


def test_the_dice_it_prints_is_that_of_its_masks(a_demonstration: Demonstration) -> None:
    scores = {name: dice(a_demonstration.masks[name], truth) for name, truth in a_demonstration.phantom.structures.items()}
    told = [line.split() for line in a_demonstration.out]
    for name, score in scores.items():
        assert [*name.split(), f"{score:.3f}"] in told
    assert ["mean", f"{np.mean(list(scores.values())):.3f}"] in told


def test_its_boxes_are_tight_around_the_truth(a_demonstration: Demonstration) -> None:
    prompts = json.loads((a_demonstration.folder / "report.json").read_text())["prompts"]
    assert [one["name"] for one in prompts["objects"]] == list(a_demonstration.phantom.structures)
    for one in prompts["objects"]:
        (box,) = one["prompts"]
        on_slice = a_demonstration.phantom.structures[one["name"]][box["slice"]]
        rows, columns = np.flatnonzero(on_slice.any(1)), np.flatnonzero(on_slice.any(0))
        assert box["box"] == [columns[0], rows[0], columns[-1], rows[-1]]


def test_a_folder_that_cannot_be_made_is_told(medsam2: Command, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    ended = medsam2("demo", "-o", tmp_path / "file" / "demo")
    assert ended.status == 1
    assert "cannot be made" in ended.err


def test_a_negative_seed_is_refused(medsam2: Command, tmp_path: Path) -> None:
    ended = medsam2("demo", "-o", tmp_path, "--seed", "-3")
    assert ended.status == 2
    assert "--seed must be 0 or more" in ended.err
