"""A folder to train on."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from MedSAM2Lib.training.sources import ALWAYS_LEFT_OUT
from Testing.lib.training.support import ball, entry, write_manifest


@pytest.fixture
def a_train_folder(tmp_path: Path) -> Path:
    """A scan with an organ and two lesions, a CT, and a label map; one of them under a name that is always left out."""
    shape = (16, 40, 40)
    label = np.zeros(shape, np.uint8)
    label[ball(shape, (8, 20, 14), 7)] = 1
    label[ball(shape, (6, 10, 32), 4)] = 2
    label[ball(shape, (10, 31, 31), 4)] = 2
    noise = np.random.default_rng(0).normal(0, 5, shape)
    image = np.choose(label, [40, 120, 200]) + noise
    spacing = np.array([1.0, 1.0, 1.0], np.float32)
    np.savez(tmp_path / "scan.npz", image=image.astype(np.uint8), label=label, spacing=spacing)
    np.savez(tmp_path / "ct.npz", image=(image - 100).astype(np.int16), label=label, spacing=spacing)
    np.savez(tmp_path / "map.npz", label=label, spacing=spacing)
    structures = {"organ": [1], "lesions": [2]}
    return write_manifest(
        tmp_path,
        [
            entry("scan", "image+label", structures),
            entry("ct", "image+label", structures, modality="CT", display_window=[-160, 240], source_group="more tests"),
            entry("map", "label", {"left organ": [1], "right organ": [2]}),
            entry(ALWAYS_LEFT_OUT[0], "image+label", structures),
        ],
    )
