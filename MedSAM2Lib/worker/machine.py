"""What the machine has."""

from __future__ import annotations

import os
import sys

__all__ = ["memory_budget"]

_SHARE = 0.5  # of the machine's memory; the front end has the volume as well
_UNKNOWN = 4 * 2**30  # bytes, where the machine does not tell


def memory_budget() -> int:
    """Bytes that the engine may fill with volumes and image features, where nobody said how many."""
    if sys.platform == "win32":
        return _UNKNOWN
    try:
        return int(_SHARE * os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    except (ValueError, OSError):
        return _UNKNOWN
