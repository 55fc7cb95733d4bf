"""Fixtures that tests of more than one package share."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import SimpleITK
import torch

from MedSAM2Lib.checkpoints.loading import save_checkpoint
from MedSAM2Lib.checkpoints.store import STORE_VARIABLE
from MedSAM2Lib.network.build import build_network, initialise
from MedSAM2Lib.network.config import NETWORKS


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)  # sums in one order, on whatever machine


@pytest.fixture(autouse=True)
def _threads_as_before() -> Iterator[None]:
    """A command sets them for its process, which in a test is that of all the others."""
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


@pytest.fixture(autouse=True)
def _an_empty_model_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not the one of whoever runs the tests."""
    monkeypatch.setenv(STORE_VARIABLE, str(tmp_path / "store"))


@pytest.fixture(scope="session")
def an_untrained_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint of nano with seeded random weights: it segments nonsense, but always the same."""
    path = tmp_path_factory.mktemp("models") / "untrained.pt"
    with torch.random.fork_rng():
        torch.manual_seed(0)
        save_checkpoint(initialise(build_network(NETWORKS["nano"])), "nano", path)
    return path


@pytest.fixture(scope="session")
def a_scan(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A CT-like NRRD of 6 x 40 x 48 voxels (k, j, i), oblique: a bright ellipsoid in noise."""
    k, j, i = np.ogrid[:6, :40, :48]
    inside = ((k - 3) / 2.5) ** 2 + ((j - 20) / 9) ** 2 + ((i - 24) / 12) ** 2 <= 1
    noise = np.random.default_rng(0).normal(0, 15, inside.shape)
    image = SimpleITK.GetImageFromArray(np.round(np.where(inside, 110, -300) + noise).astype(np.int16))
    image.SetSpacing((0.8, 0.9, 3.0))
    image.SetOrigin((-20.5, 13.25, 700.0))
    angle = 0.1
    image.SetDirection((np.cos(angle), -np.sin(angle), 0, np.sin(angle), np.cos(angle), 0, 0, 0, 1))
    path = tmp_path_factory.mktemp("scans") / "scan.nrrd"
    SimpleITK.WriteImage(image, str(path), useCompression=True)
    return path
