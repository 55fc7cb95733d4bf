from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

os.environ.setdefault("QT_QPA_PLATFORM", "offscreen")


@pytest.fixture
def new_host(tmp_path: Path) -> Iterator[Callable[..., Any]]:
    """Makes hosts; every slot that raised in one fails the test."""
    pytest.importorskip(
        "PySide6.QtWidgets", reason="the test host is made of PySide6: pip install PySide6-Essentials", exc_type=ImportError
    )
    pytest.importorskip("slicer", reason="the test host needs real MRML: pip install slicer-core", exc_type=ImportError)
    from panel_host import pythonqt
    from panel_host.application import Host

    hosts: list[Any] = []

    def make(**options: Any) -> Any:
        hosts.append(Host(tmp_path, **options).__enter__())
        return hosts[-1]

    yield make
    for host in hosts:
        host.__exit__()
    assert not pythonqt.raised


@pytest.fixture
def host(new_host: Callable[..., Any]) -> Any:
    """A host with a main window, in which the panel is open."""
    made = new_host()
    made.open()
    return made


@pytest.fixture
def person(host: Any) -> Any:
    """Someone who has a mask on one slice."""
    from patient import box_around, load_patient
    from person import Person

    made = Person(host)
    made.loads(load_patient(host))
    made.draws_box("Red", *box_around("right kidney", axis=0)[1:])
    return made


@pytest.fixture
def screenshots(tmp_path: Path) -> Path:
    """Where pictures go: the folder that MEDSAM2_SCREENSHOTS names, else one that is thrown away."""
    folder = Path(os.environ.get("MEDSAM2_SCREENSHOTS") or tmp_path / "screenshots")
    folder.mkdir(parents=True, exist_ok=True)
    return folder
