"""Where the run-time files are: `Resources/`, installed inside the package, beside it, or one folder up in a source tree."""

from __future__ import annotations

from pathlib import Path

from MedSAM2Lib.errors import MedSAM2Error

__all__ = ["resource_path"]


def resource_path(*parts: str) -> Path:
    """The path of a run-time file, for example ("Models", "nano.pt"). Raises MedSAM2Error where it is not installed."""
    package = Path(__file__).resolve().parent
    candidates = [package / "Resources", package.parent / "Resources"]  # a wheel; Slicer's module folder or a source tree
    for folder in candidates:
        path = folder.joinpath(*parts)
        if path.exists():
            return path
    raise MedSAM2Error(f"The installation lacks Resources/{'/'.join(parts)}; install MedSAM2 again.")
