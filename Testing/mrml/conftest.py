"""Real MRML without the application: the slicer-core wheel. Fixtures are named so that a test reads as a sentence."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from MedSAM2Lib.inference.session import SessionOptions
from Testing.lib.inference.support import SeesBright, loaded
from Testing.lib.network.parity.weights import SMALL
from Testing.mrml.engine import InProcessEngine


@pytest.fixture
def scene() -> Iterator[Any]:
    """A scene as the application sets it up: nodes registered, converters known, three slice views."""
    pytest.importorskip("slicer", reason="needs the slicer-core wheel")
    from Testing.mrml.support import Application

    application = Application()
    yield application.scene
    application.close()


@pytest.fixture(scope="session")
def the_kidney() -> npt.NDArray[np.bool_]:
    """(k, j, i) bool: an ellipsoid on slices 4..12, left in the picture."""
    from Testing.mrml import support

    return support.the_kidney()


@pytest.fixture(scope="session")
def the_cyst() -> npt.NDArray[np.bool_]:
    """(k, j, i) bool: a ball on slices 4..12, right in the picture."""
    from Testing.mrml import support

    return support.the_cyst()


@pytest.fixture
def a_volume(scene: Any) -> Any:
    """A CT of 1 x 1 x 2 mm, stored head first: two bright things on dark, in the window 0:255."""
    from Testing.mrml.support import add_patient

    return add_patient(scene)


@pytest.fixture
def an_engine() -> InProcessEngine:
    """Its network answers what is bright."""
    return InProcessEngine(loaded(SeesBright, replace(SMALL, image_size=128)), SessionOptions(zoom=1.6))


@pytest.fixture
def a_logic(scene: Any, an_engine: InProcessEngine, a_volume: Any) -> Iterator[Any]:
    """The logic, with the CT chosen."""
    from MedSAM2SlicerLib.SegmentationLogic import SegmentationLogic

    logic = SegmentationLogic(scene, an_engine)
    logic.messages = []  # what a panel would show
    logic.onMessage.connect(lambda message: logic.messages.append(message.text))
    logic.setVolume(a_volume)
    yield logic
    logic.close()


@pytest.fixture
def finish(a_logic: Any) -> Callable[[], None]:
    """Lets the timer tick until the engine is done."""

    def tick() -> None:
        for _ in range(5000):
            if not a_logic.isBusy:
                return
            a_logic.poll()
        raise AssertionError("the engine is not done after 5000 polls")

    return tick
