"""Segments to files, on the grid of the volume's own file."""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import product
from pathlib import Path

import numpy as np

from MedSAM2Lib.errors import OptionError, OutputError
from MedSAM2Lib.geometry import Geometry
from MedSAM2Lib.volume_io.itk import geometry_of, quiet_itk
from MedSAM2Lib.volume_io.write import Segment, check_segmentation_path, write_segmentation

__all__ = ["Export"]

_ENDINGS = (".seg.nrrd", ".nii.gz")  # of two parts; a name is put before all of it
_LARGEST_SHIFT = 1e-3  # voxels that the corners of a written grid may be off; NIfTI keeps 7 digits


class Export:
    """Writes masks, (k, j, i) bool, that lie on one grid (LPS), and looks at what came out.

    Every file is whole or not there; raises OutputError where one cannot be written, OptionError for an unknown ending.
    """

    def __init__(self, geometry: Geometry) -> None:
        self.geometry = geometry

    def write(self, path: Path, segments: Sequence[Segment], onePerObject: bool = False) -> list[Path]:
        """The files written: one, or one for each segment with its name before the ending."""
        if not segments:
            raise OptionError("There is nothing to export yet; segment an object first.")
        parts = [(_named(path, segment.name), [segment]) for segment in segments] if onePerObject else [(path, list(segments))]
        paths = [file for file, _ in parts]
        if len(set(paths)) < len(paths):
            raise OptionError(
                "Two objects would be written to the same file; give them names that differ in letters or digits."
            )
        for file in paths:
            check_segmentation_path(file)
        for file, content in parts:
            write_segmentation(file, content, self.geometry)
            self._check(file)
        return paths

    def _check(self, path: Path) -> None:
        """Raises OutputError unless the file says that its voxels lie where they are."""
        with quiet_itk() as sitk:
            reader = sitk.ImageFileReader()
            reader.SetFileName(str(path))
            reader.ReadImageInformation()
            written = geometry_of(reader)
        k, j, i = self.geometry.shape
        corners = np.array(list(product((0, i - 1), (0, j - 1), (0, k - 1))), dtype=float)
        off = np.abs(self.geometry.world_to_index(written.index_to_world(corners)) - corners).max()
        if written.shape != self.geometry.shape or off > _LARGEST_SHIFT:
            raise OutputError(
                f"{path} was written, but its grid is not the volume's (up to {off:.3g} voxels off, size {written.shape}); "
                "choose .seg.nrrd or .nrrd, which keep it exactly."
            )


def _named(path: Path, name: str) -> Path:
    """folder/scan.nii.gz and "left kidney" to folder/scan-left_kidney.nii.gz; any file system takes the name."""
    ending = next((one for one in _ENDINGS if path.name.lower().endswith(one)), path.suffix)
    base = path.name[: len(path.name) - len(ending)]
    safe = re.sub(r"[^\w.-]+", "_", name).strip("._") or "object"
    return path.with_name(f"{base}-{safe}{path.name[len(base) :]}")
