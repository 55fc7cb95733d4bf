"""A case's image and reference masks, checked against each other."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from MedSAM2Lib.errors import VolumeError
from MedSAM2Lib.evaluation.manifest import Case, Structure
from MedSAM2Lib.geometry import Geometry
from MedSAM2Lib.volume import Labelmap, Volume
from MedSAM2Lib.volume_io.read import read_labels, read_volume

__all__ = ["SAME_PLACE", "LoadedCase", "Target", "load_case"]

_LOGGER = logging.getLogger(__name__)
SAME_PLACE = 1e-2  # voxels that two grids may lie apart: headers round


@dataclass(frozen=True)
class Target:
    """A structure that occurs, with its reference mask, (k, j, i) bool."""

    structure: Structure
    reference: npt.NDArray[np.bool_] = field(repr=False)


@dataclass(frozen=True)
class LoadedCase:
    case: Case
    volume: Volume
    targets: tuple[Target, ...]
    problems: tuple[str, ...]  # what kept a structure from being scored, one sentence each


def load_case(case: Case) -> LoadedCase:
    """Reads both files. A structure that does not occur is a problem of its own, the others are scored.

    Raises VolumeError where a file cannot be read, or the two are not on one grid.
    """
    volume, labels = read_volume(case.image), read_labels(case.label)
    _check_same_grid(case, volume.geometry, labels.geometry)
    values = set(labels.values())
    unnamed = sorted(values - set(case.label_names)) if case.label_names else []
    if unnamed:
        _LOGGER.warning("case %s: the label map holds values that the manifest does not name: %s", case.id, unnamed)
    targets, problems = [], []
    for structure in case.structures:
        try:
            targets.append(Target(structure, _reference(case, structure, labels, values)))
        except VolumeError as error:
            problems.append(str(error))
    return LoadedCase(case, volume, tuple(targets), tuple(problems))


def _reference(case: Case, structure: Structure, labels: Labelmap, values: set[int]) -> npt.NDArray[np.bool_]:
    where = f"Case {case.id!r}, structure {structure.name!r}"
    missing = [value for value in structure.label_values if value not in values]
    if len(missing) == len(structure.label_values):
        raise VolumeError(
            f"{where} is empty: label {', '.join(map(str, missing))} has no voxel in {case.label.name}, which holds "
            f"{sorted(values) or 'none'}; correct its label_values, or leave it out."
        )
    if missing:
        raise VolumeError(
            f"{where}: unknown label value {missing[0]}; {case.label.name} holds {sorted(values)}; correct its label_values."
        )
    reference: npt.NDArray[np.bool_] = np.isin(labels.array, structure.label_values)
    return reference


def _check_same_grid(case: Case, image: Geometry, label: Geometry) -> None:
    what = f"Case {case.id!r}: image and label map must be on one grid, but "
    hint = "; resample the label map to the image."
    if image.shape != label.shape:
        raise VolumeError(f"{what}the image has {image.shape} voxels (k, j, i), the label map {label.shape}{hint}")
    k, j, i = image.shape
    corners = np.array([(x, y, z) for x in (0, i - 1) for y in (0, j - 1) for z in (0, k - 1)])
    apart = image.world_to_index(label.index_to_world(corners)) - corners
    # On an axis of one voxel the corners say nothing of the spacing.
    spacing_differs = not np.allclose(image.spacing, label.spacing, rtol=1e-3)
    if np.abs(apart).max() > SAME_PLACE or spacing_differs:
        raise VolumeError(
            f"{what}they lie up to {np.abs(apart).max():.3g} voxels apart (spacing {image.spacing} and {label.spacing} mm, "
            f"origin {image.origin} and {label.origin} mm, LPS){hint}"
        )
