"""How long each step of segmenting a volume takes, ours, exact and fastest, and Meta's in turns.

All do a step, one after the other, before any does the next, and a ratio is the median over such turns: what else the
machine does then falls on all alike. Same weights, same slices, same prompts, same threads; float32, but bfloat16 where it
is to be fastest.
"""

from __future__ import annotations

import copy
import importlib.util
import itertools
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from statistics import median
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from MedSAM2Lib import metrics
from MedSAM2Lib.benchmark.subject import object_boxes, random_volume
from MedSAM2Lib.checkpoints.loading import LoadedModel
from MedSAM2Lib.errors import OptionError
from MedSAM2Lib.frames import View, normalise, slice_to_frame
from MedSAM2Lib.inference.session import Session, SessionOptions
from MedSAM2Lib.intensity import apply_window
from MedSAM2Lib.network.precision import set_precision
from MedSAM2Lib.prompts import Box, Points

__all__ = [
    "PLAIN", "Comparison", "Plan", "Reference", "Timing", "compare", "quiet_reference", "reference_is_installed", "seconds_of",
]  # fmt: skip

# Whole slices and masks as the network gives them, as the reference does it.
PLAIN = SessionOptions(zoom=None, stop_after=0, fill_hole_cells=0, keep_largest=False)

_Steps = Iterator[object]
_Masks = dict[int, npt.NDArray[np.bool_]]


@dataclass(frozen=True)
class Plan:
    """How much is measured. The defaults take two to three minutes on two cores."""

    slices: int = 12
    encoder_repeats: int = 5
    first_mask_repeats: int = 3
    prompt_repeats: int = 9
    objects: int = 5
    most_object_slices: int = 6  # tracked with all objects, the prompted one not counted

    def __post_init__(self) -> None:
        if self.slices < 3:
            raise OptionError(f"A benchmark needs at least 3 slices, but {self.slices} came.")

    @property
    def object_slices(self) -> int:
        return min(self.most_object_slices, self.slices - 1)


@dataclass(frozen=True)
class Timing:
    """One step, seconds: ours exactly, in float32; at its fastest, in bfloat16; the reference's, in float32. A ratio is how
    many times as long the reference takes, the median over turns."""

    name: str
    ours: float
    fastest: float
    reference: float | None
    ratio: float | None
    fastest_ratio: float | None
    repeats: int


@dataclass(frozen=True)
class Comparison:
    timings: tuple[Timing, ...]
    slices: int
    encoder_runs: int  # of one object, a correction and a second pass in one session; as many as slices
    objects: int
    object_slices: int  # with the prompted one
    object_encoder_runs: int  # of all objects in one session; as many as those slices
    lowest_dice: float | None  # over the slices of the first pass, between our masks and the reference's
    fastest_dice: float  # likewise, between our masks in bfloat16 and in float32

    @property
    def each_slice_encoded_once(self) -> bool:
        return (self.encoder_runs, self.object_encoder_runs) == (self.slices, self.object_slices)


def reference_is_installed() -> bool:
    return importlib.util.find_spec("sam2") is not None


