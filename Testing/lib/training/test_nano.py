"""nano from random weights: part by part, into one file."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch

from MedSAM2Lib.checkpoints.loading import load_model
from MedSAM2Lib.network.config import NETWORKS
from MedSAM2Lib.training.nano import NANO_RECIPE, NanoRecipe, train_nano
from MedSAM2Lib.training.parts import part_of

CPU = torch.device("cpu")
_FEW = {"workers": 0, "mixed_precision": False, "validate_every": 10**6}
SHORT = NanoRecipe(
    replace(NANO_RECIPE.clips.scaled(1), slices_per_step=2, lengths=(2,), small_image_steps=1, small_image_size=32, **_FEW),
    replace(NANO_RECIPE.prompts.scaled(1), slices_per_step=2, small_image_steps=1, small_image_size=32, **_FEW),
    replace(NANO_RECIPE.drafts.scaled(1), cubes_per_step=1, small_cube_steps=1, small_cube_side=16, **_FEW),
)


def test_a_shorter_recipe_is_shorter_in_all_its_parts() -> None:
    half = NANO_RECIPE.scaled(NANO_RECIPE.steps // 2)
    for part in ("clips", "prompts", "drafts"):
        assert getattr(half, part).steps == getattr(NANO_RECIPE, part).steps // 2
    assert half.clips.single_slice_steps == NANO_RECIPE.clips.single_slice_steps // 2


def test_all_parts_are_trained_and_end_in_one_file(a_train_folder: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    path = train_nano(a_train_folder, folder, SHORT, device=CPU, held_out=())
    assert load_model(str(path), CPU).network.config == NETWORKS["nano"]
    for run in (folder, folder / "prompts", folder / "drafts"):
        assert {"log.csv", "curve.png", "state.pt"} <= {file.name for file in run.iterdir()}


def test_the_second_part_trains_what_answers_prompts_and_leaves_the_rest(a_train_folder: Path, tmp_path: Path) -> None:
    train_nano(a_train_folder, tmp_path / "run", SHORT, device=CPU, held_out=())
    before, after = (
        torch.load(tmp_path / "run" / state, weights_only=True)["averaged"] for state in ("state.pt", "prompts/state.pt")
    )
    weights = [name for name in before if name.startswith("module.")]
    changed = {part_of(name.removeprefix("module.")) for name in weights if not torch.equal(before[name], after[name])}
    assert changed == {"prompted-decoder"}
