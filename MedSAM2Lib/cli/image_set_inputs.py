"""What `medsam2 segment` is asked to do with single images, and everything that can be found wrong with it beforehand.

Needs numpy, Pillow and SimpleITK, but not torch: a typing mistake is answered at once.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from MedSAM2Lib.atomic import check_output, check_writable
from MedSAM2Lib.checkpoints.store import weights_path
from MedSAM2Lib.cli.console import tell
from MedSAM2Lib.cli.engine import Engine, engine_of
from MedSAM2Lib.cli.prompt_options import in_order, parse_prompt
from MedSAM2Lib.errors import OptionError, OutputError, PromptError
from MedSAM2Lib.memory.options import MemoryName
from MedSAM2Lib.prompt_files import MaskFile, NamedPrompt, PromptSet, read_prompts
from MedSAM2Lib.prompts import Box3D, MaskPrompt, Prompt
from MedSAM2Lib.session_steps import said
from MedSAM2Lib.volume_io.images import ImageOfSet, is_picture, read_image, read_image_set
from MedSAM2Lib.volume_io.write import is_segmentation_path
from MedSAM2Lib.world_prompts import WorldPrompt

__all__ = ["ImageSetInputs", "ImageSetRequest", "asks_for_image_set", "image_set_request", "read_image_set_inputs"]

_FORMS = {
    "--box": ("NAME:IMAGE:X0,Y0,X1,Y1", "lesion:a.png:80,60,210,190"),
    "--point": ("NAME:IMAGE:X,Y:SIGN", "lesion:a.png:120,90:+"),
    "--recist": ("NAME:IMAGE:X0,Y0,X1,Y1", "lesion:a.png:80,60,95,71"),
    "--mask": ("NAME:IMAGE=FILE", "lesion:a.png=painted.png"),
}
_NAMES_SHOWN = 5
_OF_VOLUMES = ("axis", "plane", "range", "series", "orientations", "aggregate", "uncertainty")


@dataclass(frozen=True)
class ImageSetRequest:
    """Everything that a person asked for."""

    images: Path  # a folder, or one image
    output: Path  # a folder
    prompt_texts: Sequence[tuple[str, str]]  # option and value, as they came
    prompts_file: Path | None
    window: str
    engine: Engine
    memory: MemoryName
    fill_holes: bool
    keep_largest: bool
    preview: Path
    report: Path


@dataclass(frozen=True)
class ImageSetInputs:
    """The images, and the prompts on them as a session takes them; `asked` is for the report."""

    images: list[ImageOfSet]
    prompts: list[tuple[str, Prompt]]
    asked: PromptSet


def asks_for_image_set(args: argparse.Namespace) -> bool:
    """Whether IMAGE is a folder or a PNG or JPEG, and the output is no file of segments: a folder, then."""
    return (args.image.is_dir() or is_picture(args.image)) and not is_segmentation_path(args.output)


def image_set_request(args: argparse.Namespace) -> ImageSetRequest:
    """The request that the arguments of `medsam2 segment` put. Raises OptionError."""
    for option in _OF_VOLUMES:
        if getattr(args, option) is not None:
            raise OptionError(f"--{option} is for volumes, but {args.image} is taken as a set of single images; leave it out.")
    return ImageSetRequest(
        images=args.image,
        output=args.output,
        prompt_texts=args.prompt_texts,
        prompts_file=args.prompts,
        window=args.window,
        engine=engine_of(args),
        memory=args.memory or "self-sorting",
        fill_holes=not args.no_fill_holes,
        keep_largest=not args.keep_all,
        preview=args.preview or args.output / "preview.png",
        report=args.report or args.output / "report.json",
    )


def read_image_set_inputs(request: ImageSetRequest) -> ImageSetInputs:
    """Reads what the request names. Raises MedSAM2Error where it cannot be done, without having touched anything."""
    _check_outputs(request)
    tell(f"reading {request.images}")
    images = read_image_set(request.images, request.window)
    tell(f"images: {len(images)}, {_sizes(images)}")
    asked = _asked(request, [image.name for image in images])
    prompts = [(named.name, _resolved(named, images)) for named in asked.prompts]
    return ImageSetInputs(images, prompts, asked)


def _check_outputs(request: ImageSetRequest) -> None:
    """Raises OptionError or OutputError where the results cannot go, or would lie among the images."""
    output = request.output
    weights_path(request.engine.model)  # raises where there are none
    if output.suffix.lower() in (".png", ".jpg", ".jpeg") or output.is_file():
        raise OutputError(f"The masks of single images go into a folder, but --output {output} is a file; name a folder.")
    folder = request.images if request.images.is_dir() else request.images.parent
    if output.resolve() == folder.resolve():
        raise OptionError(f"--output {output} is where the images are, which the masks would lie among; choose another folder.")
    check_writable(output / "report.json" if output.is_dir() else output)
    for what, path, ending in (("A preview", request.preview, ".png"), ("A report", request.report, ".json")):
        if request.images.is_dir() and path.parent.resolve() == folder.resolve():
            raise OptionError(f"{what} would lie among the images, but {path} came; choose another folder.")
        if request.prompts_file is not None and path.resolve() == request.prompts_file.resolve():
            raise OptionError(f"{what} would replace {path}, which is read; choose another name.")
        if path.parent.resolve() != output.resolve():
            check_output(path, what, ending)


def _sizes(images: Sequence[ImageOfSet]) -> str:
    shapes = sorted({image.shape for image in images})
    colour = sum(image.pixels.ndim == 3 for image in images)
    sizes = [f"{columns} x {rows}" for rows, columns in (shapes[0], shapes[-1])]
    return f"{' to '.join(dict.fromkeys(sizes))} pixels, {colour or 'none'} in colour"


# ── prompts ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def _asked(request: ImageSetRequest, names: Sequence[str]) -> PromptSet:
    """The prompts of the file, then those of the options; images by their numbers."""
    given = PromptSet() if request.prompts_file is None else read_prompts(request.prompts_file)
    if given.axis is not None or given.plane is not None or given.first is not None or given.steps:
        raise PromptError(f"{request.prompts_file} has an axis, a plane, a range or steps, which are for volumes; take them out.")
    prompts = (*given.prompts, *(_parsed(option, text, names) for option, text in request.prompt_texts))
    if not prompts:
        raise PromptError(
            f'Say what to segment on one of the images, for example --box "lesion:{names[0]}:80,60,210,190"; '
            "docs/images_2d.md lists the ways."
        )
    return PromptSet(in_order(prompts))


def _parsed(option: str, text: str, names: Sequence[str]) -> NamedPrompt:
    """One option's value, in which the image is named by its file or its number."""
    if option not in _FORMS:
        raise PromptError(f"{option} needs a volume, but these are single images; draw a box on one of them.")
    name, image, rest = _split(option, text)
    index = _image_index(image.strip(), names)
    if option == "--mask":
        return NamedPrompt(name.strip(), MaskFile(Path(rest), slices=(index,)))
    return parse_prompt(option, f"{name}:{index}:{rest}")


