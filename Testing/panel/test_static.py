"""What the panel's source asks of qt, ctk and slicer is on the host's table, and so was looked up in Slicer's sources."""

from __future__ import annotations

import ast
import re
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
MODULE = ROOT / "MedSAM2Slicer"
README = (Path(__file__).parent / "README.md").read_text(encoding="utf-8")
TABLE = {
    name: set(re.findall(r"`(\w+)`", members)) for name, members in re.findall(r"^\| `([\w.]+)` \| (.*?) \|", README, re.M)
}
PANEL = [
    path for path in sorted(MODULE.rglob("*.py")) if re.search(r"^import (qt|ctk)$", path.read_text(encoding="utf-8"), re.M)
]
# The members of classes that slicer-core has as well are tried for real by every test; these names need no row.
REAL = re.compile(r"slicer\.(vtk\w+)")


def dotted(node: ast.AST) -> str | None:
    """'qt.Qt.AlignRight' of such an expression."""
    parts: list[str] = []
    while isinstance(node, ast.Attribute):
        parts.append(node.attr)
        node = node.value
    return ".".join([node.id, *reversed(parts)]) if isinstance(node, ast.Name) else None


def asked(path: Path) -> set[str]:
    """The dotted names of a file that begin with qt, ctk or slicer."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    names = {name for node in ast.walk(tree) if isinstance(node, ast.Attribute) and (name := dotted(node))}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "slicer":
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return {name for name in names if name.split(".")[0] in ("qt", "ctk", "slicer") and "." in name}


def is_listed(name: str) -> bool:
    if REAL.match(name):
        return True
    parts = name.split(".")
    owners = [".".join(parts[:length]) for length in range(2, len(parts) + 1)]
    owner = max((each for each in owners if each in TABLE), key=len, default=None)
    rest = parts[len(owner.split(".")) :] if owner else parts
    return owner is not None and (not rest or rest[0] in TABLE[owner] or rest[0].startswith("__"))


@pytest.mark.parametrize("path", PANEL, ids=lambda path: path.name)
def test_every_name_of_qt_ctk_and_slicer_is_listed(path: Path) -> None:
    assert not {name for name in asked(path) if not is_listed(name)}


@pytest.mark.parametrize("path", PANEL, ids=lambda path: path.name)
def test_every_qt_member_is_listed(path: Path) -> None:
    widgets = pytest.importorskip("PySide6.QtWidgets", reason="Qt's members are looked up in PySide6", exc_type=ImportError)
    modules = (widgets, sys.modules["PySide6.QtGui"], sys.modules["PySide6.QtCore"])
    qt_names = {each for module in modules for kind in vars(module).values() if isinstance(kind, type) for each in dir(kind)}
    ours = {
        name
        for file in [*MODULE.rglob("*.py"), *(ROOT / "MedSAM2Lib").rglob("*.py")]
        for name in re.findall(r"(?:def |self\.|^\s+)(\w+)(?=\(|:|,| =)", file.read_text(encoding="utf-8"), re.M)
    }
    python = {name for kind in (str, list, dict, set, Path, float, ast.AST) for name in dir(kind)}
    tree = ast.parse(path.read_text(encoding="utf-8"))
    used = {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    listed = set().union(*TABLE.values())
    assert not {name for name in used & qt_names if name not in listed | ours | python}


def test_every_row_names_its_source() -> None:
    rows = re.findall(r"^\| `[\w.]+` \| .*? \| (.*?) \|$", README, re.M)
    assert len(rows) == len(TABLE)
    assert all(re.match(r"(Slicer|CTK|Qt): \S", source) for source in rows)


def test_the_panel_never_runs_the_event_loop_or_a_qt_thread() -> None:
    for path in MODULE.rglob("*.py"):
        assert not re.search(r"processEvents|QThread|\.exec_?\(", path.read_text(encoding="utf-8")), path


def test_only_the_top_layer_knows_qt() -> None:
    for path in (MODULE / "MedSAM2SlicerLib").glob("*.py"):
        names_qt = re.search(r"^\s*(import|from) (qt|ctk)\b", path.read_text(encoding="utf-8"), re.M)
        assert not names_qt or path.stem.startswith(("Widget", "Engine", "InstallLogic")), path
