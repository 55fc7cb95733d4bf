"""What `medsam2 segment` and `medsam2 demo` do: from a checked request to the files. Imported when a command runs: torch."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from MedSAM2Lib.checkpoints.loading import LoadedModel, load_model
from MedSAM2Lib.cli.console import Progress, duration, tell, warn
from MedSAM2Lib.cli.inputs import Inputs, Request
from MedSAM2Lib.device import choose_device
from MedSAM2Lib.errors import PromptError
from MedSAM2Lib.inference.session import Session, SessionOptions
from MedSAM2Lib.preview import write_preview
from MedSAM2Lib.prompt_files import PromptSet
from MedSAM2Lib.prompts import Prompt
from MedSAM2Lib.report import ObjectSummary, Run, summarise, write_report
from MedSAM2Lib.simpleitk import import_simpleitk
from MedSAM2Lib.volume_io.write import Segment, write_segmentation

__all__ = ["Outcome", "segment"]

_ARRAY_AXES = "kji"


@dataclass(frozen=True)
class Outcome:
    """What came of a request. `segments` are in the order of the labels; `written` are paths and what to know of them."""

    segments: list[Segment]
    summaries: list[ObjectSummary]
    written: list[tuple[Path, str]]


def segment(request: Request, inputs: Inputs, timings: dict[str, float], started: float) -> Outcome:
    """Segments and writes the results, each file whole or not at all.

    timings  seconds by step so far; the steps from here on are added
    started  when the command began, time.perf_counter()
    """
    axis = _ARRAY_AXES[inputs.array_axis]
    # 1. The model
    with timed(timings, "load_model"):
        model = _load(request)
    window = inputs.window
    tell(f"model: {model.name} on {model.network.device}; window {window.low:g}..{window.high:g}, slices along {axis}")
    # 2. The prompted slices
    session = Session(model, _session_options(request, model))
    session.set_volume(inputs.volume, axis, request.window)
    with timed(timings, "prompts"):
        for name, prompt in inputs.prompts:
            _add_prompt(session, name, prompt)
            timings.setdefault("first_mask_after", time.perf_counter() - started)
    # 3. The others
    with timed(timings, "propagation"):
        _propagate(session, request.prompts)
    # 4. The results
    segments = [Segment(name, session.mask(name)) for name in session.objects]
    _warn_of_surprises(request.output, segments)
    geometry = inputs.volume.geometry
    summaries = [summarise(one, inputs.array_axis, session.confidence(one.name), geometry) for one in segments]
    run = Run(
        image=request.image,
        volume=inputs.volume,
        model=model,
        axis=axis,
        window_asked=request.window,
        window=window,
        options=session.options,
        prompts=replace(request.prompts, axis=axis),
        slices_encoded=session.embeddings.encoded,
        timings=timings,
    )
    return Outcome(segments, summaries, _write(request, inputs, run, segments, summaries, started))


@contextmanager
def timed(timings: dict[str, float], name: str) -> Iterator[None]:
    """Notes how many seconds the block took."""
    begun = time.perf_counter()
    yield
    timings[name] = time.perf_counter() - begun


def _load(request: Request) -> LoadedModel:
    device = choose_device(request.device)
    if request.threads is not None:
        torch.set_num_threads(request.threads)
        import_simpleitk().ProcessObject.SetGlobalDefaultNumberOfThreads(request.threads)
    return load_model(request.model, device, request.network)


def _session_options(request: Request, model: LoadedModel) -> SessionOptions:
    zoom = model.zoom if request.zoom == "auto" else request.zoom
    options = SessionOptions(
        zoom=None if zoom is None else float(zoom),
        depth_prior=model.depth_prior if request.depth_prior else None,
        stop_after=request.stop_after,
        keep_largest=request.keep_largest,
    )
    return options if request.fill_holes else replace(options, fill_hole_cells=0)


def _add_prompt(session: Session, name: str, prompt: Prompt) -> None:
    try:
        session.add_prompt(name, prompt)
    except PromptError as error:
        raise PromptError(f"{name}: {error}") from error


def _propagate(session: Session, asked: PromptSet) -> None:
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
    request: Request, inputs: Inputs, run: Run, segments: Sequence[Segment], summaries: Sequence[ObjectSummary], started: float
) -> list[tuple[Path, str]]:
    labels = ", ".join(f"{label} = {one.name}" for label, one in enumerate(segments, start=1))
    with timed(run.timings, "write_mask"):
        write_segmentation(request.output, segments, inputs.volume.geometry)
    written = [(request.output, labels)]
    if request.preview is not None:
        with timed(run.timings, "write_preview"):
            caption = f"{request.image.name}   {run.model.name}   window {run.window.low:g}..{run.window.high:g}"
            write_preview(request.preview, inputs.volume, run.axis, run.window, segments, inputs.prompts, caption)
        written.append((request.preview, ""))
    run.timings["total"] = time.perf_counter() - started
    if request.report is not None:
        write_report(request.report, run, summaries, {"mask": request.output, "preview": request.preview})
        written.append((request.report, ""))
    tell(f"finished in {duration(run.timings['total'])}")
    return written
