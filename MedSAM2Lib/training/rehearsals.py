"""Rehearsals: passes of a network as it is through scenes, and what its mask decoder was told of every slice.

In a clip, errors are those of a few slices; in a volume they add up, drafts speak too, and the view follows the mask. What a
decoder must cope with is learned where it happens: it is asked again what it ran into by itself, and shown what would have been
right (DAgger: Ross et al., arXiv 1011.0686).
"""

from __future__ import annotations

import pickle
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from MedSAM2Lib.agreement import box_on, worst_slice
from MedSAM2Lib.atomic import make_folder
from MedSAM2Lib.errors import TrainingError
from MedSAM2Lib.frames import mask_to_frame
from MedSAM2Lib.inference.session import Session
from MedSAM2Lib.network.mask_decoder import DecodedMasks
from MedSAM2Lib.prompts import Box, MaskPrompt
from MedSAM2Lib.training.processes import Processes
from MedSAM2Lib.training.scenes import Scene
from MedSAM2Lib.training.state import tensor_file

__all__ = ["Rehearsed", "RehearsedSlices", "record_rehearsals", "rehearse"]

BoolArray = npt.NDArray[np.bool_]

_NAME = "rehearsed"
_PAINTED_SHARE = 0.15  # of the first prompts are masks, the others boxes,
_JITTER, _JITTER_BOUND = 0.1, 2.0  # drawn more or less loosely: most of a side's deviation, in sides, and its bound in deviations
_CORRECTIONS = (0.5, 0.17, 0.17, 0.16)  # how often there are none, one, two or three,
_PAINTED_CORRECTIONS = 0.5  # of which so many are masks, the others boxes
_KEPT, _KEPT_OF_CORRECTIONS = 48, 24  # slices of a pass, drawn from it, so that long objects do not drown the others
_SUFFIX = ".rehearsals"
_ALONE = Processes()


class SceneDrawer(Protocol):
    """Where scenes come from; `training.scenes.SceneSource.sample_scene` is one."""

    def __call__(self, rng: np.random.Generator, *, step: int) -> Scene:
        """A function of the arguments alone."""


class RehearsedSlices(NamedTuple):
    """B tracked slices: what a decoder was told (half precision), what it made of it, and what would have been right."""

    pixels: Tensor  # (B, 4, S, S), as `PromptedUNet.forward` takes them
    conditioned: Tensor  # (B, C, h, w)
    hint: Tensor  # (B, 1, L, L) logits
    token: Tensor  # (B, C): what the object pointer was made from
    mask: Tensor  # (B, S, S) bool: the object

    def to(self, device: torch.device) -> RehearsedSlices:
        return RehearsedSlices(*(part.to(device) for part in self))


@dataclass
class _Heard:
    """What a mask decoder was told last, and what it answered."""

    told: tuple[Any, ...] = ()
    answered: DecodedMasks | None = None


@contextmanager
def _overhearing(decoder: nn.Module) -> Iterator[_Heard]:
    heard = _Heard()

    def note(module: nn.Module, told: tuple[Any, ...], answered: DecodedMasks) -> None:
        heard.told, heard.answered = told, answered

    handle = decoder.register_forward_hook(note)
    try:
        yield heard
    finally:
        handle.remove()


def rehearse(session: Session, scene: Scene, rng: np.random.Generator) -> RehearsedSlices:
    """Prompts a scene's object, follows it through the scene, and corrects it some times, as a person would; returns what the
    decoder was told of slices of these passes. The session forgets what it had."""
    network = session.model.network
    session.set_volume(scene.volume, window="0:255")
    corrections = int(rng.choice(len(_CORRECTIONS), p=_CORRECTIONS))
    prompt: Box | MaskPrompt | None = _first_prompt(scene, rng)
    found: list[RehearsedSlices] = []
    with _overhearing(network.sam_mask_decoder) as heard:
        for number in range(corrections + 1):
            if prompt is None:  # nothing is wrong any more
                break
            session.add_prompt(_NAME, prompt)
            one_pass: list[RehearsedSlices] = []
            for result in session.propagate([_NAME]):
                view = session.slice_view(_NAME, result.slice_index)
                assert view is not None, "a slice that was answered was seen"
                frame = mask_to_frame(scene.mask[result.slice_index], view, network.config.image_size)
                one_pass.append(_slice_of(heard, frame > 0))
            kept = min(len(one_pass), _KEPT_OF_CORRECTIONS if number else _KEPT)
            found += [one_pass[place] for place in rng.choice(len(one_pass), kept, replace=False)]
            prompt = _correction(scene, session.mask(_NAME), rng)
    session.reset()
    return _together(found)


