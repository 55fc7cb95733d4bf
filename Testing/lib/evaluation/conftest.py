from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from MedSAM2Lib.benchmark.subject import random_network
from MedSAM2Lib.checkpoints.loading import LoadedModel
from MedSAM2Lib.evaluation.cases import LoadedCase, load_case
from MedSAM2Lib.evaluation.manifest import read_manifest
from Testing.lib.evaluation.support import SHAPE, SMALL, WriteManifest, entry, labels, write_image


@pytest.fixture
def write_manifest(tmp_path: Path) -> WriteManifest:
    """Writes the files of both cases, and a manifest of the entries given (the volume's, when none is)."""
    label = labels()
    image = np.choose(label, (-50, 100, 180)) + np.random.default_rng(0).normal(0, 10, SHAPE)
    write_image(tmp_path / "image.nrrd", image.astype(np.int16))
    write_image(tmp_path / "label.nrrd", label)
    write_image(tmp_path / "slice.nrrd", image[4:5].astype(np.int16))
    write_image(tmp_path / "slice_label.nrrd", label[4:5])

    def write(*entries: dict[str, Any]) -> Path:
        path = tmp_path / "manifest.json"
        path.write_text(json.dumps({"cases": entries or [entry()]}))
        return path

    return write


@pytest.fixture
def a_case(write_manifest: WriteManifest) -> LoadedCase:
    return load_case(read_manifest(write_manifest())[0])


@pytest.fixture(scope="session")
def a_model() -> LoadedModel:
    return LoadedModel(random_network(SMALL), "random", Path(), "0" * 64, 2.0)
