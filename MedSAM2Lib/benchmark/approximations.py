"""What each approximation is worth: its speed beside that of the exact engine and of the references, and how far its masks are
from the exact.

All do a slice, one after the other, before any does the next, and a ratio is the median over slices: what else the machine
does then falls on all alike.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import fmean, median

import torch

from MedSAM2Lib import metrics
from MedSAM2Lib.benchmark.compare import PLAIN, network_frames
from MedSAM2Lib.benchmark.plan import Masks, Plan, Steps, seconds_of
from MedSAM2Lib.benchmark.reference import NewReference
from MedSAM2Lib.benchmark.subject import object_boxes, random_network, random_volume
from MedSAM2Lib.checkpoints.loading import LoadedModel
from MedSAM2Lib.inference.session import Session
from MedSAM2Lib.network.build import build_network
from MedSAM2Lib.network.config import CROP_ZOOM, Approximation, TrunkConfig, approximated, network_config
from MedSAM2Lib.network.precision import set_precision

__all__ = ["ApproximationRow", "measure_approximations"]

EXACT = "exact"
_SMALLER_NETWORK = "efficienttam-tiny"


@dataclass(frozen=True)
class ApproximationRow:
    """Seconds per slice of a first pass, and of a second one with image features at hand; how many times as long the exact
    engine and the references, by name, take; Dice to the exact masks, the mean over slices and the lowest. None: cannot be
    measured."""

    name: str
    first_pass: float
    second_pass: float
    to_exact: tuple[float, float]
    to_references: dict[str, tuple[float, float]]
    mean_dice: float | None
    lowest_dice: float | None


@torch.inference_mode()
def measure_approximations(
    model: LoadedModel, slices: int, references: Mapping[str, NewReference], note: Callable[[str], None] = lambda _: None
) -> list[ApproximationRow]:
    """One object on the benchmark's volume, from a box on slice 0. `note` is told what begins."""
    size = model.network.config.image_size
    volume = random_volume(size, slices)
    runs = {name: _Run(variant) for name, variant in _variants(model).items()}
    for run in runs.values():
        run.session.set_volume(volume)
        run.session.add_prompt("object", object_boxes(size, 1)[0])
    frames = network_frames(runs[EXACT].session, volume)
    theirs = {name: new(model.network, frames, Plan(slices, first_mask_repeats=1)) for name, new in references.items()}
    for reference in theirs.values():
        next(reference.first_mask())

    def in_turns(redo: bool) -> dict[str, list[float]]:
        passes = {name: run.go(redo) for name, run in runs.items()}
        passes |= {name: reference.first_pass() for name, reference in theirs.items()}
        return _in_turns(passes, slices - 1, model.network.device)

    note("a first pass of each approximation")
    first = in_turns(redo=False)
    note("a second pass")
    second = in_turns(redo=True)

    def row(name: str, run: _Run) -> ApproximationRow:
        to = {other: (_ratio(first[other], first[name]), _ratio(second[other], second[name])) for other in (EXACT, *theirs)}
        exact = runs[EXACT].masks
        dice = [metrics.dice(run.masks[index][None], exact[index][None]) for index in exact] if run.comparable else None
        return ApproximationRow(
            name,
            first_pass=median(first[name]),
            second_pass=median(second[name]),
            to_exact=to.pop(EXACT),
            to_references=to,
            mean_dice=None if dice is None else fmean(dice),
            lowest_dice=None if dice is None else min(dice),
        )

    return [row(name, run) for name, run in runs.items()]


def _variants(model: LoadedModel) -> dict[str, LoadedModel]:
    """By what a command line says to get it."""
    pooled = _approximate(model, "pooled-memories")
    variants = {EXACT: model, "--precision bfloat16": _in_bfloat16(model), "pooled-memories": pooled}
    variants["pooled-memories, --precision bfloat16"] = _in_bfloat16(pooled)
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
        self.masks: Masks = {}

    def go(self, redo: bool) -> Steps:
        for result in self.session.propagate(["object"], redo=redo):
            self.masks[result.slice_index] = result.mask
            yield result


def _in_turns(passes: Mapping[str, Steps], steps: int, device: torch.device) -> dict[str, list[float]]:
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


def _ratio(other: Sequence[float], own: Sequence[float]) -> float:
    return median(a / b for a, b in zip(other, own, strict=True))
