"""Training drafts: a run that is interrupted goes on as if it had not been, and drafts get better."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from MedSAM2Lib.errors import TrainingError
from MedSAM2Lib.network.volume_unet import CUBE_SIDE, VolumeUNet
from MedSAM2Lib.training.cubes import Cube, CubeBatch
from MedSAM2Lib.training.draft_training import CubeValidation, DraftPlan, draft_loss, train_draft

SIDE = 16
PLAN = DraftPlan(
    steps=4, cubes_per_step=2, small_cube_steps=4, small_cube_side=SIDE, warmup_steps=2, save_every=2, validate_every=4,
    workers=0, mixed_precision=False,  # see `DraftPlan.small_cube_steps`
)  # fmt: skip


def balls(rng: np.random.Generator, batch_size: int, side: int, *, step: int) -> CubeBatch:
    """Each cube is one bright ball, of which the middle plane is known."""
    cubes = []
    for _ in range(batch_size):
        middle, radius = rng.uniform(0.4, 0.6, 3) * side, rng.uniform(0.2, 0.3) * side
        places = np.stack(np.mgrid[:side, :side, :side], axis=-1)
        mask = ((places - middle) ** 2).sum(-1) <= radius**2
        known = np.arange(side) == round(middle[0])
        grey = np.where(mask, 0.8, 0.2).astype(np.float32)
        inside = np.ones(side, dtype=bool)
        cubes.append(Cube(grey, known, mask & known[:, None, None], 1.0, mask, inside, "synthetic", "ball"))
    return CubeBatch.of(cubes)


def a_network() -> VolumeUNet:
    torch.manual_seed(0)
    return VolumeUNet()


def test_an_interrupted_run_resumes_bit_for_bit(tmp_path: Path) -> None:
    whole = train_draft(a_network(), balls, PLAN, tmp_path / "whole")

    def interrupt(line: str) -> None:
        raise KeyboardInterrupt

    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            train_draft(a_network(), balls, PLAN, tmp_path / "halves", report=interrupt)
    resumed = train_draft(a_network(), balls, PLAN, tmp_path / "halves")
    for name, value in whole.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[name]), name


def test_training_learns_to_draft_balls(tmp_path: Path) -> None:
    plan = DraftPlan(
        steps=60, cubes_per_step=2, small_cube_steps=60, small_cube_side=SIDE, warmup_steps=5, save_every=20,
        learning_rate=2e-3, workers=0, mixed_precision=False,
    )  # fmt: skip
    lines: list[str] = []
    train_draft(a_network(), balls, plan, tmp_path, report=lines.append)
    losses = [float(line.split("loss ")[1].split()[0]) for line in lines]
    assert losses[-1] < 0.5 * losses[0]


def test_small_cubes_come_first_and_more_of_them() -> None:
    plan = DraftPlan(steps=10, cubes_per_step=8, small_cube_steps=4)
    assert [plan.cubes_at(step) for step in (0, 3, 4)] == [(48, 12), (48, 12), (CUBE_SIDE, 8)]
    assert plan.scaled(5).small_cube_steps == 2


def test_a_loss_that_is_not_finite_ends_the_run_and_keeps_the_state(tmp_path: Path) -> None:
    def poisoned(rng: np.random.Generator, batch_size: int, side: int, *, step: int) -> CubeBatch:
        batch = balls(rng, batch_size, side, step=step)
        return batch._replace(grey=batch.grey * (torch.nan if step == 3 else 1))

    with pytest.raises(TrainingError, match="step 3"):
        train_draft(a_network(), poisoned, PLAN, tmp_path)
    assert (tmp_path / "state.pt").exists()


def test_what_lies_outside_the_volume_is_not_marked() -> None:
    batch = balls(np.random.default_rng(0), 1, SIDE, step=0)
    inside = batch.inside.clone()
    inside[:, -3:] = False
    logits = torch.zeros_like(batch.grey)
    other = logits.clone()
    other[:, -3:] = 9.0
    assert draft_loss(logits, batch.mask, inside) == draft_loss(other, batch.mask, inside)
    assert draft_loss(logits, batch.mask, batch.inside) < draft_loss(other, batch.mask, batch.inside)


def test_validation_is_the_mean_dice_of_drafts() -> None:
    class Knowing(VolumeUNet):
        def forward(self, grey: torch.Tensor, known: torch.Tensor, told: torch.Tensor, depth: torch.Tensor) -> torch.Tensor:
            return grey - 0.5

    assert CubeValidation(balls, batches=2, cubes=1)(Knowing()) == {"draft_dice": 1.0}
