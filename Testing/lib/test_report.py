from __future__ import annotations

import numpy as np
import pytest

from MedSAM2Lib.geometry import Geometry
from MedSAM2Lib.report import summarise
from MedSAM2Lib.results import SliceConfidence
from MedSAM2Lib.volume_io.segments import Segment

GRID = Geometry((3, 4, 5), (1.0, 2.0, 5.0))


def a_mask() -> np.ndarray:
    mask = np.zeros(GRID.shape, dtype=bool)
    mask[1, 1, 1:4] = mask[2, 1, 1] = True
    return mask


def sure(iou: float) -> SliceConfidence:
    return SliceConfidence(iou, 1.0, False)


def test_an_object_is_summed_up_in_slices_and_millilitres() -> None:
    summary = summarise(Segment("a", a_mask()), 0, {0: sure(0.1), 1: sure(0.8), 2: sure(0.6)}, GRID)
    assert (summary.slices, summary.slice_count, summary.voxels) == ((1, 2), 2, 4)
    assert summary.volume_ml == pytest.approx(0.04)
    assert summary.confidence == pytest.approx(0.7)  # of the slices that have it
    assert summary.per_slice[1] == {"slice": 1, "pixels": 3, "iou": 0.8, "presence": 1.0, "prompted": False}


@pytest.mark.parametrize(("axis", "slices"), [(1, (1, 1)), (2, (1, 3))])
def test_slices_are_counted_along_the_slicing_axis(axis: int, slices: tuple[int, int]) -> None:
    assert summarise(Segment("a", a_mask()), axis, {}, GRID).slices == slices


def test_an_object_that_was_not_found_has_no_slices() -> None:
    summary = summarise(Segment("a", np.zeros(GRID.shape, dtype=bool)), 0, {1: sure(0.9)}, GRID)
    assert (summary.slices, summary.slice_count, summary.confidence, summary.volume_ml) == (None, 0, 0.0, 0.0)
