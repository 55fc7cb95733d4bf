"""Rehearsals: what a decoder was told in passes through scenes, on disk, and training on it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from MedSAM2Lib.checkpoints.loading import load_model
from MedSAM2Lib.errors import TrainingError
from MedSAM2Lib.geometry import Geometry
from MedSAM2Lib.inference.session import Session
from MedSAM2Lib.network.prompted_unet import PromptedUNet
from MedSAM2Lib.training.rehearsal_training import RehearsalPlan, RehearsalValidation, train_follower
from MedSAM2Lib.training.rehearsals import Rehearsed, record_rehearsals, rehearse
from MedSAM2Lib.training.scenes import Scene
from MedSAM2Lib.volume import Volume
from Testing.lib.training.support import ball

SHAPE = (14, 40, 44)
PLAN = RehearsalPlan(
    steps=4, slices_per_step=4, warmup_steps=1, save_every=2, validate_every=4, workers=0, mixed_precision=False
)


def a_scene(rng: np.random.Generator, *, step: int = 0) -> Scene:
    """A bright ball of nine slices."""
    mask = ball(SHAPE, (7, 20, 22), 4.5)
    image = np.where(mask, 200, 60) + rng.normal(0, 5, SHAPE)
    return Scene(Volume(image.astype(np.uint8), Geometry(SHAPE)), mask, 7, "synthetic", "ball")


@pytest.fixture(scope="module")
def nano() -> Session:
    return Session(load_model("nano", torch.device("cpu")))


@pytest.fixture(scope="module")
def a_folder(nano: Session, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("rehearsals")
    record_rehearsals(nano, a_scene, folder, 2, scenes_per_file=1, seed=0)
    return folder


def the_decoder(session: Session) -> PromptedUNet:
    """A copy of the one that follows objects."""
    decoder = PromptedUNet(session.model.network.config.hidden_dim)
    decoder.load_state_dict(session.model.network.sam_mask_decoder.state_dict())
    return decoder


def test_what_the_decoder_was_told_is_enough_to_ask_it_again(nano: Session) -> None:
    slices = rehearse(nano, a_scene(np.random.default_rng(1)), np.random.default_rng(1))
    assert slices.pixels.shape[1:] == (4, 128, 128)
    assert 4 <= len(slices.mask) <= 13 + 3 * 13
    padded = (torch.zeros(1, 1, 2), torch.full((1, 1), -1))
    with torch.no_grad():
        again = the_decoder(nano)(slices.pixels[:1].float(), slices.conditioned[:1].float(), *padded, slices.hint[:1].float())
    torch.testing.assert_close(again.tokens[:, 0], slices.token[:1].float(), atol=0.02, rtol=0.02)


def test_the_mask_is_seen_through_the_view_that_the_decoder_saw(nano: Session) -> None:
    slices = rehearse(nano, a_scene(np.random.default_rng(1)), np.random.default_rng(1))
    grey = slices.pixels[:, 1].float()
    for one, mask in zip(grey, slices.mask, strict=True):
        if mask.any():
            assert one[mask].mean() > one[~mask].mean() + 1


def test_the_session_goes_on_without_the_rehearsal(nano: Session) -> None:
    rehearse(nano, a_scene(np.random.default_rng(1)), np.random.default_rng(1))
    assert nano.objects == []
    assert not nano.model.network.sam_mask_decoder._forward_hooks


def test_an_interrupted_recording_goes_on_and_ends_the_same(nano: Session, a_folder: Path, tmp_path: Path) -> None:
    def interrupt(line: str) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        record_rehearsals(nano, a_scene, tmp_path, 2, scenes_per_file=1, seed=0, report=interrupt)
    first = next(iter(tmp_path.iterdir())).stat().st_mtime_ns
    record_rehearsals(nano, a_scene, tmp_path, 2, scenes_per_file=1, seed=0)
    assert min(path.stat().st_mtime_ns for path in tmp_path.iterdir()) == first
    whole, resumed = Rehearsed(a_folder), Rehearsed(tmp_path)
    everything = np.arange(len(whole))
    assert len(resumed) == len(whole)
    for one, other in zip(whole.batch(everything), resumed.batch(everything), strict=True):
        assert torch.equal(one, other)


def test_slices_are_numbered_over_all_files(a_folder: Path) -> None:
    first, second = (torch.load(path, weights_only=True) for path in sorted(a_folder.iterdir()))
    count = len(first["mask"])
    batch = Rehearsed(a_folder).batch(np.array([count - 1, count]))
    assert torch.equal(batch.hint, torch.stack((first["hint"][-1], second["hint"][0])))


def test_training_on_rehearsals_learns_and_resumes_bit_for_bit(nano: Session, a_folder: Path, tmp_path: Path) -> None:
    slices = Rehearsed(a_folder)
    lines: list[str] = []
    whole = train_follower(the_decoder(nano), slices, PLAN, tmp_path / "whole", report=lines.append)
    losses = [float(line.split("loss ")[1].split()[0]) for line in lines]
    assert losses[-1] < losses[0]

    def interrupt(line: str) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train_follower(the_decoder(nano), slices, PLAN, tmp_path / "halves", report=interrupt)
    resumed = train_follower(the_decoder(nano), slices, PLAN, tmp_path / "halves")
    for name, value in whole.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[name]), name


def test_validation_scores_masks_and_presence(nano: Session, a_folder: Path) -> None:
    scores = RehearsalValidation(Rehearsed(a_folder))(the_decoder(nano))
    assert scores["tracked_dice"] > 0.7  # a bright ball
    assert 0.5 < scores["object_accuracy"] <= 1


def test_tokens_that_pointers_are_made_of_are_held(nano: Session, a_folder: Path, tmp_path: Path) -> None:
    slices = Rehearsed(a_folder)
    batch = slices.batch(np.arange(4))

    def drift(weight: float) -> float:
        plan = replace(PLAN, learning_rate=1e-3, token_weight=weight)
        decoder = train_follower(the_decoder(nano), slices, plan, tmp_path / str(weight))
        padded = (torch.zeros(4, 1, 2), torch.full((4, 1), -1))
        with torch.no_grad():
            tokens = decoder(batch.pixels.float(), batch.conditioned.float(), *padded, batch.hint.float()).tokens[:, 0]
        return float((tokens - batch.token.float()).square().mean())

    assert drift(10.0) < drift(0.0)


def test_a_folder_without_rehearsals_and_a_damaged_file_are_named(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="none"):
        Rehearsed(tmp_path)
    (tmp_path / "0000.rehearsals").write_bytes(b"no tensors")
    with pytest.raises(TrainingError, match=r"0000\.rehearsals"):
        Rehearsed(tmp_path)
