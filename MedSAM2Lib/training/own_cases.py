"""Clips from a person's own cases: a few images with their masks, drawn alike."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from MedSAM2Lib.errors import TrainingError
from MedSAM2Lib.intensity import is_ct, resolve_window
from MedSAM2Lib.training.clip import Clip, ClipBatch, batch_of
from MedSAM2Lib.training.clips import ClipSource, make_clip
from MedSAM2Lib.training.views import WHOLE_SLICE_SHARE
from MedSAM2Lib.training.volumes import TrainingVolume, mask_targets
from MedSAM2Lib.volume import Volume

__all__ = ["CaseClips", "own_volume"]

_TRIES = 400  # before giving up


def own_volume(name: str, volume: Volume, masks: Mapping[str, npt.NDArray[np.bool_]]) -> TrainingVolume:
    """A case to draw clips from. Masks (k, j, i) by name, each with a voxel; scattered ones count piece by piece."""
    window = resolve_window("auto", volume)
    i, j, k = volume.geometry.spacing
    targets = {structure: mask_targets(structure, mask) for structure, mask in masks.items()}
    return TrainingVolume(
        name, (k, j, i), _compact(volume.array), None, is_ct(volume), (window.low, window.high), targets=targets
    )


class CaseClips:
    """Draws clips: a structure by its name, a case that has it, one of its pieces there, each with the same chance.

    whole_slices  chance that a clip shows whole slices, as networks without zoom see them, and not a square around the object
    others        clips of something else, such as synthetic patients, and their share 0..1: a network that sees but one
                  structure for hundreds of steps forgets that objects end
    """

    def __init__(
        self,
        volumes: Sequence[TrainingVolume],
        whole_slices: float = WHOLE_SLICE_SHARE,
        others: tuple[ClipSource, float] | None = None,
    ) -> None:
        self._whole_slices, self._others = whole_slices, others
        self._cases: dict[str, list[TrainingVolume]] = {}
        for volume in volumes:
            for structure in volume.targets:
                self._cases.setdefault(structure, []).append(volume)

    @property
    def thickest(self) -> int:
        """Slices of the case that has most."""
        return max(volume.shape[0] for volumes in self._cases.values() for volume in volumes)

    def sample(self, rng: np.random.Generator, image_size: int, length: int) -> Clip:
        """A clip of `length` slices, `image_size` pixels across. Raises TrainingError where none of the cases has so many."""
        names = sorted(self._cases)
        for _ in range(_TRIES):
            name = names[int(rng.integers(len(names)))]
            volume = self._cases[name][int(rng.integers(len(self._cases[name])))]
            target = volume.targets[name][int(rng.integers(len(volume.targets[name])))]
            clip = make_clip(rng, volume, target, "scan", image_size, length, whole_slices=self._whole_slices)
            if clip is not None:
                return clip
        raise TrainingError(
            f"No structure fitted a clip of {length} slices in {_TRIES} tries; the structures are too small for a network that "
            f"sees {image_size} x {image_size} pixels, or the images have too few slices."
        )

    def sample_batch(
        self, rng: np.random.Generator, batch_size: int, image_size: int, length: int, *, step: int = 0
    ) -> ClipBatch:
        """As `loop.BatchSource` asks for it."""
        clips = []
        for _ in range(batch_size):
            if self._others is not None and rng.random() < self._others[1]:
                clips.append(self._others[0].sample(rng, image_size, length, step=step))
            else:
                clips.append(self.sample(rng, image_size, length))
        return batch_of(clips)


def _compact(array: npt.NDArray[Any]) -> npt.NDArray[np.int16] | npt.NDArray[np.uint8] | npt.NDArray[np.float32]:
    """The voxels in at most four bytes."""
    return array if array.dtype in (np.uint8, np.int16) else array.astype(np.float32)
