"""How well a mask agrees with a reference: overlap, distance of the surfaces, volume.

Masks are (k, j, i) bool, spacing is (i, j, k) mm as in Geometry.

Surface voxels are the mask's voxels of which at least one of the six face neighbours is outside the mask; beyond
the array's border everything is outside, and an axis of length 1 (a 2D image) has no neighbours. Distances are
Euclidean, mm, from the centre of a surface voxel of one mask to the nearest of the other. They count voxels, not
surface area: on coarse anisotropic grids the numbers differ a little from area-weighted implementations.

Empty masks: both empty agree perfectly (Dice, IoU, surface Dice 1, HD95 0); one empty does not agree at all (0, 0, 0,
HD95 infinite).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from MedSAM2Lib.errors import VolumeError
from MedSAM2Lib.masks import bounding_box
from MedSAM2Lib.simpleitk import import_simpleitk

__all__ = ["Scores", "dice", "hd95_mm", "iou", "relative_volume_error", "score", "surface_dice", "volume_error_ml"]

_Mask = npt.NDArray[np.bool_]
_Spacing = tuple[float, float, float]


@dataclass(frozen=True)
class Scores:
    """All measures of one mask against its reference.

    dice, iou, surface_dice   0..1
    hd95_mm                   mm, infinite when one mask is empty
    volume_error_ml           ml, positive when the mask is too large
    relative_volume_error     share of the reference's volume, positive when too large
    """

    dice: float
    iou: float
    hd95_mm: float
    surface_dice: float
    volume_error_ml: float
    relative_volume_error: float


def score(mask: _Mask, reference: _Mask, spacing: _Spacing, tolerance_mm: float = 2.0) -> Scores:
    """Every measure at once; the surface distances, which are most of the work, are computed once."""
    _check_pair(mask, reference)
    distances = _surface_distances(mask, reference, spacing)
    return Scores(
        dice=dice(mask, reference),
        iou=iou(mask, reference),
        hd95_mm=distances.hd95_mm(),
        surface_dice=distances.share_within(tolerance_mm),
        volume_error_ml=volume_error_ml(mask, reference, spacing),
        relative_volume_error=relative_volume_error(mask, reference),
    )


def dice(mask: _Mask, reference: _Mask) -> float:
    """2 |A and B| / (|A| + |B|)."""
    _check_pair(mask, reference)
    total = _count(mask) + _count(reference)
    return 2 * _count(mask & reference) / total if total else 1.0


def iou(mask: _Mask, reference: _Mask) -> float:
    """|A and B| / |A or B|, also called Jaccard index."""
    _check_pair(mask, reference)
    union = _count(mask | reference)
    return _count(mask & reference) / union if union else 1.0


def hd95_mm(mask: _Mask, reference: _Mask, spacing: _Spacing) -> float:
    """The larger of the two directed 95th percentiles of the surface distances, mm."""
    _check_pair(mask, reference)
    return _surface_distances(mask, reference, spacing).hd95_mm()


def surface_dice(mask: _Mask, reference: _Mask, spacing: _Spacing, tolerance_mm: float = 2.0) -> float:
    """The share of the surface voxels of both masks that lie within `tolerance_mm` of the other surface."""
    _check_pair(mask, reference)
    return _surface_distances(mask, reference, spacing).share_within(tolerance_mm)


def volume_error_ml(mask: _Mask, reference: _Mask, spacing: _Spacing) -> float:
    """Volume of the mask less that of the reference, ml."""
    _check_pair(mask, reference)
    return (_count(mask) - _count(reference)) * math.prod(spacing) / 1000.0


def relative_volume_error(mask: _Mask, reference: _Mask) -> float:
    """The same as a share of the reference; infinite when only the reference is empty, 0 when both are."""
    _check_pair(mask, reference)
    difference = _count(mask) - _count(reference)
    if not _count(reference):
        return math.inf if difference else 0.0
    return difference / _count(reference)


@dataclass(frozen=True)
class _SurfaceDistances:
    """mm from each surface voxel of the mask to the reference's surface, and the other way; both (n,)."""

    to_reference: npt.NDArray[np.float64]
    to_mask: npt.NDArray[np.float64]

    def hd95_mm(self) -> float:
        sizes = len(self.to_reference), len(self.to_mask)
        if 0 in sizes:
            return 0.0 if sizes == (0, 0) else math.inf
        return float(max(np.percentile(self.to_reference, 95), np.percentile(self.to_mask, 95)))

    def share_within(self, tolerance_mm: float) -> float:
        total = len(self.to_reference) + len(self.to_mask)
        if not total:
            return 1.0
        return (_count(self.to_reference <= tolerance_mm) + _count(self.to_mask <= tolerance_mm)) / total


def _surface_distances(mask: _Mask, reference: _Mask, spacing: _Spacing) -> _SurfaceDistances:
    # The surface voxels nearest to each other lie in the box around both masks: the rest need not be searched.
    box = bounding_box(mask | reference) or ()
    surfaces = [_surface(one[box], mask.shape) for one in (mask, reference)]
    if not (surfaces[0].any() and surfaces[1].any()):
        far = [np.full(_count(surface), np.inf) for surface in surfaces]
        return _SurfaceDistances(far[0], far[1])
    from_mask, from_reference = (_distance_map(surface, spacing) for surface in surfaces)
    return _SurfaceDistances(to_reference=from_reference[surfaces[0]], to_mask=from_mask[surfaces[1]])


def _surface(mask: _Mask, full_shape: tuple[int, ...]) -> _Mask:
    """`full_shape` is that of the uncropped volume: its axes of length 1 have no neighbours."""
    inside = mask.copy()
    for axis, length in enumerate(full_shape):
        if length == 1:
            continue
        moved, kept = np.moveaxis(mask, axis, 0), np.moveaxis(inside, axis, 0)
        kept[1:] &= moved[:-1]
        kept[:-1] &= moved[1:]
        kept[0] = False
        kept[-1] = False
    return mask & ~inside


def _distance_map(surface: _Mask, spacing: _Spacing) -> npt.NDArray[np.float64]:
    """mm from each voxel to the nearest one of `surface`."""
    sitk = import_simpleitk()
    image = sitk.GetImageFromArray(surface.astype(np.uint8))
    image.SetSpacing(spacing)
    distance = sitk.SignedMaurerDistanceMap(image, insideIsPositive=False, squaredDistance=False, useImageSpacing=True)
    # Negative inside: there the filter measures to the rim of the set, but every voxel of it is surface.
    outside: npt.NDArray[np.float64] = np.maximum(sitk.GetArrayFromImage(distance).astype(np.float64), 0.0)
    return outside


def _count(mask: npt.NDArray[np.bool_]) -> int:
    return int(np.count_nonzero(mask))


def _check_pair(mask: _Mask, reference: _Mask) -> None:
    if mask.shape != reference.shape or mask.ndim != 3 or not (mask.dtype == reference.dtype == np.bool_):
        raise VolumeError(
            f"Expected two bool masks of one (k, j, i) shape, but {mask.dtype} {mask.shape} and "
            f"{reference.dtype} {reference.shape} came; resample one to the other's grid."
        )