@torch.inference_mode()
def compare(model: LoadedModel, plan: Plan, *, with_reference: bool, note: Callable[[str], None] = lambda _: None) -> Comparison:
    """Runs everything. `note` is told what begins."""
    size = model.network.config.image_size
    volume = random_volume(size, plan.slices)
    ours = _Ours(model, plan)
    ours.open(volume)
    fast = _Ours(_in_bfloat16(model), plan)
    fast.open(volume)
    theirs = Reference(model, ours.frames(), plan) if with_reference else None
    timings: list[Timing] = []

    def measure(name: str, own: Callable[[_Ours], _Steps], other: Callable[[Reference], _Steps]) -> None:
        note(name)
        runs = [own(ours), own(fast)] + ([] if theirs is None else [other(theirs)])
        timings.append(_timing(name, list(_in_turns(runs, model.network.device))))

    with quiet_reference() if with_reference else nullcontext():
        measure("encoder, per slice", lambda own: own.encode(), lambda meta: meta.encode())
        measure("first mask of an open volume", lambda own: own.first_mask(volume), lambda meta: meta.first_mask())
        measure("first pass, per slice", lambda own: own.first_pass(), lambda meta: meta.first_pass())
        measure("a prompt on a slice seen before", lambda own: own.prompt_again(), lambda meta: meta.prompt_again())
        for each in (ours, fast, theirs):
            if each is not None:
                each.correct()
        measure("second pass after a correction, per slice", lambda own: own.second_pass(), lambda meta: meta.second_pass())
        runs = ours.session.embeddings.encoded
        measure(f"{plan.objects} objects, per slice", lambda own: own.objects(volume), lambda meta: meta.objects())
    agreement = None if theirs is None else _lowest_dice(ours.masks, theirs.masks)
    return Comparison(
        timings=tuple(timings),
        slices=plan.slices,
        encoder_runs=runs,
        objects=plan.objects,
        object_slices=plan.object_slices + 1,
        object_encoder_runs=ours.session.embeddings.encoded,
        lowest_dice=agreement,
        fastest_dice=_lowest_dice(fast.masks, ours.masks),
    )


def _in_bfloat16(model: LoadedModel) -> LoadedModel:
    return replace(model, network=set_precision(copy.deepcopy(model.network), "bfloat16"))


def _in_turns(runs: Sequence[_Steps], device: torch.device) -> Iterator[list[float]]:
    """Seconds of each step of every run, which must all be as long; who goes first changes from step to step."""
    for turn in itertools.count():
        order = list(range(len(runs)))[:: -1 if turn % 2 else 1]
        times = {index: seconds_of(runs[index], device) for index in order}
        seconds = [time for index in range(len(runs)) if (time := times[index]) is not None]
        if len(seconds) < len(runs):
            assert not seconds, "all have as many steps"
            return
        yield seconds


def _timing(name: str, turns: Sequence[Sequence[float]]) -> Timing:
    ours, fastest, *others = (median(each) for each in zip(*turns, strict=True))
    if not others:
        return Timing(name, ours, fastest, None, None, None, len(turns))
    ratio, fastest_ratio = (median(turn[2] / turn[which] for turn in turns) for which in (0, 1))
    return Timing(name, ours, fastest, others[0], ratio, fastest_ratio, len(turns))


def seconds_of(steps: _Steps, device: torch.device) -> float | None:
    """Seconds of the next step; None at the end."""
    begun = time.perf_counter()
    try:
        next(steps)
    except StopIteration:
        return None
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - begun


def _lowest_dice(ours: _Masks, theirs: _Masks) -> float:
    return min(metrics.dice(ours[index][None], theirs[index][None]) for index in ours)


def quiet_reference() -> Any:
    from MedSAM2Lib.benchmark.reference import quiet_meta

    return quiet_meta()


_CORRECTED = 1  # the slice that is corrected: beside the prompted one, so that both go through the others in one order


def _click(size: int) -> tuple[float, float]:
    """A correction anywhere: what it says does not change how long it takes."""
    return size * 0.55, size * 0.5


