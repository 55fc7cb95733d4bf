"""One case through a session: every structure from its simulated prompt, corrected as a person would, beside baselines."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace

import numpy as np
import numpy.typing as npt

from MedSAM2Lib.errors import OptionError, PromptError
from MedSAM2Lib.evaluation.baselines import BASELINES
from MedSAM2Lib.evaluation.cases import LoadedCase, Target
from MedSAM2Lib.evaluation.corrections import CORRECTIONS, WORST_BY, CorrectionKind, WorstBy, next_correction
from MedSAM2Lib.evaluation.manifest import Case
from MedSAM2Lib.evaluation.prompting import (
    PROMPT_KINDS,
    SLICE_CHOICES,
    PromptKind,
    SimulatedPrompt,
    SliceChoice,
    prompt_slices,
    reference_box,
    simulate_prompt,
    structure_generator,
)
from MedSAM2Lib.evaluation.rows import MODEL, Agreement, Row, agreement
from MedSAM2Lib.inference.orientations import COUNTS, Orientations
from MedSAM2Lib.inference.session import Session
from MedSAM2Lib.prompts import Box
from MedSAM2Lib.volume import Volume

__all__ = ["Protocol", "StructureResult", "Unscored", "evaluate_case", "evaluate_structure", "first_prompts", "window_of"]

_BoolArray = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Protocol:
    """How prompts are made and what happens after them."""

    prompt: PromptKind = "box"
    slice: SliceChoice = "suggested"
    every: float | None = None  # prompt a random share 0..1 of the slices with the object instead of one slice
    corrections: int = 0
    correct_with: CorrectionKind = "click"
    worst: WorstBy = "dice"  # which slice is corrected
    window: str = "auto"  # as `intensity.resolve_window` takes it, or `display`: the manifest's, where it has one
    orientations: int = 1  # slicing axes and ways that are put together, of `inference.orientations.COUNTS`
    seed: int = 0  # of jitter and random slices

    def __post_init__(self) -> None:
        _check_choice("prompt", self.prompt, PROMPT_KINDS)
        _check_choice("slice", self.slice, SLICE_CHOICES)
        _check_choice("correction", self.correct_with, CORRECTIONS)
        _check_choice("worst", self.worst, WORST_BY)
        if self.every is not None and not 0 < self.every <= 1:
            raise OptionError(f"The share of prompted slices must be above 0 and at most 1, but {self.every:g} came.")
        if self.orientations not in COUNTS:
            choices = ", ".join(map(str, COUNTS))
            raise OptionError(f"The number of orientations is one of {choices}, but {self.orientations} came.")
        if self.corrections < 0:
            raise OptionError(f"The number of corrections must be 0 or more, but {self.corrections} came.")


@dataclass(frozen=True)
class StructureResult:
    """A structure's rows (the baselines' and one per correction) and what a picture of it needs."""

    rows: tuple[Row, ...]
    mask: _BoolArray = field(repr=False)  # (k, j, i), after the last correction
    target: Target
    prompts: tuple[SimulatedPrompt, ...]  # corrections too


@dataclass(frozen=True)
class Unscored:
    """A structure that has no result, and the sentence that says why."""

    reason: str


def evaluate_case(session: Session, loaded: LoadedCase, protocol: Protocol) -> Iterator[StructureResult | Unscored]:
    """Yields what became of each structure.

    The session takes the case's volume; structures share its image features wherever they share the view.
    """
    session.set_volume(loaded.volume, axis="k", window=window_of(loaded.case, protocol))
    for target in loaded.targets:
        try:
            result = evaluate_structure(session, loaded, target, protocol)
            yield replace(result, rows=(*_baseline_rows(loaded, result), *result.rows))
        except PromptError as error:
            yield Unscored(f"Case {loaded.case.id!r}, structure {target.structure.name!r}: {error}")
        finally:
            session.reset()


def window_of(case: Case, protocol: Protocol) -> str:
    """The window of a case, as `intensity.resolve_window` takes it."""
    if protocol.window != "display":
        return protocol.window
    return "auto" if case.display_window is None else f"{case.display_window[0]}:{case.display_window[1]}"


def evaluate_structure(session: Session, loaded: LoadedCase, target: Target, protocol: Protocol) -> StructureResult:
    """The model on one structure, without baselines. The session must show the case's volume, and keeps the object.

    Raises PromptError where a prompt does not fit the volume.
    """
    name, reference, spacing = target.structure.name, target.reference, loaded.volume.geometry.spacing
    prompts = list(first_prompts(loaded, target, protocol))
    slices = tuple(prompt.slice_index for prompt in prompts)

    def row(mask: _BoolArray, corrections: int, seconds: float) -> Row:
        scores = agreement(mask, reference, spacing, slices)
        return _row(scores, loaded, target, MODEL, corrections, len(slices) + corrections, slices, seconds)

    others = None
    if protocol.orientations > 1 and len(loaded.volume.array) > 1:  # an image of one slice has no other axis
        others = Orientations(session, loaded.volume, "k", window_of(loaded.case, protocol), protocol.orientations)
    # 1. From the first prompts
    seconds, mask = _segment(session, name, prompts, others)
    rows = [row(mask, 0, seconds)]
    # 2. Corrections
    for number in range(1, protocol.corrections + 1):
        correction = next_correction(mask, reference, spacing, protocol.worst, protocol.correct_with)
        if correction is None:  # nothing is wrong any more
            rows.append(row(mask, number, 0.0))
            continue
        prompts.append(correction)
        seconds, mask = _segment(session, name, [correction], others)
        rows.append(row(mask, number, seconds))
    return StructureResult(tuple(rows), mask, target, tuple(prompts))


def _baseline_rows(loaded: LoadedCase, result: StructureResult) -> Iterator[Row]:
    """From a box, on the first prompts' slices."""
    first = result.rows[0]
    box = _baseline_box(result.prompts[: first.prompts], result.target)
    for method, baseline in BASELINES.items():
        mask = baseline(box, loaded.volume)
        scores = agreement(mask, result.target.reference, loaded.volume.geometry.spacing, first.prompted_slices)
        yield _row(scores, loaded, result.target, method, 0, first.prompts, first.prompted_slices, None)


