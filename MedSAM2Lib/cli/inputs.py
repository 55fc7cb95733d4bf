"""What a command is asked to do, and everything that can be found wrong with it before the network is loaded.

Needs numpy and SimpleITK, but not torch: a typing mistake is answered at once.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from MedSAM2Lib.atomic import check_output
from MedSAM2Lib.checkpoints.store import weights_path
from MedSAM2Lib.cli.console import tell
from MedSAM2Lib.cli.engine import Engine, at_least, engine_of
from MedSAM2Lib.cli.orientation import OrientationRequest, orientation_request
from MedSAM2Lib.cli.prompt_options import in_order, prompts_of
from MedSAM2Lib.errors import OptionError, PromptError
from MedSAM2Lib.intensity import Window, resolve_window
from MedSAM2Lib.prompt_files import MaskFile, NamedPrompt, PromptSet, resolve, resolve_step
from MedSAM2Lib.prompts import Box3D, Prompt
from MedSAM2Lib.session_steps import AddPrompt, SessionStep, said, spoken
from MedSAM2Lib.slice_stack import SliceStack, resample
from MedSAM2Lib.step_json import AddMaskFile
from MedSAM2Lib.volume import Volume
from MedSAM2Lib.volume_io.read import read_volume
from MedSAM2Lib.volume_io.write import check_map_path, check_segmentation_path
from MedSAM2Lib.world_prompts import WorldPrompt

__all__ = ["Inputs", "Request", "read_inputs", "request_of"]

_DEFAULT_AXIS = "k"


@dataclass(frozen=True)
class Request:
    """Everything that a person asked for."""

    image: Path
    output: Path
    prompts: PromptSet
    prompts_file: Path | None = None
    axis: str | None = None
    window: str = "auto"
    series: str | None = None
    engine: Engine = field(default_factory=Engine)
    stop_after: int = 3
    fill_holes: bool = True
    keep_largest: bool = True
    orientations: OrientationRequest = field(default_factory=OrientationRequest)
    preview: Path | None = None
    report: Path | None = None


@dataclass(frozen=True)
class Inputs:
    """The image, and the prompts on it as the session takes them.

    volume  the image, on whose grid the masks are to be
    stack   how it is cut into slices
    sliced  what is cut: the image, or what an oblique stack makes of it
    steps   what is done one after the other, where a file of steps was given; `prompts` are then those among them
    """

    volume: Volume
    stack: SliceStack
    sliced: Volume
    window: Window
    prompts: list[tuple[str, Prompt]]
    steps: list[SessionStep] = field(default_factory=list)
    within: tuple[int, int] | None = None  # slices asked for, where not all are

    @property
    def array_axis(self) -> int:
        """Of what is cut: 0, 1, 2 for k, j, i."""
        return self.stack.axis


def request_of(args: argparse.Namespace) -> Request:
    """The request that the arguments of `medsam2 segment` put. Raises OptionError or PromptError."""
    prompts = prompts_of(args)
    return Request(
        image=args.image,
        output=args.output,
        prompts=prompts,
        prompts_file=args.prompts,
        axis=args.axis,
        window=_window(args.window, prompts),
        series=args.series,
        engine=engine_of(args),
        stop_after=at_least("--stop-after", args.stop_after, 0) or 0,
        fill_holes=not args.no_fill_holes,
        keep_largest=not args.keep_all,
        orientations=orientation_request(args),
        preview=args.preview,
        report=args.report,
    )


def read_inputs(request: Request) -> Inputs:
    """Reads what the request names. Raises MedSAM2Error where it cannot be done, without having touched anything."""
    _check_outputs(request)
    tell(f"reading {request.image}")
    volume = read_volume(request.image, request.series)
    k, j, i = volume.geometry.shape
    spacing = " x ".join(f"{mm:.3g}" for mm in volume.geometry.spacing)
    tell(f"image: {i} x {j} x {k} voxels (i, j, k) of {spacing} mm")
    stack = _stack(request, volume)
    prompts = _resolved(request.prompts, stack)
    _check_range(request.prompts, prompts, stack.slice_count)
    steps = [own for step in request.prompts.steps for own in resolve_step(step, stack)]
    prompts += [(step.object, said(step.prompt)) for step in steps if isinstance(step, AddPrompt)]
    first, last = request.prompts.first, request.prompts.last
    within = None if first is None or last is None else (first, last)
    sliced = resample(volume, stack.geometry) if stack.is_oblique else volume
    return Inputs(volume, stack, sliced, resolve_window(request.window, volume), prompts, steps, within)


def _window(asked: str, prompts: PromptSet) -> str:
    """The window asked for; where that is left open, the one in which the steps of a file were done."""
    return f"{prompts.window[0]!r}:{prompts.window[1]!r}" if asked == "auto" and prompts.window else asked


def _check_outputs(request: Request) -> None:
    """Raises OptionError or OutputError where the results cannot go, or would take the place of something needed."""
    outputs = {"--output": request.output, "--preview": request.preview, "--report": request.report}
    outputs["--uncertainty"] = request.orientations.uncertainty
    there = {option: path for option, path in outputs.items() if path is not None}
    inputs = [request.image, weights_path(request.engine.model), *filter(None, [request.prompts_file])]
    inputs += [named.prompt.path for named in request.prompts.prompts if isinstance(named.prompt, MaskFile)]
    inputs += [step.mask.path for step in request.prompts.steps if isinstance(step, AddMaskFile)]
    taken: dict[Path, str] = {path.resolve(): f"{path}, which is read" for path in inputs if path.is_file()}
    for option, path in there.items():
        if path.resolve() in taken:
            raise OptionError(f"{option} {path} would replace {taken[path.resolve()]}; choose another name.")
        taken[path.resolve()] = f"{path}, which {option} writes"
    check_segmentation_path(request.output)
    if request.orientations.uncertainty is not None:
        check_map_path(request.orientations.uncertainty)
    if request.preview is not None:
        check_output(request.preview, "A preview", ".png")
    if request.report is not None:
        check_output(request.report, "A report", ".json")


def _stack(request: Request, volume: Volume) -> SliceStack:
    """The slices, along an axis or across a plane."""
    if request.prompts.plane is None:
        return SliceStack.along(volume.geometry, _slicing_axis(request, volume))
    stack = request.prompts.plane.stack(volume.geometry)
    rows, columns = stack.slice_shape
    pixel, apart = stack.geometry.spacing[0], stack.geometry.spacing_along(stack.axis)
    tell(f"oblique slices: {stack.slice_count} of {columns} x {rows} pixels of {pixel:.3g} mm, {apart:.3g} mm apart")
    return stack


def _slicing_axis(request: Request, volume: Volume) -> int:
    """The array axis; the one that a prompts file was made for and the one asked for must be the same."""
    of_file = request.prompts.axis
    chosen = volume.geometry.array_axis(request.axis or of_file or _DEFAULT_AXIS)
    if of_file is not None and volume.geometry.array_axis(of_file) != chosen:
        raise PromptError(
            f"The prompts file counts slices along {of_file}, but --axis {request.axis} came; leave --axis out, or write the "
            "prompts for that axis."
        )
    return chosen


def _resolved(prompts: PromptSet, stack: SliceStack) -> list[tuple[str, Prompt]]:
    placed = in_order(one for named in prompts.prompts for one in _placed(named, stack))
    return [(named.name, one) for named in placed for one in resolve(named.prompt, stack)]


def _placed(named: NamedPrompt, stack: SliceStack) -> list[NamedPrompt]:
    """A prompt in mm as those of its slices."""
    if not isinstance(named.prompt, WorldPrompt):
        return [named]
    try:
        return [NamedPrompt(named.name, spoken(prompt)) for prompt in named.prompt.on(stack)]
    except PromptError as error:
        raise PromptError(f"{named.name}: {error}") from error


def _check_range(asked: PromptSet, prompts: Sequence[tuple[str, Prompt]], slice_count: int) -> None:
    """A prompt beyond the range would be kept or lost, neither of which anyone expects."""
    if asked.first is None or asked.last is None:
        return
    if not 0 <= asked.first <= asked.last < slice_count:
        raise OptionError(f"--range must lie within 0:{slice_count - 1}, first before last, but {asked.first}:{asked.last} came.")
    for name, prompt in prompts:
        index = prompt.middle_box().slice_index if isinstance(prompt, Box3D) else prompt.slice_index
        if not asked.first <= index <= asked.last:
            raise PromptError(
                f"The prompt of {name!r} is on slice {index}, outside --range {asked.first}:{asked.last}; widen the range."
            )