class _Ours:
    """Our session on the plan's steps."""

    def __init__(self, model: LoadedModel, plan: Plan) -> None:
        self._model, self._plan = model, plan
        self._size = model.network.config.image_size
        self._box = object_boxes(self._size, 1)[0]
        self.masks: _Masks = {}

    def open(self, volume: Any) -> None:
        self.session = Session(self._model, PLAIN)
        self.session.set_volume(volume)
        self._volume = volume

    def frames(self) -> Tensor:
        """(T, 3, S, S): the slices as the network sees them."""
        view = View.whole(*self.session.slice_shape)
        shown = [slice_to_frame(apply_window(plane, self.session.window), view, self._size) for plane in self._volume.array]
        return normalise(torch.stack(shown).to(self._model.network.device))

    def encode(self) -> _Steps:
        frame = self.frames()[:1]
        for _ in range(self._plan.encoder_repeats):
            yield self._model.network.encode_image(frame)

    def first_mask(self, volume: Any) -> _Steps:
        """Opening is not timed, here and there."""
        sessions = []
        for _ in range(self._plan.first_mask_repeats):
            self.open(volume)
            sessions.append(self.session)
        return (session.add_prompt("object", self._box) for session in sessions)

    def first_pass(self) -> _Steps:
        for result in self.session.propagate():
            self.masks[result.slice_index] = result.mask
            yield result

    def prompt_again(self) -> _Steps:
        for number in range(self._plan.prompt_repeats):
            yield self.session.add_prompt(f"another {number}", self._box)

    def correct(self) -> None:
        x, y = _click(self._size)
        self.session.add_prompt("object", Points(_CORRECTED, (x,), (y,), (True,)))

    def second_pass(self) -> _Steps:
        yield from self.session.propagate(["object"], redo=True)

    def objects(self, volume: Any) -> _Steps:
        self.open(volume)
        names = [self.session.add_prompt(str(number), box).object for number, box in self._boxes()]
        results = self.session.propagate(last=self._plan.object_slices)
        for _ in range(self._plan.object_slices):
            yield [next(results) for _ in names]

    def _boxes(self) -> Iterator[tuple[int, Box]]:
        yield from enumerate(object_boxes(self._size, self._plan.objects))


class Reference:
    """Meta's predictor on the same steps."""

    def __init__(self, model: LoadedModel, frames: Tensor, plan: Plan) -> None:
        from MedSAM2Lib.benchmark.reference import meta_predictor, meta_state

        self._predictor, self._new_state = meta_predictor(model.network), meta_state
        self._frames, self._plan = frames, plan
        self._size = model.network.config.image_size
        self._box = object_boxes(self._size, 1)[0]
        self.masks: _Masks = {}

    def encode(self) -> _Steps:
        for _ in range(self._plan.encoder_repeats):
            yield self._predictor.forward_image(self._frames[:1])

    def first_mask(self) -> _Steps:
        states = [self._open() for _ in range(self._plan.first_mask_repeats)]
        self._state = states[-1]
        return (self._prompt(state, 0, self._box) for state in states)

    def first_pass(self) -> _Steps:
        for index, _, logits in self._propagate(self._state, self._plan.slices - 1):
            self.masks[index] = (logits[0, 0] > 0).cpu().numpy()
            yield index

    def prompt_again(self) -> _Steps:
        state = self._open()
        for number in range(self._plan.prompt_repeats):
            yield self._prompt(state, number, self._box)

    def correct(self) -> None:
        points, labels = np.array([_click(self._size)], dtype=np.float32), np.array([1], dtype=np.int32)
        self._predictor.add_new_points_or_box(self._state, _CORRECTED, 0, points=points, labels=labels)

    def second_pass(self) -> _Steps:
        frames = self._propagate(self._state, self._plan.slices - 1)
        for _ in range(_CORRECTED):
            next(frames)  # its answer stands
        yield from frames

    def objects(self) -> _Steps:
        """One run each, as the official scripts do it."""
        runs = []
        for box in object_boxes(self._size, self._plan.objects):
            state = self._open()
            self._prompt(state, 0, box)
            runs.append(self._propagate(state, self._plan.object_slices))
        for _ in range(self._plan.object_slices):
            yield [next(run) for run in runs]

    def _open(self) -> Any:
        return self._new_state(self._predictor, self._frames, self._size, self._size)

    def _prompt(self, state: Any, number: int, box: Box) -> object:
        return self._predictor.add_new_points_or_box(state, 0, number, box=np.array([box.x0, box.y0, box.x1, box.y1]))

    def _propagate(self, state: Any, steps: int) -> Iterator[tuple[int, Sequence[int], Tensor]]:
        """Tracked slices only: the first frame, whose answer stands, comes with the first step."""
        frames = self._predictor.propagate_in_video(state, 0, steps)
        next(frames)
        yield from frames
