"""Names and shapes of our weights are those of the published checkpoints, for every network that we can build."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from MedSAM2Lib.network.build import build_network
from MedSAM2Lib.network.config import network_config

TABLES = Path(__file__).resolve().parents[5] / "shared" / "state_dicts"
PUBLISHED = {
    "medsam2": "medsam2_tiny512",
    **{
        f"sam{generation}-{size}": f"sam{generation}_{size.replace('-', '_')}"
        for generation in ("2.0", "2.1")
        for size in ("tiny", "small", "base-plus", "large")
    },
    "efficienttam-tiny": "efficienttam_ti_512",
    "efficienttam-small": "efficienttam_s_512",
}


@pytest.mark.skipif(not TABLES.is_dir(), reason="the tables of the published checkpoints lie beside the repository, not in it")
@pytest.mark.parametrize("name", PUBLISHED)
def test_names_and_shapes_are_the_published_ones(name: str) -> None:
    table = json.loads((TABLES / f"{PUBLISHED[name]}.json").read_text())
    published = {key: tuple(record["shape"]) for key, record in table["keys"].items()}
    with torch.device("meta"):
        network = build_network(network_config(name))
    assert {key: tuple(tensor.shape) for key, tensor in network.state_dict().items()} == published
