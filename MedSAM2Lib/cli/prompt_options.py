"""`--box "liver:42:80,60,210,190"` and its kin: the options that say what to segment.

An object's name is all that stands before the last colons that the form needs, so a name may hold colons itself.
Parsing needs numpy (prompts hold masks), so it is put off until the command runs: argparse only collects the texts.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from MedSAM2Lib.errors import OptionError, PromptError

if TYPE_CHECKING:
    from MedSAM2Lib.prompt_files import FilePrompt, NamedPrompt, PromptSet
    from MedSAM2Lib.slice_plane import SlicePlane
    from MedSAM2Lib.world_prompts import Kind

__all__ = ["add_prompt_arguments", "in_order", "parse_prompt", "prompts_of", "range_of"]

_SPACES = ("ras", "lps")  # as MedSAM2Lib.geometry has them, which needs numpy; a test compares


@dataclass(frozen=True)
class _Form:
    """How an option's value is written."""

    pattern: str
    example: str
    help: str


_FORMS = {
    "--box": _Form(
        "NAME:SLICE:X0,Y0,X1,Y1", "liver:42:80,60,210,190", "a box around the object on one slice, both corners inside"
    ),
    "--point": _Form(
        "NAME:SLICE:X,Y:SIGN", "liver:42:120,90:+", "a click on one slice: + on the object (the default), - beside it"
    ),
    "--recist": _Form("NAME:SLICE:X0,Y0,X1,Y1", "lesion:42:80,60,95,71", "the longest diameter, from end to end"),
    "--box3d": _Form(
        "NAME:FIRST-LAST:X0,Y0,X1,Y1", "liver:30-55:80,60,210,190", "a box on the middle one of these slices; stays within them"
    ),
    "--mask": _Form(
        "NAME=FILE[:LABEL]", "liver=painted.nrrd", "a mask on the image's grid; each slice that has voxels is a prompt"
    ),
}


def add_prompt_arguments(parser: argparse.ArgumentParser) -> None:
    """The options above, in any number and mixed; `prompts_of` gives what they mean."""
    group = parser.add_argument_group(
        "what to segment",
        "X is the column, Y the row, SLICE the index along the slicing axis, all in voxels from 0. Or places in mm: ras (as in\n"
        "3D Slicer) or lps (as in DICOM) instead of SLICE, and X,Y,Z for every X,Y. Repeat the options for several objects,\n"
        "and for several prompts of one object (same NAME).",
    )
    for option, form in _FORMS.items():
        group.add_argument(option, action=_Collect, metavar=f'"{form.pattern}"', dest="prompt_texts", default=(), help=form.help)
    group.add_argument("--prompts", metavar="FILE.json", type=Path, help="prompts from a file, or of an earlier --report")


class _Collect(argparse.Action):
    """Keeps (option, text) of all prompt options in the order of the command line."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: str | Sequence[Any] | None,
        option_string: str | None = None,
    ) -> None:
        setattr(namespace, self.dest, (*getattr(namespace, self.dest), (option_string, values)))


def prompts_of(args: argparse.Namespace) -> PromptSet:
    """What the command line asks for: the prompts of the file, then those of the options; axis and range from either.

    Raises PromptError for what cannot be read, and when there is no prompt at all.
    """
    from MedSAM2Lib.prompt_files import PromptSet, read_prompts

    given = PromptSet() if args.prompts is None else read_prompts(args.prompts)
    given = replace(given, plane=_plane(args, given))
    if given.steps:
        if args.prompt_texts or args.range is not None:
            raise PromptError(f"{args.prompts} says step by step what is done; leave --range and other prompts out.")
        return given
    prompts = (*given.prompts, *(parse_prompt(option, text) for option, text in args.prompt_texts))
    if not prompts:
        raise PromptError(
            f'Say what to segment, for example --box "{_FORMS["--box"].example}"; medsam2 segment --help lists the ways.'
        )
    first, last = (given.first, given.last) if args.range is None else range_of(args.range)
    return replace(given, prompts=in_order(prompts), first=first, last=last)


def _plane(args: argparse.Namespace, given: PromptSet) -> SlicePlane | None:
    """The plane of the command line, or of the file. Raises OptionError or PromptError where slices would be counted twice."""
    asked = None if args.plane is None else plane_of(args.plane)
    if asked is not None and (given.axis is not None or given.plane not in (None, asked)):
        raise PromptError(f"{args.prompts} counts slices in its own way, so --plane does not fit it; leave --plane out.")
    plane = asked or given.plane
    if plane is not None and args.axis is not None:
        raise OptionError("--axis counts slices along an axis, but they are counted across a plane; leave --axis out.")
    return plane


def plane_of(text: str) -> SlicePlane:
    """`SPACE:NORMAL` or `SPACE:NORMAL:POINT`."""
    from MedSAM2Lib.geometry import to_lps
    from MedSAM2Lib.slice_plane import SlicePlane

    space, *vectors = text.split(":")
    try:
        if space.strip() not in _SPACES or len(vectors) not in (1, 2):
            raise ValueError
        normal, *points = (to_lps(_floats(vector, 3), space.strip()).tolist() for vector in vectors)
    except ValueError as error:
        raise OptionError(
            f'--plane is written "SPACE:NORMAL" or "SPACE:NORMAL:POINT", as "ras:0.3,0,0.95" or "lps:0,0.5,1:12,-30,45", but '
            f'"{text}" came.'
        ) from error
    return SlicePlane.normal_to(normal, tuple(points[0]) if points else None)


def parse_prompt(option: str, text: str) -> NamedPrompt:
    """One option's value. Raises PromptError that shows how it is written."""
    from MedSAM2Lib.prompt_files import NamedPrompt

    try:
        name, prompt = _PARSERS[option](text)
        return NamedPrompt(name.strip(), prompt)
    except PromptError as error:
        raise PromptError(f'{option} "{text}": {error}') from error
    except ValueError as error:
        form = _FORMS[option]
        raise PromptError(f'{option} is written "{form.pattern}", as "{form.example}", but "{text}" came.') from error


