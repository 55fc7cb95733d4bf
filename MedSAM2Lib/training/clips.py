"""Clips to train on: one object through consecutive slices, seen through one square crop."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np

from MedSAM2Lib.training.appearance import HIDDEN_SHARE, seen_greys
from MedSAM2Lib.training.augmentation import augment, is_visible
from MedSAM2Lib.training.clip import Clip, ClipBatch, batch_of
from MedSAM2Lib.training.sources import ObjectSource, SourceOptions
from MedSAM2Lib.training.views import WHOLE_SLICE_SHARE, choose_axis, choose_view, resample
from MedSAM2Lib.training.volumes import Target, TrainingVolume

__all__ = ["ClipSource", "make_clip"]

_EVERYTHING = SourceOptions()
_LEAST_PIXELS = 0.0007  # of the crop's area on the prompted slice: 11 pixels at S = 128


class ClipSource(ObjectSource[Clip]):
    """Draws clips. `far` is the chance that a clip leaves out slices after the prompted one, so that it begins where a pass has
    already come a way, and again before its last; `repainted` that a labelled scan is shown in a contrast of its own.
    """

    def __init__(
        self,
        train_dir: Path | None,
        options: SourceOptions = _EVERYTHING,
        *,
        far: float = 0.0,
        repainted: float = 0.0,
    ) -> None:
        super().__init__(train_dir, partial(make_clip, far=far, repainted=repainted), options)

    def sample_batch(
        self, rng: np.random.Generator, batch_size: int, image_size: int, length: int, *, step: int = 0
    ) -> ClipBatch:
        """A function of the source's and these arguments."""
        return batch_of([self.sample(rng, image_size, length, step=step) for _ in range(batch_size)])


def make_clip(
    rng: np.random.Generator,
    volume: TrainingVolume,
    target: Target,
    kind: str,
    image_size: int,
    length: int,
    axis: int | None = None,
    whole_slices: float = WHOLE_SLICE_SHARE,
    far: float = 0.0,
    repainted: float = 0.0,
) -> Clip | None:
    """See the target through a random view; None if no slices fit, or the object is lost at this size or contrast.

    whole_slices  chance that the view shows whole slices instead of a square around the target
    far           chance that slices are left out after the prompted one, and again before the last
    repainted     chance that a labelled scan is shown in a contrast of its own, by its labels and greys
    """
    axis = choose_axis(rng, volume.shape, volume.spacing) if axis is None else axis
    view = choose_view(rng, volume.shape, volume.spacing, target, axis, image_size, length, whole_slices, far)
    if view is None:
        return None
    height, width = (size for a, size in enumerate(volume.shape) if a != axis)
    rows, columns = view.window((height, width))
    mask = target.cut(axis, view.indices[:, 1], rows, columns)
    slices, places = np.unique(view.indices, return_inverse=True)
    places = places.reshape(view.indices.shape)  # of each slice and its neighbours among `slices`
    where = (axis, slices, rows, columns)
    values, drawn = seen_greys(rng, volume, target, kind, where, (int(places[0, 1]), mask[0]), repainted)
    sampled = resample(view, np.concatenate([values, mask], dtype=np.float32), rows, columns)
    images, masks = sampled[: len(slices)], sampled[len(slices) :] >= 0.5
    if masks[0].sum() < max(4.0, _LEAST_PIXELS * image_size**2):
        return None
    # Where contrast is chance, most objects without any are passed over.
    if drawn and not is_visible(images[places[0, 1]], masks[0]) and rng.random() > HIDDEN_SHARE:
        return None
    return Clip(augment(rng, images)[places], masks, view.distances, view.step, kind, f"{volume.name}: {target.name}")
