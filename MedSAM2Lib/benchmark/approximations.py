"""What each approximation is worth: its speed beside the exact engine's and Meta's, and how far its masks are from the exact.

All do a slice, one after the other, before any does the next, and a ratio is the median over slices: what else the machine
does then falls on all alike.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from statistics import fmean, median

import numpy as np
import numpy.typing as npt
import torch

from MedSAM2Lib import metrics
from MedSAM2Lib.benchmark.compare import PLAIN, Plan, Reference, quiet_reference, seconds_of
from MedSAM2Lib.benchmark.subject import object_boxes, random_network, random_volume
from MedSAM2Lib.checkpoints.loading import LoadedModel
from MedSAM2Lib.frames import View, normalise, slice_to_frame
from MedSAM2Lib.inference.session import Session
from MedSAM2Lib.intensity import apply_window
from MedSAM2Lib.network.build import build_network
from MedSAM2Lib.network.config import CROP_ZOOM, Approximation, TrunkConfig, approximated, network_config
from MedSAM2Lib.network.precision import set_precision

__all__ = ["ApproximationRow", "measure_approximations"]

EXACT, REFERENCE = "exact", "Meta's"
_SMALLER_NETWORK = "efficienttam-tiny"

_Masks = dict[int, npt.NDArray[np.bool_]]


@dataclass(frozen=True)
class ApproximationRow:
    """Seconds per slice of a first pass, and of a second one with image features at hand; how many times as long the exact
    engine and the reference take; Dice to the exact masks, the mean over slices and the lowest. None: cannot be measured."""

    name: str
    first_pass: float
    second_pass: float
    first_to_exact: float
    second_to_exact: float
    first_to_reference: float | None
    second_to_reference: float | None
    mean_dice: float | None
    lowest_dice: float | None


@torch.inference_mode()
def measure_approximations(
    model: LoadedModel, slices: int, *, with_reference: bool, note: Callable[[str], None] = lambda _: None
) -> list[ApproximationRow]:
    """One object on the benchmark's volume, from a box on slice 0. `note` is told what begins."""
    size = model.network.config.image_size
    volume = random_volume(size, slices)
    runs = {name: _Run(variant) for name, variant in _variants(model).items()}
    for run in runs.values():
        run.session.set_volume(volume)
        run.session.add_prompt("object", object_boxes(size, 1)[0])
    reference = None
    if with_reference:
        session = runs[EXACT].session
        view = View.whole(*session.slice_shape)
        shown = [slice_to_frame(apply_window(plane, session.window), view, size) for plane in volume.array]
        frames = normalise(torch.stack(shown).to(model.network.device))
        reference = Reference(model, frames, Plan(slices=slices, first_mask_repeats=1))
        next(reference.first_mask())

    def in_turns(redo: bool) -> dict[str, list[float]]:
        passes: dict[str, Iterator[object]] = {name: run.go(redo) for name, run in runs.items()}
        if reference is not None:
            passes[REFERENCE] = reference.first_pass()
        return _in_turns(passes, slices - 1, model.network.device)

    with quiet_reference() if with_reference else nullcontext():
        note("a first pass of each approximation")
        first = in_turns(redo=False)
        note("a second pass")
        second = in_turns(redo=True)
    exact = runs[EXACT].masks
    return [_row(name, first, second, run.masks, exact if run.comparable else None) for name, run in runs.items()]


def _variants(model: LoadedModel) -> dict[str, LoadedModel]:
    """By what a command line says to get it."""
    variants = {EXACT: model, "pooled-memories": _approximate(model, "pooled-memories")}
    if isinstance(model.network.config.trunk, TrunkConfig):
        variants["crop"] = _approximate(model, "crop")
        variants["crop, --precision bfloat16"] = _in_bfloat16(variants["crop"])
        config = network_config(_SMALLER_NETWORK, model.network.config.image_size)
        smaller = LoadedModel(random_network(config).to(model.network.device), _SMALLER_NETWORK, model.path, "", None)
        variants["--model efficient-medsam2-tiny"] = smaller
        variants["--model efficient-medsam2-tiny, --precision bfloat16"] = _in_bfloat16(smaller)
    return variants


def _approximate(model: LoadedModel, *approximations: Approximation) -> LoadedModel:
    network = build_network(approximated(model.network.config, approximations))
    network.load_state_dict(model.network.state_dict())
    zoom = CROP_ZOOM if "crop" in approximations else model.zoom
    network = network.requires_grad_(False).to(model.network.device)
    return replace(model, network=network, zoom=zoom, approximations=approximations)


def _in_bfloat16(model: LoadedModel) -> LoadedModel:
    return replace(model, network=set_precision(copy.deepcopy(model.network), "bfloat16"))


class _Run:
    def __init__(self, model: LoadedModel) -> None:
        cropped = "crop" in model.approximations
        self.session = Session(model, replace(PLAIN, zoom=model.zoom if cropped else None))
        # Other weights find other things; and of a crop, random ones make another picture than of the whole slice.
        self.comparable = model.name != _SMALLER_NETWORK and (not cropped or bool(model.sha256))
        self.masks: _Masks = {}

    def go(self, redo: bool) -> Iterator[object]:
        for result in self.session.propagate(["object"], redo=redo):
            self.masks[result.slice_index] = result.mask
            yield result


def _in_turns(passes: Mapping[str, Iterator[object]], steps: int, device: torch.device) -> dict[str, list[float]]:
    """Seconds of every step of each. Each begins the round in its turn."""
    names = list(passes)
    times: dict[str, list[float]] = {name: [] for name in names}
    for step in range(steps):
        for turn in range(len(names)):
            name = names[(step + turn) % len(names)]
            seconds = seconds_of(passes[name], device)
            assert seconds is not None, "all have as many steps"
            times[name].append(seconds)
    return times


def _row(
    name: str, first: Mapping[str, list[float]], second: Mapping[str, list[float]], masks: _Masks, exact: _Masks | None
) -> ApproximationRow:
    dice = None if exact is None else [metrics.dice(masks[index][None], exact[index][None]) for index in exact]
    return ApproximationRow(
        name,
        median(first[name]),
        median(second[name]),
        _ratio(first[EXACT], first[name]),
        _ratio(second[EXACT], second[name]),
        _ratio(first[REFERENCE], first[name]) if REFERENCE in first else None,
        _ratio(second[REFERENCE], second[name]) if REFERENCE in second else None,
        None if dice is None else fmean(dice),
        None if dice is None else min(dice),
    )


def _ratio(other: Sequence[float], own: Sequence[float]) -> float:
    return median(a / b for a, b in zip(other, own, strict=True))