def _segment(
    session: Session, name: str, prompts: Sequence[SimulatedPrompt], others: Orientations | None
) -> tuple[float, _BoolArray]:
    """Seconds from the prompts to the mask of the volume, along the other axes too where there are any, and that mask."""
    begun = time.perf_counter()
    for prompt in prompts:
        session.add_prompt(name, prompt)
    for _ in session.propagate([name]):
        pass
    mask = session.mask(name) if others is None else others.segment(name).mask
    return time.perf_counter() - begun, mask


def first_prompts(loaded: LoadedCase, target: Target, protocol: Protocol) -> Iterator[SimulatedPrompt]:
    """What the simulated person gives before any correction, one prompt per slice."""
    generator = structure_generator(protocol.seed, loaded.case.id, target.structure.name)
    in_plane = loaded.volume.geometry.spacing[:2]
    for index in prompt_slices(target.reference, target.structure, protocol.slice, protocol.every, generator):
        yield simulate_prompt(protocol.prompt, index, target.reference[index], in_plane, target.structure, generator)


def _baseline_box(prompts: Sequence[SimulatedPrompt], target: Target) -> Box:
    """The model's own box; where it got no box, the tight one on the slice that shows most of the object."""
    largest = max(prompts, key=lambda prompt: np.count_nonzero(target.reference[prompt.slice_index]))
    if isinstance(largest, Box):
        return largest
    return reference_box(target.reference[largest.slice_index], largest.slice_index)


def _row(
    scores: Agreement,
    loaded: LoadedCase,
    target: Target,
    method: str,
    corrections: int,
    prompts: int,
    slices: tuple[int, ...],
    seconds: float | None,
) -> Row:
    case, volume = loaded.case, loaded.volume
    return Row(
        **asdict(scores),
        case=case.id,
        structure=target.structure.name,
        modality=case.modality,
        anatomy=case.anatomy,
        method=method,
        corrections=corrections,
        prompts=prompts,
        prompted_slices=slices,
        reference_ml=_volume_ml(target.reference, volume),
        seconds=seconds,
    )


def _volume_ml(mask: _BoolArray, volume: Volume) -> float:
    return int(np.count_nonzero(mask)) * volume.geometry.voxel_volume_ml


def _check_choice(what: str, value: str, choices: Sequence[str]) -> None:
    if value not in choices:
        raise OptionError(f"Unknown {what} {value!r}: use one of {', '.join(choices)}.")
