from __future__ import annotations

from pathlib import Path

import pytest

from MedSAM2Lib.checkpoints.registry import MODELS
from MedSAM2Lib.checkpoints.store import installed_path
from Testing.lib.cli.support import Command


@pytest.mark.skipif(installed_path(MODELS["nano"]) is None, reason="this checkout has no Resources/Models/nano.pt")
def test_this_installation_works(medsam2: Command) -> None:
    ended = medsam2("selftest")
    assert ended.status == 0, ended.out
    assert [line.split(":")[0] for line in ended.out.splitlines()] == [
        "ok    versions",
        "ok    model",
        "ok    segmentation",
        "ok    files",
    ]


def test_a_model_that_segments_nonsense_fails(medsam2: Command, an_untrained_model: Path) -> None:
    ended = medsam2("selftest", "--model", an_untrained_model)
    assert ended.status == 1
    assert "FAIL  segmentation" in ended.out
    assert "ok    files" in ended.out
    assert "1 of 4 checks failed" in ended.err


def test_every_check_is_made_though_one_fails(medsam2: Command, tmp_path: Path) -> None:
    (tmp_path / "damaged.pt").write_bytes(b"not weights")
    ended = medsam2("selftest", "--model", tmp_path / "damaged.pt")
    assert ended.status == 1
    assert "FAIL  model: CheckpointError" in ended.out
    assert "FAIL  segmentation: RuntimeError: not possible without the model" in ended.out
    assert "ok    files" in ended.out