def _split(option: str, text: str) -> tuple[str, str, str]:
    """Name, image, and what is said of it."""
    if option == "--mask":
        head, equals, rest = text.partition("=")
        name, colon, image = head.rpartition(":")
        if equals and colon and rest:
            return name, image, rest
    else:
        signed = option == "--point" and text.rstrip().endswith((":+", ":-"))
        parts = text.rsplit(":", 3 if signed else 2)
        if len(parts) == (4 if signed else 3):
            return parts[0], parts[1], ":".join(parts[2:])
    pattern, example = _FORMS[option]
    raise PromptError(f'{option} is written "{pattern}", as "{example}", but "{text}" came.')


def _image_index(text: str, names: Sequence[str]) -> int:
    """Which image a text means: its file's name, that name without its ending if only one has it, or its number."""
    for known in (names, [Path(name).stem for name in names]):
        matching = [index for index, name in enumerate(known) if name == text]
        if len(matching) == 1:
            return matching[0]
    if text.isdecimal() and int(text) < len(names):
        return int(text)
    shown = ", ".join(names[:_NAMES_SHOWN]) + (f" and {len(names) - _NAMES_SHOWN} more" if len(names) > _NAMES_SHOWN else "")
    raise PromptError(f"There is no image {text!r}; the images are {shown}, numbered 0..{len(names) - 1} in the order of names.")


def _resolved(named: NamedPrompt, images: Sequence[ImageOfSet]) -> Prompt:
    """A prompt as a session takes it: a mask is read from its file."""
    prompt = named.prompt
    if isinstance(prompt, Box3D):
        raise PromptError(f"{named.name}: a 3D box needs a volume, but these are single images; draw a box on one of them.")
    if isinstance(prompt, WorldPrompt):
        raise PromptError(f"{named.name}: single images lie nowhere in the patient; give pixels instead of {prompt.space} mm.")
    if not isinstance(prompt, MaskFile):
        return said(prompt)
    if prompt.slices is None or len(prompt.slices) != 1 or prompt.label is not None:
        raise PromptError(f'{named.name}: a mask of single images is given for one image, as "{_FORMS["--mask"][1]}".')
    pixels = read_image(prompt.path)
    return MaskPrompt(prompt.slices[0], (pixels if pixels.ndim == 2 else pixels.max(axis=2)) > 0)