def _first_prompt(scene: Scene, rng: np.random.Generator) -> Box | MaskPrompt:
    mask = scene.mask[scene.prompted]
    if rng.random() < _PAINTED_SHARE:
        return MaskPrompt(scene.prompted, mask)
    box = box_on(scene.mask, 0, scene.prompted)
    deviation = _JITTER * rng.random() ** 2
    noise = rng.normal(0.0, deviation, 4).clip(-_JITTER_BOUND * deviation, _JITTER_BOUND * deviation)
    sides = np.array([box.x1 - box.x0 + 1, box.y1 - box.y0 + 1] * 2)
    corners = np.array([box.x0, box.y0, box.x1, box.y1]) + noise * sides
    x0, y0, x1, y1 = corners.clip(0, [mask.shape[1] - 1, mask.shape[0] - 1] * 2).tolist()
    return Box(scene.prompted, min(x0, x1), min(y0, y1), max(x0, x1), max(y0, y1))


def _correction(scene: Scene, mask: BoolArray, rng: np.random.Generator) -> Box | MaskPrompt | None:
    """Of the worst slice that has the object."""
    shown: BoolArray = np.asarray(scene.mask.any(axis=(1, 2)))
    index = worst_slice(mask & shown[:, None, None], scene.mask)
    if index is None:
        return None
    return MaskPrompt(index, scene.mask[index]) if rng.random() < _PAINTED_CORRECTIONS else box_on(scene.mask, 0, index)


def _slice_of(heard: _Heard, frame: Tensor) -> RehearsedSlices:
    pixels, conditioned, _, _, hint = heard.told
    assert hint is not None, "a tracked slice follows another one"
    assert heard.answered is not None
    return RehearsedSlices(pixels.half(), conditioned.half(), hint.half(), heard.answered.tokens[:, 0].half(), frame)


def _together(slices: Sequence[RehearsedSlices]) -> RehearsedSlices:
    return RehearsedSlices(*(torch.cat(parts).cpu() for parts in zip(*slices, strict=True)))


def record_rehearsals(
    session: Session,
    draw: SceneDrawer,
    folder: Path,
    files: int,
    *,
    scenes_per_file: int,
    seed: int,
    report: Callable[[str], None] = lambda line: None,
    processes: Processes = _ALONE,
) -> None:
    """Fills a folder with rehearsals, some scenes to a file, each file a function of the seed and its number: those that an
    interrupted run has written are not made again. Of several processes, each makes its share.
    """
    make_folder(folder)
    for number in range(processes.rank, files, processes.count):
        path = folder / f"{number:04d}{_SUFFIX}"
        if path.exists():
            continue
        rng = np.random.default_rng((seed, number))
        slices = _together([rehearse(session, draw(rng, step=number), rng) for _ in range(scenes_per_file)])
        with tensor_file(path) as temporary:
            torch.save(slices._asdict(), temporary)
        report(f"rehearsed {number + 1} of {files} files: {len(slices.mask)} slices")
    processes.wait_for_all()


class Rehearsed:
    """All rehearsals of a folder. They stay on disk until they are looked at. Raises TrainingError for a damaged file."""

    def __init__(self, folder: Path) -> None:
        self._files = [_read(path) for path in sorted(folder.glob(f"*{_SUFFIX}"))]
        if not self._files:
            raise TrainingError(f"Expected rehearsals in {folder}, but there are none; remove the folder, and run again.")
        self._ends = np.cumsum([len(one.mask) for one in self._files])

    def __len__(self) -> int:
        return int(self._ends[-1])

    def batch(self, numbers: npt.NDArray[np.int64]) -> RehearsedSlices:
        """The slices of these numbers, counted from 0 over all files."""
        places = zip(np.searchsorted(self._ends, numbers, side="right").tolist(), numbers.tolist(), strict=True)
        found = [(self._files[file], number - int(self._ends[file])) for file, number in places]  # counted from a file's end
        return RehearsedSlices(*(torch.stack([one[part][place] for one, place in found]) for part in range(len(self._files[0]))))


def _read(path: Path) -> RehearsedSlices:
    try:
        return RehearsedSlices(**torch.load(path, weights_only=True, mmap=True))
    except (RuntimeError, ValueError, TypeError, OSError, EOFError, pickle.UnpicklingError) as error:
        reason = str(error).splitlines()[0]
        raise TrainingError(f"{path} does not hold rehearsals ({reason}); remove the file, and run again.") from error
