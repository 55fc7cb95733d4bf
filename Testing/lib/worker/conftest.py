from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from MedSAM2Lib.worker.client import EngineClient
from Testing.lib.worker.support import Client, open_volume


@pytest.fixture
def a_client(an_untrained_model: Path) -> Iterator[Client]:
    """Makes clients of real engines with the untrained model on one thread, which end with the test."""
    with ExitStack() as stack:

        def make(*args: Any, **settings: Any) -> EngineClient:
            asked = {"model": str(an_untrained_model), "device": "cpu", "threads": 1, **settings}
            return stack.enter_context(EngineClient(*args, **asked))

        yield make


@pytest.fixture(scope="module")
def the_engine(an_untrained_model: Path) -> Iterator[EngineClient]:
    """One engine for the tests of a module that leave it alive; each opens a volume of its own."""
    with EngineClient(model=str(an_untrained_model), device="cpu", threads=1) as client:
        yield client


@pytest.fixture
def an_engine(the_engine: EngineClient) -> Iterator[EngineClient]:
    """The module's engine with the small volume open as "ct", nothing left over of the test before."""
    the_engine.poll()
    open_volume(the_engine)
    yield the_engine
    the_engine.call("close_volume", "ct")
