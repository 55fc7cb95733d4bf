from __future__ import annotations

import pytest
from torch import Tensor

from MedSAM2Lib.benchmark.subject import random_network
from MedSAM2Lib.network.config import NetworkConfig
from MedSAM2Lib.network.sam2 import SAM2
from Testing.lib.network.parity.weights import SMALL, SMALL_2_0, random_slices


@pytest.fixture(scope="session", params=[SMALL, SMALL_2_0], ids=["sam2.1", "sam2.0"])
def a_config(request: pytest.FixtureRequest) -> NetworkConfig:
    config: NetworkConfig = request.param
    return config


@pytest.fixture(scope="session")
def a_network(a_config: NetworkConfig) -> SAM2:
    return random_network(a_config)


@pytest.fixture(scope="session")
def slices(a_config: NetworkConfig) -> Tensor:
    return random_slices(3, a_config)
