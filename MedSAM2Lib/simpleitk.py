"""SimpleITK, imported when it is first needed."""

from __future__ import annotations

import importlib
from typing import Any

__all__ = ["import_simpleitk"]


def import_simpleitk() -> Any:
    """The SimpleITK module: a fifth of a second, which a command that touches no image need not pay."""
    return importlib.import_module("SimpleITK")
