"""Whether a file is still the one that it was, told without reading it."""

from __future__ import annotations

import glob
from pathlib import Path

__all__ = ["fingerprint"]

# Headers whose voxels are in a file of the same name but for the ending.
_HEADERS = (".mhd", ".nhdr", ".hdr", ".img")


def fingerprint(path: Path) -> list[tuple[str, int, int]]:
    """Name, bytes and time of change (ns) of each file of an image; of a folder, of those right in it.

    A scan may be gigabytes on a slow disk, so its content is not read: a file that was copied without its times counts
    as another one. Raises OSError where the path is not there.
    """
    if path.is_dir():
        files = [file for file in path.iterdir() if file.is_file()]
    elif path.suffix.lower() in _HEADERS:
        files = list(path.parent.glob(f"{glob.escape(path.stem)}.*"))
    else:
        files = [path]
    return sorted((file.name, (stat := file.stat()).st_size, stat.st_mtime_ns) for file in files)
