"""A run that is interrupted goes on as if it had not been; a run that fails keeps what it had."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from MedSAM2Lib.errors import TrainingError
from MedSAM2Lib.network.build import build_network, initialise
from MedSAM2Lib.network.config import NetworkConfig
from MedSAM2Lib.network.sam2 import SAM2
from MedSAM2Lib.training.clip import ClipBatch
from MedSAM2Lib.training.clip_training import TrainingPlan, train
from MedSAM2Lib.training.validation import ClipValidation
from Testing.lib.training.support import TINY, squares

PLAN = TrainingPlan(steps=4, slices_per_step=4, lengths=(1, 2), warmup_steps=2, save_every=2, validate_every=4, workers=0)


def a_network() -> SAM2:
    torch.manual_seed(0)
    return initialise(build_network(TINY))


def test_an_interrupted_run_resumes_bit_for_bit(tmp_path: Path) -> None:
    whole = train(a_network(), squares, PLAN, tmp_path / "whole")

    def interrupt(line: str) -> None:
        raise KeyboardInterrupt

    for _ in range(2):  # every report stops the run; the state saved before it is where the next one starts
        with pytest.raises(KeyboardInterrupt):
            train(a_network(), squares, PLAN, tmp_path / "halves", report=interrupt)
    resumed = train(a_network(), squares, PLAN, tmp_path / "halves")
    for name, value in whole.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[name]), name


def test_training_lowers_the_loss_on_squares(tmp_path: Path) -> None:
    plan = TrainingPlan(steps=60, slices_per_step=8, lengths=(1,), warmup_steps=5, save_every=20, learning_rate=2e-3, workers=0)
    lines: list[str] = []
    train(a_network(), squares, plan, tmp_path, report=lines.append)
    losses = [float(line.split("loss ")[1].split()[0]) for line in lines]
    assert losses[-1] < 0.7 * losses[0]


def test_small_images_come_first(tmp_path: Path) -> None:
    config = NetworkConfig(trunk=None, image_size=64, hidden_dim=16, memory_dim=8, memory_layers=1, feedforward_dim=16)
    sizes: list[int] = []

    def source(rng: np.random.Generator, batch_size: int, image_size: int, length: int, *, step: int) -> ClipBatch:
        sizes.append(image_size)
        return squares(rng, batch_size, image_size, length, step=step)

    plan = replace(PLAN, small_image_steps=3, small_image_size=32)
    trained = train(initialise(build_network(config)), source, plan, tmp_path)
    assert sizes == [32, 32, 32, 64]
    assert trained.config == config


def test_a_loss_that_is_not_finite_ends_the_run_and_keeps_the_state(tmp_path: Path) -> None:
    def poisoned(rng: np.random.Generator, batch_size: int, image_size: int, length: int, *, step: int) -> ClipBatch:
        batch = squares(rng, batch_size, image_size, length, step=step)
        return batch._replace(images=batch.images * (torch.nan if step == 3 else 1))

    with pytest.raises(TrainingError, match="step 3"):
        train(a_network(), poisoned, PLAN, tmp_path)
    assert torch.load(tmp_path / "state.pt", weights_only=True)["step"] == 2


def test_the_state_of_another_network_is_refused(tmp_path: Path) -> None:
    (tmp_path / "state.pt").write_bytes(b"not a state")
    with pytest.raises(TrainingError, match="another folder"):
        train(a_network(), squares, PLAN, tmp_path)


def test_validation_scores_a_fixed_set_of_clips() -> None:
    validation = ClipValidation(squares, 32, batches=1, clips=2, length=2)
    scores = validation(a_network())
    assert scores == validation(a_network())
    assert 0 <= scores["prompted_dice"] <= 1
