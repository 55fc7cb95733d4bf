from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path

import pytest

from MedSAM2Lib.checkpoints import store
from MedSAM2Lib.checkpoints.registry import MODELS
from Testing.lib.cli.support import Command


@pytest.mark.parametrize("arguments", [[], ["list"]])
def test_every_model_is_listed_with_its_licence_and_place(medsam2: Command, arguments: list[str]) -> None:
    ended = medsam2("models", *arguments)
    assert ended.status == 0
    for model in MODELS.values():
        assert f"\n{model.id} " in f"\n{ended.out}"
        assert model.licence in ended.out
        assert model.purpose in ended.out
    assert (
        "not on this machine (156 MB): medsam2 models download medsam2, "
        "or get MedSAM2_latest.pt from huggingface.co/wanglab/MedSAM2" in ended.out
    )


def test_a_whole_file_is_verified(medsam2: Command, an_untrained_model: Path) -> None:
    ended = medsam2("models", "verify", an_untrained_model)
    assert ended.status == 0
    assert hashlib.sha256(an_untrained_model.read_bytes()).hexdigest() in ended.out
    assert "network   nano, 19.8 million parameters" in ended.out
    assert "not a file whose hash this version knows" in ended.out


def test_a_file_with_a_published_name_and_another_content_is_told(
    medsam2: Command, an_untrained_model: Path, tmp_path: Path
) -> None:
    (tmp_path / "MedSAM2_latest.pt").write_bytes(an_untrained_model.read_bytes())
    assert (
        "not the published medsam2, though its name is the same"
        in medsam2("models", "verify", tmp_path / "MedSAM2_latest.pt").out
    )


def test_a_damaged_file_fails(medsam2: Command, an_untrained_model: Path, tmp_path: Path) -> None:
    (tmp_path / "cut.pt").write_bytes(an_untrained_model.read_bytes()[:5000])
    ended = medsam2("models", "verify", tmp_path / "cut.pt")
    assert ended.status == 1
    assert ended.err.count("\n") == 1
    assert not ended.out


def test_an_unknown_model_is_a_usage_error(medsam2: Command) -> None:
    assert medsam2("models", "verify", "nanoo").status == 2


def test_another_file_under_a_models_id_is_told(
    medsam2: Command, an_untrained_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(MODELS, "nano", replace(MODELS["nano"], sha256="0" * 64))
    monkeypatch.setattr(store, "resource_path", lambda *parts: an_untrained_model)
    ended = medsam2("models", "verify", "nano")
    assert ended.status == 1
    assert "should have the SHA-256 0000000000000000..." in ended.err
