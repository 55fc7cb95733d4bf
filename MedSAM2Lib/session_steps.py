"""What can be done with a session, as records: a session writes them down, a file holds them, and they can be done again.

Each is one call of `inference.session.Session`. No torch here: `prompt_files` reads and writes them.
"""

from __future__ import annotations

from dataclasses import dataclass

from MedSAM2Lib.packed_mask import PackedMask
from MedSAM2Lib.prompts import Box, Box3D, MaskPrompt, Points, Prompt, RecistLine

__all__ = [
    "AddPrompt", "GoOn", "Lock", "Painted", "Propagate", "Redo", "RemoveObject", "RemovePrompt", "RenameObject", "Reset",
    "SessionStep", "Spoken", "Undo", "Unlock", "said", "slice_of", "spoken",
]  # fmt: skip


@dataclass(frozen=True)
class Painted:
    """A mask prompt, packed: it is kept as long as the session lasts."""

    slice_index: int
    packed: PackedMask


Spoken = Box | Points | RecistLine | Box3D | Painted  # a prompt, as it is kept


def spoken(prompt: Prompt) -> Spoken:
    """A prompt as it is kept."""
    return Painted(prompt.slice_index, PackedMask.of(prompt.mask)) if isinstance(prompt, MaskPrompt) else prompt


def said(kept: Spoken) -> Prompt:
    """A kept prompt as it was given."""
    return MaskPrompt(kept.slice_index, kept.packed.unpacked()) if isinstance(kept, Painted) else kept


def slice_of(prompt: Prompt | Spoken) -> int:
    """The slice that a prompt is on."""
    return prompt.middle_box().slice_index if isinstance(prompt, Box3D) else prompt.slice_index


@dataclass(frozen=True)
class AddPrompt:
    object: str
    prompt: Spoken


@dataclass(frozen=True)
class RemovePrompt:
    object: str
    slice_index: int


@dataclass(frozen=True)
class Propagate:
    """results  slices to segment before it is stopped; None: to the end"""

    objects: tuple[str, ...] | None = None
    first: int | None = None
    last: int | None = None
    redo: bool = False
    results: int | None = None


@dataclass(frozen=True)
class GoOn:
    """The last propagation goes on after something else was done meanwhile; `results` as there."""

    results: int | None = None


@dataclass(frozen=True)
class Lock:
    object: str
    slices: tuple[int, ...]


@dataclass(frozen=True)
class Unlock:
    """slices  None: all"""

    object: str
    slices: tuple[int, ...] | None = None


@dataclass(frozen=True)
class RemoveObject:
    object: str


@dataclass(frozen=True)
class RenameObject:
    object: str
    to: str


@dataclass(frozen=True)
class Reset:
    pass


@dataclass(frozen=True)
class Undo:
    pass


@dataclass(frozen=True)
class Redo:
    pass


SessionStep = AddPrompt | RemovePrompt | Propagate | GoOn | Lock | Unlock | RemoveObject | RenameObject | Reset | Undo | Redo
