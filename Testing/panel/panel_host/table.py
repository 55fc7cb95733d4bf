"""What the host offers: the tables of ../README.md, read. The one place that says it."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path

README = Path(__file__).parents[1] / "README.md"
_ROW = re.compile(r"^\| `([\w.]+)` \| (.*?) \| (.*?) \|$", flags=re.MULTILINE)


@cache
def table() -> dict[str, frozenset[str]]:
    """By dotted name ('qt.QPushButton', 'slicer.app'): the members that the panel may use."""
    rows = _ROW.findall(README.read_text(encoding="utf-8"))
    return {name: frozenset(re.findall(r"`(\w+)`", members)) for name, members, _ in rows}


def sources() -> dict[str, str]:
    """By dotted name: where its members were looked up."""
    return {name: source for name, _, source in _ROW.findall(README.read_text(encoding="utf-8"))}


def members(name: str, *bases: str) -> frozenset[str]:
    """Of a class, with those of the classes it inherits from."""
    return frozenset().union(*(table().get(each, frozenset()) for each in (name, *bases)))
