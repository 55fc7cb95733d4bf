from __future__ import annotations

import pytest

from MedSAM2Lib.network import linear


@pytest.fixture(autouse=True)
def _small_products_count_as_large(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that small networks, quick to test, take the ways of large ones."""
    monkeypatch.setattr(linear, "_LEAST_WORK", 2**10)