def in_order(prompts: Iterable[NamedPrompt]) -> tuple[NamedPrompt, ...]:
    """Objects in the order of their first mention; of each, first boxes, lines and masks, then clicks, one set a slice.

    A command line has no "after": clicks refine the box of their slice wherever they stand, and all clicks on a slice
    count together.
    """
    from MedSAM2Lib.prompt_files import NamedPrompt
    from MedSAM2Lib.prompts import Points

    shapes: dict[str, list[NamedPrompt]] = {}
    clicks: dict[str, dict[int, Points]] = {}
    for named in prompts:
        theirs = shapes.setdefault(named.name, [])
        new = named.prompt
        if not isinstance(new, Points):
            theirs.append(named)
            continue
        by_slice = clicks.setdefault(named.name, {})
        old = by_slice.get(new.slice_index)
        by_slice[new.slice_index] = (
            new if old is None else Points(old.slice_index, old.xs + new.xs, old.ys + new.ys, old.labels + new.labels)
        )
    return tuple(
        one
        for name, theirs in shapes.items()
        for one in (*theirs, *(NamedPrompt(name, points) for points in clicks.get(name, {}).values()))
    )


def range_of(text: str) -> tuple[int, int]:
    """`FIRST:LAST` as slice indices, both inclusive."""
    first, colon, last = text.partition(":")
    try:
        if not colon:
            raise ValueError
        return int(first), int(last)
    except ValueError as error:
        raise PromptError(f'--range is written "FIRST:LAST", as "20:60", but "{text}" came.') from error


# ── one parser per form: text -> name and prompt; ValueError where the form is not kept ──────────────────────────────


def _parse_box(text: str) -> tuple[str, FilePrompt]:
    from MedSAM2Lib.prompts import Box

    name, index, corners = _split(text, 3)
    if index.strip() in _SPACES:
        return name, _in_world("box", index, corners, 2)
    return name, Box(int(index), *_floats(corners, 4))


def _parse_recist(text: str) -> tuple[str, FilePrompt]:
    from MedSAM2Lib.prompts import RecistLine

    name, index, ends = _split(text, 3)
    if index.strip() in _SPACES:
        return name, _in_world("recist", index, ends, 2)
    return name, RecistLine(int(index), *_floats(ends, 4))


def _parse_box3d(text: str) -> tuple[str, FilePrompt]:
    from MedSAM2Lib.prompts import Box3D

    name, slices, corners = _split(text, 3)
    if slices.strip() in _SPACES:
        return name, _in_world("box3d", slices, corners, 2)
    first, _, last = slices.partition("-")
    return name, Box3D(int(first), int(last), *_floats(corners, 4))


def _parse_point(text: str) -> tuple[str, FilePrompt]:
    from MedSAM2Lib.prompts import Points

    signed = text.rstrip().endswith((":+", ":-"))
    name, index, place, sign = _split(text if signed else f"{text}:+", 4)
    labels = (sign.strip() == "+",)
    if index.strip() in _SPACES:
        return name, _in_world("points", index, place, 1, labels)
    x, y = _floats(place, 2)
    return name, Points(int(index), (x,), (y,), labels)


def _in_world(kind: Kind, space: str, text: str, count: int, labels: tuple[bool, ...] = ()) -> FilePrompt:
    """A prompt of so many places in mm."""
    from MedSAM2Lib.world_prompts import WorldPrompt

    values = iter(_floats(text, 3 * count))
    return WorldPrompt(kind, space.strip(), tuple(zip(values, values, values, strict=True)), labels)


def _parse_mask(text: str) -> tuple[str, FilePrompt]:
    from MedSAM2Lib.prompt_files import MaskFile

    name, equals, file = text.partition("=")
    if not (equals and file):
        raise ValueError
    path, colon, label = file.rpartition(":")
    if colon and label.isdigit() and not Path(file).exists():
        return name, MaskFile(Path(path), int(label))
    return name, MaskFile(Path(file))


_PARSERS: dict[str, Callable[[str], tuple[str, FilePrompt]]] = {
    "--box": _parse_box,
    "--point": _parse_point,
    "--recist": _parse_recist,
    "--box3d": _parse_box3d,
    "--mask": _parse_mask,
}


def _split(text: str, count: int) -> list[str]:
    """The parts between the last colons; the first part, the name, keeps the others."""
    parts = text.rsplit(":", count - 1)
    if len(parts) != count:
        raise ValueError
    return parts


def _floats(text: str, count: int) -> list[float]:
    values = [float(part) for part in text.split(",")]
    if len(values) != count:
        raise ValueError
    return values
