from __future__ import annotations

import pytest

from MedSAM2Lib.checkpoints.loading import LoadedModel
from MedSAM2Lib.network.sam2 import SAM2
from MedSAM2Lib.volume import Volume
from Testing.lib.inference.support import Mask, SeesBright, ellipsoid, loaded, volume_of


@pytest.fixture(scope="session")
def a_model() -> LoadedModel:
    """Answers nonsense, on every slice, but always the same."""
    return loaded(SAM2)


@pytest.fixture(scope="session")
def a_seeing_model() -> LoadedModel:
    """Answers what is bright."""
    return loaded(SeesBright)


@pytest.fixture(scope="session")
def the_truth() -> Mask:
    """(24, 48, 48) bool: an ellipsoid on slices 4..19 along k."""
    return ellipsoid()


@pytest.fixture(scope="session")
def a_volume(the_truth: Mask) -> Volume:
    return volume_of(the_truth)
