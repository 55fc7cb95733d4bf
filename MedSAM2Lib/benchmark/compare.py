"""How long each step of segmenting a volume takes, ours, exact and fastest, and the references' in turns.

All do a step, one after the other, before any does the next, and a ratio is the median over such turns: what else the
machine does then falls on all alike. Same weights, same slices, same prompts, same threads; float32, but bfloat16 where it
is to be fastest.
"""

from __future__ import annotations

import copy
import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import median

import torch
from torch import Tensor

from MedSAM2Lib import metrics
from MedSAM2Lib.benchmark.plan import CORRECTED, Masks, Plan, Steps, click, seconds_of
from MedSAM2Lib.benchmark.reference import NewReference, Reference
from MedSAM2Lib.benchmark.subject import object_boxes, random_volume
from MedSAM2Lib.checkpoints.loading import LoadedModel
from MedSAM2Lib.frames import View, normalise, slice_to_frame
from MedSAM2Lib.inference.session import Session, SessionOptions
from MedSAM2Lib.intensity import apply_window
from MedSAM2Lib.network.precision import set_precision
from MedSAM2Lib.prompts import Points
from MedSAM2Lib.volume import Volume

__all__ = ["PLAIN", "Beside", "Comparison", "Timing", "compare", "network_frames"]

# Whole slices and masks as the network gives them, as the references do it.
PLAIN = SessionOptions(zoom=None, stop_after=0, fill_hole_cells=0, keep_largest=False)


@dataclass(frozen=True)
class Beside:
    """A reference on one step, in float32: seconds, and how many times as long as ours, exact and at its fastest, it takes,
    the medians over turns."""

    seconds: float
    ratio: float
    fastest_ratio: float


@dataclass(frozen=True)
class Timing:
    """One step, seconds: ours exactly, in float32; at its fastest, in bfloat16; and the references, by name."""

    name: str
    ours: float
    fastest: float
    beside: dict[str, Beside]
    repeats: int


@dataclass(frozen=True)
class Comparison:
    timings: tuple[Timing, ...]
    slices: int
    encoder_runs: int  # of one object, a correction and a second pass in one session; as many as slices
    objects: int
    object_slices: int  # with the prompted one
    object_encoder_runs: int  # of all objects in one session; as many as those slices
    lowest_dice: dict[str, float]  # by reference, over the slices of the first pass, between our masks and its own
    fastest_dice: float  # likewise, between our masks in bfloat16 and in float32

    @property
    def each_slice_encoded_once(self) -> bool:
        return (self.encoder_runs, self.object_encoder_runs) == (self.slices, self.object_slices)


@torch.inference_mode()
def compare(
    model: LoadedModel, plan: Plan, references: Mapping[str, NewReference], note: Callable[[str], None] = lambda _: None
) -> Comparison:
    """Runs everything. `note` is told what begins."""
    volume = random_volume(model.network.config.image_size, plan.slices)
    ours = _Ours(model, plan, volume)
    fast = _Ours(_in_bfloat16(model), plan, volume)
    frames = network_frames(ours.session, volume)
    theirs = {name: new(model.network, frames, plan) for name, new in references.items()}
    every: list[_Ours | Reference] = [ours, fast, *theirs.values()]
    timings: list[Timing] = []

    def measure(name: str, step: Callable[[_Ours | Reference], Steps]) -> None:
        note(name)
        turns = list(_in_turns([step(each) for each in every], model.network.device))
        timings.append(_timing(name, turns, list(theirs)))

    measure("encoder, per slice", lambda each: each.encode())
    measure("first mask of an open volume", lambda each: each.first_mask())
    measure("first pass, per slice", lambda each: each.first_pass())
    measure("a prompt on a slice seen before", lambda each: each.prompt_again())
    for each in every:
        each.correct()
    measure("second pass after a correction, per slice", lambda each: each.second_pass())
    runs = ours.session.embeddings.encoded
    measure(f"{plan.objects} objects, per slice", lambda each: each.objects())
    return Comparison(
        timings=tuple(timings),
        slices=plan.slices,
        encoder_runs=runs,
        objects=plan.objects,
        object_slices=plan.object_slices + 1,
        object_encoder_runs=ours.session.embeddings.encoded,
        lowest_dice={name: _lowest_dice(ours.masks, reference.masks) for name, reference in theirs.items()},
        fastest_dice=_lowest_dice(fast.masks, ours.masks),
    )


