from __future__ import annotations

import subprocess
import sys

import pytest
import torch

from MedSAM2Lib.device import DEVICE_NAMES, choose_device, sensible_threads
from MedSAM2Lib.errors import OptionError
from MedSAM2Lib.network.config import network_config


def has(patch: pytest.MonkeyPatch, *kinds: str) -> None:
    """This machine has a processor, and these devices."""
    patch.setattr(torch.cuda, "is_available", lambda: "cuda" in kinds)
    patch.setattr(torch.backends.mps, "is_available", lambda: "mps" in kinds)


@pytest.mark.parametrize(
    ("there", "chosen"), [([], "cpu"), (["mps"], "mps"), (["cuda"], "cuda"), (["mps", "cuda"], "cuda")], ids=str
)
def test_auto_takes_the_fastest_there_is(monkeypatch: pytest.MonkeyPatch, there: list[str], chosen: str) -> None:
    has(monkeypatch, *there)
    assert choose_device("auto") == torch.device(chosen)
    assert choose_device() == torch.device(chosen)


@pytest.mark.parametrize("name", ["cpu", "cuda", "mps"])
def test_what_is_there_can_be_asked_for(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    has(monkeypatch, "cuda", "mps")
    assert choose_device(name) == torch.device(name)


@pytest.mark.parametrize("name", ["cuda", "mps"])
def test_what_is_not_there_is_refused_with_a_way_out(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    has(monkeypatch)
    with pytest.raises(OptionError, match=rf"Device {name} was asked for, but PyTorch .* finds none here; use --device cpu"):
        choose_device(name)


@pytest.mark.parametrize("name", ["", "gpu", "CPU", "cuda:0", "meta"])
def test_an_unknown_device_is_answered_with_the_known_ones(name: str) -> None:
    with pytest.raises(OptionError, match=rf"Unknown device '{name}': use one of {', '.join(DEVICE_NAMES)}"):
        choose_device(name)


def test_choosing_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    has(monkeypatch, "cuda")
    before = torch.get_default_dtype(), torch.get_default_device(), torch.get_num_threads()
    choose_device("cuda")
    assert (torch.get_default_dtype(), torch.get_default_device(), torch.get_num_threads()) == before


@pytest.mark.parametrize("size", [32, 128, 256])
def test_a_network_of_small_images_gets_one_thread(size: int) -> None:
    assert sensible_threads(network_config("nano", size)) == 1
    assert sensible_threads(network_config("sam2.1-tiny", size)) == 1


def test_the_others_get_all_that_torch_takes_even_after_a_small_one() -> None:
    program = (
        "import torch; torch.set_num_threads(3); from MedSAM2Lib.device import sensible_threads; "
        "from MedSAM2Lib.network.config import NETWORKS; torch.set_num_threads(sensible_threads(NETWORKS['nano'])); "
        "print(torch.get_num_threads(), sensible_threads(NETWORKS['medsam2']))"
    )
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert result.stdout.split() == ["1", "3"]
