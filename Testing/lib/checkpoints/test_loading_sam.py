"""Checkpoints of MedSAM's layout."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from MedSAM2Lib.checkpoints import loading
from MedSAM2Lib.checkpoints.loading import LoadedSAM, load_any_model, load_model, save_checkpoint
from MedSAM2Lib.errors import CheckpointError, OptionError
from MedSAM2Lib.network import config
from MedSAM2Lib.network.config import SAMConfig
from MedSAM2Lib.network.sam import SAM
from Testing.lib.network.parity.random_sam import random_sam

CPU = torch.device("cpu")
SMALL = SAMConfig(32, 2, 2, 3, (1,), image_size=64, hidden_dim=32, feedforward_dim=48)


@pytest.fixture
def small_medsam(monkeypatch: pytest.MonkeyPatch) -> SAM:
    """MedSAM, had its authors had no more than this machine."""
    monkeypatch.setitem(config.SAM_NETWORKS, "medsam", SMALL)
    loading._layout.cache_clear()
    monkeypatch.setattr(loading, "_layout", loading._layout.__wrapped__)
    return random_sam(SMALL)


@pytest.mark.parametrize("published", [True, False], ids=["as published", "as this library saves"])
def test_a_file_of_medsams_layout_is_recognised(small_medsam: SAM, tmp_path: Path, published: bool) -> None:
    path = tmp_path / "medsam_vit_b.pth"
    if published:
        torch.save(small_medsam.state_dict(), path)  # a bare dictionary of tensors
    else:
        save_checkpoint(small_medsam, "medsam", path)
    model = load_any_model(str(path), CPU)
    assert isinstance(model, LoadedSAM)
    with pytest.raises(OptionError, match="in float32 only"):
        load_any_model(str(path), CPU, precision="bfloat16")
    assert (model.name, model.network.config) == ("medsam_vit_b.pth", SMALL)
    for name, tensor in model.network.state_dict().items():
        torch.testing.assert_close(tensor, small_medsam.state_dict()[name], rtol=0, atol=0 if published else 1e-2)
    assert not model.network.training


def test_where_memory_is_needed_it_is_refused(small_medsam: SAM, tmp_path: Path) -> None:
    torch.save(small_medsam.state_dict(), tmp_path / "medsam.pth")
    with pytest.raises(OptionError, match="remembers none of them"):
        load_model(str(tmp_path / "medsam.pth"), CPU)


def test_it_is_never_approximated(small_medsam: SAM, tmp_path: Path) -> None:
    torch.save(small_medsam.state_dict(), tmp_path / "medsam.pth")
    with pytest.raises(OptionError, match="leave out crop"):
        load_any_model(str(tmp_path / "medsam.pth"), CPU, approximations=["crop"])


def test_a_key_that_is_missing_or_odd_is_named(small_medsam: SAM, tmp_path: Path) -> None:
    weights = small_medsam.state_dict()
    weights["mask_decoder.surplus"] = weights.pop("image_encoder.neck.0.weight")
    torch.save(weights, tmp_path / "odd.pth")
    with pytest.raises(CheckpointError, match=r"with medsam it lacks image_encoder\.neck\.0\.weight; has in excess mask_decoder"):
        load_any_model(str(tmp_path / "odd.pth"), CPU)