def network_frames(session: Session, volume: Volume) -> Tensor:
    """(T, 3, S, S): the slices of a session's volume as the network sees them."""
    view, network = View.whole(*session.slice_shape), session.model.network
    shown = [slice_to_frame(apply_window(plane, session.window), view, network.config.image_size) for plane in volume.array]
    return normalise(torch.stack(shown).to(network.device))


def _in_bfloat16(model: LoadedModel) -> LoadedModel:
    return replace(model, network=set_precision(copy.deepcopy(model.network), "bfloat16"))


def _in_turns(runs: Sequence[Steps], device: torch.device) -> Iterator[list[float]]:
    """Seconds of each step of every run, which must all be as long; who goes first changes from step to step."""
    for turn in itertools.count():
        order = list(range(len(runs)))[:: -1 if turn % 2 else 1]
        times = {index: seconds_of(runs[index], device) for index in order}
        seconds = [time for index in range(len(runs)) if (time := times[index]) is not None]
        if len(seconds) < len(runs):
            assert not seconds, "all have as many steps"
            return
        yield seconds


def _timing(name: str, turns: Sequence[Sequence[float]], references: Sequence[str]) -> Timing:
    ours, fastest, *others = zip(*turns, strict=True)
    beside = {
        reference: Beside(median(times), _ratio(times, ours), _ratio(times, fastest))
        for reference, times in zip(references, others, strict=True)
    }
    return Timing(name, median(ours), median(fastest), beside, len(turns))


def _ratio(other: Sequence[float], own: Sequence[float]) -> float:
    return median(a / b for a, b in zip(other, own, strict=True))


def _lowest_dice(ours: Masks, theirs: Masks) -> float:
    return min(metrics.dice(ours[index][None], theirs[index][None]) for index in ours)


class _Ours:
    """Our session on the plan's steps."""

    def __init__(self, model: LoadedModel, plan: Plan, volume: Volume) -> None:
        self._model, self._plan, self._volume = model, plan, volume
        self._size = model.network.config.image_size
        self._box = object_boxes(self._size, 1)[0]
        self.masks: Masks = {}
        self._open()

    def _open(self) -> None:
        self.session = Session(self._model, PLAIN)
        self.session.set_volume(self._volume)

    def encode(self) -> Steps:
        frame = network_frames(self.session, self._volume)[:1]
        for _ in range(self._plan.encoder_repeats):
            yield self._model.network.encode_image(frame)

    def first_mask(self) -> Steps:
        """Opening is not timed: it takes no time that grows with the network."""
        sessions = []
        for _ in range(self._plan.first_mask_repeats):
            self._open()
            sessions.append(self.session)
        return (session.add_prompt("object", self._box) for session in sessions)

    def first_pass(self) -> Steps:
        for result in self.session.propagate():
            self.masks[result.slice_index] = result.mask
            yield result

    def prompt_again(self) -> Steps:
        for number in range(self._plan.prompt_repeats):
            yield self.session.add_prompt(f"another {number}", self._box)

    def correct(self) -> None:
        x, y = click(self._size)
        self.session.add_prompt("object", Points(CORRECTED, (x,), (y,), (True,)))

    def second_pass(self) -> Steps:
        yield from self.session.propagate(["object"], redo=True)

    def objects(self) -> Steps:
        self._open()
        boxes = object_boxes(self._size, self._plan.objects)
        names = [self.session.add_prompt(str(number), box).object for number, box in enumerate(boxes)]
        results = self.session.propagate(last=self._plan.object_slices)
        return ([next(results) for _ in names] for _ in range(self._plan.object_slices))
