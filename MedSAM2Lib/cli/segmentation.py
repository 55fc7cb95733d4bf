"""What `medsam2 segment` and `medsam2 demo` do: from a checked request to the files. Imported when a command runs: torch."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from MedSAM2Lib.checkpoints.loading import LoadedModel, LoadedSAM
from MedSAM2Lib.cli.console import Progress, duration, tell, warn
from MedSAM2Lib.cli.engine import Engine, load_any_engine, session_options
from MedSAM2Lib.cli.inputs import Inputs, Request
from MedSAM2Lib.cli.orientation import check_orientations, oriented_masks, told_in_report, write_uncertainty
from MedSAM2Lib.errors import OptionError, PromptError, UsageError
from MedSAM2Lib.inference.opening import AnySession, open_session
from MedSAM2Lib.inference.session import Session, SessionOptions
from MedSAM2Lib.preview import contact_sheet, write_picture
from MedSAM2Lib.prompt_files import PromptSet
from MedSAM2Lib.prompts import Box3D, Prompt
from MedSAM2Lib.report import ObjectSummary, Run, summarise, write_report
from MedSAM2Lib.session_steps import SessionStep
from MedSAM2Lib.volume_io.write import Segment, write_segmentation

__all__ = ["Outcome", "segment"]

_ARRAY_AXES = "kji"


@dataclass(frozen=True)
class Outcome:
    """What came of a request. `segments` are in the order of the labels; `written` are paths and what to know of them."""

    segments: list[Segment]
    summaries: list[ObjectSummary]
    written: list[tuple[Path, str]]


def segment(
    request: Request,
    inputs: Inputs,
    timings: dict[str, float],
    started: float,
    load: Callable[[Engine], LoadedModel | LoadedSAM] = load_any_engine,
) -> Outcome:
    """Segments and writes the results, each file whole or not at all.

    timings  seconds by step so far; the steps from here on are added
    started  when the command began, time.perf_counter()
    load     gives the model; who segments several images keeps it from one to the next
    """
    axis = _ARRAY_AXES[inputs.array_axis]
    # 1. The model
    with timed(timings, "load_model"):
        model = load(request.engine)
    window = inputs.window
    slices = "oblique slices" if inputs.stack.is_oblique else f"slices along {axis}"
    name = ", approximate: ".join((model.name, *model.approximations))
    tell(f"model: {name} on {model.network.device}; window {window.low:g}..{window.high:g}, {slices}")
    # 2. The prompted slices, then the others; or what a file says step by step
    session = open_session(model, _session_options(request, model))
    check_orientations(session, request.orientations)
    found_window = f"{float(window.low)!r}:{float(window.high)!r}"  # of the image, not of what an oblique stack adds around it
    session.set_volume(inputs.sliced, axis, found_window)
    if inputs.steps:
        with timed(timings, "steps"):
            _perform(session, inputs.steps)
    else:
        _segment(session, request, inputs, timings, started)
    # 3. Other orientations
    with timed(timings, "orientations"):
        oriented = oriented_masks(session, request.orientations, inputs, found_window)
    # 4. The results
    cut = [Segment(name, oriented[name].mask if oriented else session.mask(name)) for name in session.objects]
    segments = [replace(one, mask=inputs.stack.on_grid(one.mask)) for one in cut]
    _warn_of_surprises(request.output, segments)
    summaries = [_summary(one, sliced, session, inputs) for one, sliced in zip(segments, cut, strict=True)]
    run = Run(
        image=request.image,
        volume=inputs.volume,
        stack=inputs.stack,
        model=model,
        axis=axis,
        window_asked=request.window,
        window=window,
        options=session.options,
        prompts=replace(request.prompts, axis=axis),
        slices_encoded=session.embeddings.encoded,
        timings=timings,
        orientations=told_in_report(request.orientations, oriented),
    )
    written = write_uncertainty(request.orientations, oriented, inputs.stack)
    return Outcome(segments, summaries, written + _write(request, inputs, run, segments, cut, summaries, started))


def _summary(segment: Segment, cut: Segment, session: AnySession, inputs: Inputs) -> ObjectSummary:
    """Slices as they were cut, voxels and millilitres of what is written."""
    summary = summarise(cut, inputs.array_axis, session.confidence(cut.name), inputs.sliced.geometry)
    voxels = int(segment.mask.sum())
    return replace(summary, voxels=voxels, volume_ml=voxels * inputs.volume.geometry.voxel_volume_ml)


def _segment(session: AnySession, request: Request, inputs: Inputs, timings: dict[str, float], started: float) -> None:
    with timed(timings, "prompts"):
        for name, prompt in inputs.prompts:
            _add_prompt(session, name, prompt)
            timings.setdefault("first_mask_after", time.perf_counter() - started)
    with timed(timings, "propagation"):
        if isinstance(session, Session) or any(isinstance(prompt, Box3D) for _, prompt in inputs.prompts):
            _propagate(session, request.prompts)
        else:
            tell(f"{session.model.name} has no memory: only slices with a box are segmented (--box3d segments a range of them)")


def _perform(session: AnySession, steps: Sequence[SessionStep]) -> None:
    """What a file says, step by step. Raises UsageError where a step does not fit what was done before."""
    if not isinstance(session, Session):
        raise OptionError(f"{session.model.name} has no memory, so it cannot follow the steps of a session; take another model.")
    with Progress("following steps", len(steps), "steps") as progress:
        for number, step in enumerate(steps, start=1):
            try:
                for _ in session.perform(step):
                    pass
            except UsageError as error:
                raise type(error)(f"Step {number}: {error}") from error
            progress.update(number, number)
    if not session.objects:
        raise PromptError("The steps of the file leave no object to write; end them with one.")


@contextmanager
def timed(timings: dict[str, float], name: str) -> Iterator[None]:
    """Notes how many seconds the block took."""
    begun = time.perf_counter()
    yield
    timings[name] = time.perf_counter() - begun


def _session_options(request: Request, model: LoadedModel | LoadedSAM) -> SessionOptions:
    options = replace(session_options(request.engine, model), stop_after=request.stop_after, keep_largest=request.keep_largest)
    return options if request.fill_holes else replace(options, fill_hole_cells=0)


def _add_prompt(session: AnySession, name: str, prompt: Prompt) -> None:
    try:
        session.add_prompt(name, prompt)
    except PromptError as error:
        raise PromptError(f"{name}: {error}") from error


def _propagate(session: AnySession, asked: PromptSet) -> None:
    plan = session.plan(first=asked.first, last=asked.last)
    position_of = {(name, index): position for position, (name, (index, _)) in enumerate(plan, start=1)}
    with Progress("propagating", len(plan), "slices") as progress:
        for count, result in enumerate(session.propagate(first=asked.first, last=asked.last), start=1):
            progress.update(position_of[result.object, result.slice_index], count)


def _warn_of_surprises(output: Path, segments: Sequence[Segment]) -> None:
    for one in segments:
        if not one.mask.any():
            warn(f"nothing was found for {one.name!r}: its mask is empty; try another prompt or --window.")
    if output.name.lower().endswith(".seg.nrrd"):
        return
    for place, one in enumerate(segments):
        for later in segments[place + 1 :]:
            if shared := int((one.mask & later.mask).sum()):
                warn(f"{one.name!r} and {later.name!r} share {shared} voxels, which {later.name!r} gets; .seg.nrrd keeps both.")


def _write(
    request: Request,
    inputs: Inputs,
    run: Run,
    segments: Sequence[Segment],
    cut: Sequence[Segment],
    summaries: Sequence[ObjectSummary],
    started: float,
) -> list[tuple[Path, str]]:
    """cut  the segments on the grid of the slices"""
    labels = ", ".join(f"{label} = {one.name}" for label, one in enumerate(segments, start=1))
    with timed(run.timings, "write_mask"):
        write_segmentation(request.output, segments, inputs.volume.geometry)
    written = [(request.output, labels)]
    if request.preview is not None:
        with timed(run.timings, "write_preview"):
            caption = f"{request.image.name}   {run.model.name}   window {run.window.low:g}..{run.window.high:g}"
            sheet = contact_sheet(inputs.sliced, run.axis, run.window, cut, inputs.prompts, caption)
            write_picture(request.preview, sheet)
        written.append((request.preview, ""))
    run.timings["total"] = time.perf_counter() - started
    if request.report is not None:
        outputs = {"mask": request.output, "preview": request.preview, "uncertainty": request.orientations.uncertainty}
        write_report(request.report, run, summaries, outputs)
        written.append((request.report, ""))
    tell(f"finished in {duration(run.timings['total'])}")
    return written
