"""What training draws examples of: one object in one volume, from one of five kinds of source.

Labelled scans, label maps without an image (rendered in a fresh contrast), pseudo-targets grown in any scan, lesions drawn
into any scan, and synthetic volumes. Whatever is drawn depends only on the random generator and the step that are handed in;
the caches hold nothing that could not be computed again, so a run can be resumed anywhere.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, Protocol, TypeVar

import numpy as np
import numpy.typing as npt

from MedSAM2Lib.errors import TrainingError
from MedSAM2Lib.training.lesions import draw_lesion
from MedSAM2Lib.training.regions import grow_region
from MedSAM2Lib.training.synthetic import DEFAULT_SHAPE, synthetic_patient
from MedSAM2Lib.training.views import choose_axis
from MedSAM2Lib.training.volumes import ManifestEntry, Target, TrainingVolume, label_targets, load_volume, read_manifest

__all__ = ["ALWAYS_LEFT_OUT", "ObjectSource", "SeeObject", "SourceOptions"]

Example = TypeVar("Example")
_Drawn = TypeVar("_Drawn", covariant=True)

# Probably the very person of an evaluation case, in other sequences (shared/train/README.md).
ALWAYS_LEFT_OUT = ("mr_cord_sct_t1w", "mr_cord_sct_mt1")

# How often scans of a source are drawn, so that the 60 heads of OpenKBP do not drown the others.
_GROUP_WEIGHTS = {
    "OpenKBP": 0.27,
    "TotalSegmentator": 0.25,
    "open_ms_data cross-sectional": 0.15,
    "open_ms_data longitudinal": 0.06,
    "spinal cord": 0.10,
    "various": 0.17,
}
_OTHER_GROUP_WEIGHT = 0.15
_GRADE_WEIGHTS = {"A": 1.0, "B": 1.0, "C": 0.6}
_UNNAMED_WEIGHT = 0.25  # of what a source gives a code but no name: nobody will draw a box around it
_LESION_WEIGHT = 2.0  # many pieces under one name deserve more turns than one outline

_SUPERVOXEL_SHARE = 0.07  # of what is not synthetic goes to pseudo-targets,
_LESION_SHARE = 0.12  # to lesions drawn into scans, and of the rest
_LABEL_MAP_SHARE = 0.38  # goes to rendered label maps, the others to labelled scans

_FILLED_SHARE = 0.4  # of synthetic targets that enclose others include them: a vessel with its lumen
_LONG_ENOUGH = 12  # slices; shorter synthetic objects get fewer turns, because they end at once
_TRIES_PER_KIND = 8  # before another kind is drawn
_TRIES = 400  # before giving up

# Synthetic volumes: `step % streams` chooses a pool, so that workers of one DataLoader (1, 2, 4, 8 or 16 of them) do not
# all build all volumes; at each of a pool's steps one of its volumes is replaced.
_STREAMS = 16
_POOL_SIZE = 6
# A synthetic volume serves this many rounds of its pool; with one new volume a step, drawing them cost more than training.
_TURNS_KEPT = 48
_SYNTHETIC_KEY = 77  # keeps the seeds of volumes apart from those of steps
_SYNTHETIC_SPACING = (2.0, 1.0, 1.0)  # the middle of what synthetic_patient draws


class SeeObject(Protocol[_Drawn]):
    """How a target in a volume becomes an example."""

    def __call__(
        self,
        rng: np.random.Generator,
        volume: TrainingVolume,
        target: Target,
        kind: str,
        side: int,
        length: int,
        axis: int | None = None,
    ) -> _Drawn | None:
        """An example `side` pixels across, of `length` slices along an axis (None: any); None if the object does not fit."""


class _DrawExample(Protocol[_Drawn]):
    def __call__(self, rng: np.random.Generator, side: int, length: int, step: int) -> _Drawn | None:
        """An example, or None if what was drawn does not fit."""


@dataclass(frozen=True)
class _Structure:
    """A structure of one source group, and its label values in each volume that has it."""

    name: str
    values: dict[str, tuple[int, ...]]
    grade_weight: float

    @property
    def weight(self) -> float:
        lesion = "lesion" in self.name or "tumour" in self.name
        return self.grade_weight * math.sqrt(len(self.values)) * (_LESION_WEIGHT if lesion else 1.0)


@dataclass(frozen=True)
class SourceOptions:
    """What examples are drawn from."""

    synthetic_share: float = 0.35  # of the examples; a kind that the folder lacks gives its share to the others
    held_out: Collection[str] = ()  # volumes, or whole source groups, to leave out
    only: Collection[str] = ()  # of the kinds "scan", "label map", "supervoxel", "lesion", "synthetic"; none: all
    seed: int = 0  # of the synthetic volumes
    synthetic_shape: tuple[int, int, int] = DEFAULT_SHAPE


class ObjectSource(Generic[Example]):
    """Draws examples from a folder of training volumes (shared/train/README.md; None: none) and from synthetic volumes.
    `see` makes an example of an object that was drawn.

    Volumes are decoded when first drawn and kept; `preload()` decodes all of them (0.5 GB), so that forked workers
    share them.
    """

    def __init__(self, train_dir: Path | None, see: SeeObject[Example], options: SourceOptions) -> None:
        entries = [] if train_dir is None else read_manifest(Path(train_dir))
        known = {entry.name for entry in entries} | {entry.group for entry in entries}
        if unknown := sorted(set(options.held_out) - known):
            raise TrainingError(
                f"To hold out {unknown}, the manifest must list them as volumes or source groups; check the spelling."
            )
        left_out = {*options.held_out, *ALWAYS_LEFT_OUT}
        self._entries = {e.name: e for e in entries if e.name not in left_out and e.group not in left_out}
        self._volumes: dict[str, TrainingVolume] = {}
        self._seed, self._synthetic_shape = options.seed, options.synthetic_shape
        self._see = see
        self._synthetic: OrderedDict[tuple[int, int, int], TrainingVolume] = OrderedDict()
        self._structures = _structures_by_group(e for e in self._entries.values() if e.has_image and e.has_label)
        self._label_maps = sorted(e.name for e in self._entries.values() if not e.has_image and e.structures)
        self._scans = _names_by_group(e for e in self._entries.values() if e.has_image)
        self._kinds, self._chances = self._choose_kinds(options.synthetic_share, options.only)

    @property
    def volume_names(self) -> tuple[str, ...]:
        """The volumes of the folder that examples may come from."""
        return tuple(self._entries)

    def preload(self) -> None:
        """Decode every volume now."""
        for name in self._entries:
            self._volume(name)

    def sample(self, rng: np.random.Generator, side: int, length: int, *, step: int = 0) -> Example:
        """An example of `length` slices, `side` pixels across. `step` chooses the pool of synthetic volumes."""
        if side < 16 or length < 1:
            raise TrainingError(
                f"An example has at least 1 slice of 16 x 16 pixels, but {length} of {side} x {side} were asked for."
            )
        for _ in range(_TRIES // _TRIES_PER_KIND):
            draw = self._kinds[int(rng.choice(len(self._kinds), p=self._chances))]
            for _ in range(_TRIES_PER_KIND):
                example = draw(rng, side, length, step)
                if example is not None:
                    return example
        raise TrainingError(
            f"No object fitted an example of {length} slices in {_TRIES} tries; ask for fewer slices, or add volumes with more "
            "slices and larger objects."
        )

    def _choose_kinds(
        self, synthetic_share: float, only: Collection[str]
    ) -> tuple[list[_DrawExample[Example]], npt.NDArray[np.float64]]:
        """How to draw each kind that there is, and the chance of each."""
        if not 0.0 <= synthetic_share <= 1.0:
            raise TrainingError(f"The share of synthetic examples is a number from 0 to 1, but {synthetic_share} came.")
        real = 1.0 - synthetic_share
        labelled = real * (1.0 - _SUPERVOXEL_SHARE - _LESION_SHARE)
        kinds: dict[str, tuple[_DrawExample[Example], float, bool]] = {
            "scan": (self._draw_scan, labelled * (1.0 - _LABEL_MAP_SHARE), bool(self._structures)),
            "label map": (self._draw_label_map, labelled * _LABEL_MAP_SHARE, bool(self._label_maps)),
            "supervoxel": (self._draw_supervoxel, real * _SUPERVOXEL_SHARE, bool(self._scans)),
            "lesion": (self._draw_lesion, real * _LESION_SHARE, bool(self._scans)),
            "synthetic": (self._draw_synthetic, synthetic_share, True),
        }
        if unknown := sorted(set(only) - set(kinds)):
            raise TrainingError(f"The kinds of clips are {', '.join(kinds)}, but {unknown} came.")
        usable = [(draw, share) for name, (draw, share, exists) in kinds.items() if exists and (not only or name in only)]
        shares = np.array([share for _, share in usable])
        if not shares.sum() > 0:
            raise TrainingError(
                f"Nothing is left to draw examples from: {len(self._entries)} volumes are not held out, the synthetic share is "
                f"{synthetic_share}, the kinds are {sorted(only) or 'all'}; hold out less or raise the share."
            )
        return [draw for draw, _ in usable], shares / shares.sum()

    # The five kinds.

    def _draw_scan(self, rng: np.random.Generator, side: int, length: int, step: int) -> Example | None:
        groups = sorted(self._structures)
        structures = self._structures[
            groups[_weighted(rng, [_GROUP_WEIGHTS.get(group, _OTHER_GROUP_WEIGHT) for group in groups])]
        ]
        structure = structures[_weighted(rng, [structure.weight for structure in structures])]
        name = sorted(structure.values)[int(rng.integers(len(structure.values)))]
        volume = self._volume(name)
        target = _pick_target(rng, volume, structure.name, structure.values[name], split=True)
        return None if target is None else self._see(rng, volume, target, "scan", side, length)

    def _draw_label_map(self, rng: np.random.Generator, side: int, length: int, step: int) -> Example | None:
        name = self._label_maps[int(rng.integers(len(self._label_maps)))]
        structures = self._entries[name].structures
        weights = [_UNNAMED_WEIGHT if one.startswith("code ") else 1.0 for one, _ in structures]
        structure, values = structures[_weighted(rng, weights)]
        volume = self._volume(name)
        target = _pick_target(rng, volume, structure, values, split=True)
        return None if target is None else self._see(rng, volume, target, "label map", side, length)

    def _draw_synthetic(self, rng: np.random.Generator, side: int, length: int, step: int) -> Example | None:
        volume = self._synthetic_volume(step, int(rng.integers(_POOL_SIZE)))
        assert volume.label is not None
        extents = [_slices_of(volume, label) for label in range(1, int(volume.label.max()) + 1)]
        if not any(extents):
            return None
        value = 1 + _weighted(rng, [min(extent, _LONG_ENOUGH) for extent in extents])
        inner = volume.nested.get(value, ())
        filled = bool(inner) and rng.random() < _FILLED_SHARE
        values = (value, *inner) if filled else (value,)
        target = _pick_target(rng, volume, f"{value}{' filled' * filled}", values, split=False)
        return None if target is None else self._see(rng, volume, target, "synthetic", side, length)

    def _draw_supervoxel(self, rng: np.random.Generator, side: int, length: int, step: int) -> Example | None:
        volume = self._any_scan(rng)
        axis = choose_axis(rng, volume.shape, volume.spacing)
        target = grow_region(rng, volume, axis, length)
        return None if target is None else self._see(rng, volume, target, "supervoxel", side, length, axis)

    def _draw_lesion(self, rng: np.random.Generator, side: int, length: int, step: int) -> Example | None:
        volume = self._any_scan(rng)
        target = draw_lesion(rng, volume)
        return None if target is None else self._see(rng, volume, target, "lesion", side, length)

    def _any_scan(self, rng: np.random.Generator) -> TrainingVolume:
        groups = sorted(self._scans)
        names = self._scans[groups[int(rng.integers(len(groups)))]]
        return self._volume(names[int(rng.integers(len(names)))])

    # Caches.

    def _volume(self, name: str) -> TrainingVolume:
        if name not in self._volumes:
            self._volumes[name] = load_volume(self._entries[name])
        return self._volumes[name]

    def _synthetic_volume(self, step: int, slot: int) -> TrainingVolume:
        """A slot of the pool that `step` draws from; a function of (seed, step, slot) alone."""
        stream, turn = step % _STREAMS, step // _STREAMS
        key = (stream, slot, (turn + slot * _TURNS_KEPT // _POOL_SIZE) // _TURNS_KEPT)
        if key not in self._synthetic:
            rng = np.random.default_rng((self._seed, _SYNTHETIC_KEY, *key))
            patient = synthetic_patient(rng, self._synthetic_shape)
            image = np.rint(patient.image * 255).astype(np.uint8)
            name = "synthetic " + ".".join(map(str, key))
            self._synthetic[key] = TrainingVolume(name, _SYNTHETIC_SPACING, image, patient.label, nested=patient.nested)
            while len(self._synthetic) > _STREAMS * _POOL_SIZE:
                self._synthetic.popitem(last=False)
        self._synthetic.move_to_end(key)
        return self._synthetic[key]


def _weighted(rng: np.random.Generator, weights: Sequence[float]) -> int:
    """A random index, in proportion to the weights."""
    chances = np.asarray(weights, np.float64)
    return int(rng.choice(len(chances), p=chances / chances.sum()))


def _structures_by_group(entries: Iterable[ManifestEntry]) -> dict[str, list[_Structure]]:
    """source group -> its structures, with the best grade of each."""
    found: dict[str, dict[str, _Structure]] = {}
    for entry in entries:
        grade_weight = _GRADE_WEIGHTS.get(entry.grade, min(_GRADE_WEIGHTS.values()))
        for name, values in entry.structures:
            known = found.setdefault(entry.group, {}).get(name, _Structure(name, {}, 0.0))
            values_by_volume = {**known.values, entry.name: values}
            found[entry.group][name] = _Structure(name, values_by_volume, max(grade_weight, known.grade_weight))
    return {group: [structures[name] for name in sorted(structures)] for group, structures in found.items()}


def _names_by_group(entries: Iterable[ManifestEntry]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for entry in entries:
        found.setdefault(entry.group, []).append(entry.name)
    return {group: sorted(names) for group, names in found.items()}


def _slices_of(volume: TrainingVolume, label: int) -> int:
    """Over how many slices along k a label extends."""
    box = volume.label_box([label])
    return box[0].stop - box[0].start if box else 0


def _pick_target(
    rng: np.random.Generator, volume: TrainingVolume, name: str, values: Sequence[int], *, split: bool
) -> Target | None:
    """The structure, or one of its pieces; None if the volume does not have it after all."""
    if name not in volume.targets:
        volume.targets[name] = label_targets(volume, name, values, split=split)
    targets = volume.targets[name]
    return targets[int(rng.integers(len(targets)))] if targets else None
