"""The grey values that an example of training shows: a scan's own, in a window, or drawn by chance."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from MedSAM2Lib.training.augmentation import choose_window
from MedSAM2Lib.training.lesions import paint_lesion
from MedSAM2Lib.training.rendering import render_labels, tissues_of
from MedSAM2Lib.training.volumes import Target, TrainingVolume

__all__ = ["HIDDEN_SHARE", "seen_greys"]

FloatArray = npt.NDArray[np.float32]
BoolArray = npt.NDArray[np.bool_]

HIDDEN_SHARE = 0.2  # of drawn objects that cannot be seen are kept


def seen_greys(
    rng: np.random.Generator,
    volume: TrainingVolume,
    target: Target,
    kind: str,
    where: tuple[int, npt.NDArray[np.int64], slice, slice],
    prompted: tuple[int, BoolArray],
    repainted: float,
) -> tuple[FloatArray, bool]:
    """Grey values (N, h, w), 0..1, of slices, and whether their contrast was drawn by chance.

    where     axis, slices along it, and the window's rows and columns
    prompted  which of the slices that is, and its mask (h, w)
    repainted  chance that a labelled scan is shown in a contrast of its own
    """
    axis, slices, rows, columns = where
    label = None if volume.label is None else np.moveaxis(volume.label, axis, 0)[slices, rows, columns]
    if volume.image is None:
        assert label is not None
        return render_labels(np.ascontiguousarray(label), rng, tissues=volume.tissues), True
    values = np.moveaxis(volume.image, axis, 0)[slices, rows, columns].astype(np.float32)
    number, mask = prompted
    low, high = choose_window(rng, volume, values[number], mask)
    values = np.clip((values - low) / (high - low), 0.0, 1.0)
    if kind == "lesion":
        return paint_lesion(rng, values, target.codes(*where)), True
    if kind == "scan" and label is not None and repainted and rng.random() < repainted:
        return render_labels(tissues_of(values, label, target.cut(*where)), rng), True
    return values, kind == "synthetic"
