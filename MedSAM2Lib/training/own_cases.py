"""Clips and cubes from a person's own cases: a few images with their masks, drawn alike."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, Generic, TypeVar

import numpy as np
import numpy.typing as npt

from MedSAM2Lib.errors import TrainingError
from MedSAM2Lib.intensity import is_ct, resolve_window
from MedSAM2Lib.training.clip import Clip, ClipBatch, batch_of
from MedSAM2Lib.training.clips import ClipSource, make_clip
from MedSAM2Lib.training.cubes import PSEUDO_TARGET_SLICES, Cube, CubeBatch, CubeSource, make_cube
from MedSAM2Lib.training.sources import ObjectSource, SeeObject
from MedSAM2Lib.training.views import WHOLE_SLICE_SHARE
from MedSAM2Lib.training.volumes import TrainingVolume, mask_targets
from MedSAM2Lib.volume import Volume

__all__ = ["CaseClips", "CaseCubes", "own_volume"]

Example = TypeVar("Example")

_TRIES = 400  # before giving up


def own_volume(name: str, volume: Volume, masks: Mapping[str, npt.NDArray[np.bool_]]) -> TrainingVolume:
    """A case to draw examples from. Masks (k, j, i) by name, each with a voxel; scattered ones count piece by piece."""
    window = resolve_window("auto", volume)
    i, j, k = volume.geometry.spacing
    targets = {structure: mask_targets(structure, mask) for structure, mask in masks.items()}
    return TrainingVolume(
        name, (k, j, i), _compact(volume.array), None, is_ct(volume), (window.low, window.high), targets=targets
    )


class CaseObjects(Generic[Example]):
    """Draws examples: a structure by its name, a case that has it, one of its pieces there, each with the same chance.

    see     makes an example of it
    others  examples of something else, such as synthetic patients, and their share 0..1: a network that sees but one
            structure for hundreds of steps forgets that objects end
    """

    def __init__(
        self,
        volumes: Sequence[TrainingVolume],
        see: SeeObject[Example],
        others: tuple[ObjectSource[Example], float] | None = None,
    ) -> None:
        self._see, self._others = see, others
        self._cases: dict[str, list[TrainingVolume]] = {}
        for volume in volumes:
            for structure in volume.targets:
                self._cases.setdefault(structure, []).append(volume)

    @property
    def thickest(self) -> int:
        """Slices of the case that has most."""
        return max(volume.shape[0] for volumes in self._cases.values() for volume in volumes)

    def sample(self, rng: np.random.Generator, side: int, length: int, *, step: int = 0) -> Example:
        """An example of `length` slices, `side` pixels across. Raises TrainingError where none of the cases has one."""
        if self._others is not None and rng.random() < self._others[1]:
            return self._others[0].sample(rng, side, length, step=step)
        names = sorted(self._cases)
        for _ in range(_TRIES):
            name = names[int(rng.integers(len(names)))]
            volume = self._cases[name][int(rng.integers(len(self._cases[name])))]
            target = volume.targets[name][int(rng.integers(len(volume.targets[name])))]
            example = self._see(rng, volume, target, "scan", side, length)
            if example is not None:
                return example
        raise TrainingError(
            f"No structure fitted an example of {length} slices in {_TRIES} tries; the structures are too small for a network "
            f"that sees {side} x {side} pixels, or the images have too few slices."
        )


class CaseClips(CaseObjects[Clip]):
    """Draws clips; `whole_slices` is the chance that one shows whole slices, as networks without zoom see them, and not a
    square around the object."""

    def __init__(
        self,
        volumes: Sequence[TrainingVolume],
        whole_slices: float = WHOLE_SLICE_SHARE,
        others: tuple[ClipSource, float] | None = None,
    ) -> None:
        super().__init__(volumes, partial(make_clip, whole_slices=whole_slices), others)

    def sample_batch(
        self, rng: np.random.Generator, batch_size: int, image_size: int, length: int, *, step: int = 0
    ) -> ClipBatch:
        """As `clip_training.BatchSource` asks for it."""
        return batch_of([self.sample(rng, image_size, length, step=step) for _ in range(batch_size)])


class CaseCubes(CaseObjects[Cube]):
    """Draws cubes."""

    def __init__(self, volumes: Sequence[TrainingVolume], others: tuple[CubeSource, float] | None = None) -> None:
        super().__init__(volumes, make_cube, others)

    def sample_batch(self, rng: np.random.Generator, batch_size: int, side: int, *, step: int = 0) -> CubeBatch:
        """As `draft_training.CubeBatches` asks for it."""
        return CubeBatch.of([self.sample(rng, side, PSEUDO_TARGET_SLICES, step=step) for _ in range(batch_size)])


def _compact(array: npt.NDArray[Any]) -> npt.NDArray[np.int16] | npt.NDArray[np.uint8] | npt.NDArray[np.float32]:
    """The voxels in at most four bytes."""
    return array if array.dtype in (np.uint8, np.int16) else array.astype(np.float32)
