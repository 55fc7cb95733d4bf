"""The door of a session: prompts, slices and names are checked here, before anything is done with them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from MedSAM2Lib.errors import OptionError, PromptError
from MedSAM2Lib.prompts import Box, Box3D, MaskPrompt, Points, Prompt, RecistLine

__all__ = ["Door", "SlicePrompt"]

SlicePrompt = Box | Points | MaskPrompt


@dataclass(frozen=True)
class Door:
    """What prompts must fit.

    count     slices of the volume, or images of the set
    shape_of  index -> rows and columns of that slice
    images    they are single images: messages then speak of images, and there is no other slicing axis to think of
    """

    count: int
    shape_of: Callable[[int], tuple[int, int]]
    images: bool = False

    def checked(self, prompt: Prompt) -> SlicePrompt:
        """The prompt in its simplest form, sure to fit: a line as its box, a 3D box as the one on its middle slice.

        Raises PromptError that says what was expected, what came, and what to do.
        """
        if not isinstance(prompt, (Box, Points, MaskPrompt, RecistLine, Box3D)):
            raise PromptError(f"A prompt is a Box, Points, MaskPrompt, RecistLine or Box3D, but a {type(prompt).__name__} came.")
        if isinstance(prompt, Box3D):
            if self.images:
                raise PromptError("A 3D box needs a volume, but these are single images; draw a box on one of them.")
            self._check_index(prompt.first)
            self._check_index(prompt.last)
            prompt = prompt.middle_box()
        self._check_index(prompt.slice_index)
        prompt = replace(prompt, slice_index=int(prompt.slice_index))  # numpy's integers cannot be saved
        if isinstance(prompt, MaskPrompt):
            self._check_mask(prompt)
        elif isinstance(prompt, Points):
            self._check_inside("point", prompt.slice_index, prompt.xs, prompt.ys)
        elif isinstance(prompt, RecistLine):
            self._check_inside("line", prompt.slice_index, [prompt.x0, prompt.x1], [prompt.y0, prompt.y1])
            return self._clipped(prompt.to_box())
        else:
            self._check_inside("box", prompt.slice_index, [prompt.x0, prompt.x1], [prompt.y0, prompt.y1])
        return prompt

    def check_name(self, name: str) -> None:
        """Whether an object can be called that."""
        if not (isinstance(name, str) and name.strip()):
            raise PromptError("An object needs a name; give one before the first prompt.")

    def range(self, first: int | None, last: int | None) -> tuple[int, int]:
        """First and last slice, inclusive; None stands for the end of the volume."""
        low, high = 0 if first is None else first, self.count - 1 if last is None else last
        if not 0 <= low <= high < self.count:
            raise OptionError(f"A slice range is FIRST:LAST within 0:{self.count - 1}, but {low}:{high} came.")
        return low, high

    def slices(self, indices: Iterable[int]) -> list[int]:
        """Slice indices, as Python's own integers."""
        checked = list(indices)
        for index in checked:
            if not isinstance(index, (int, np.integer)) or isinstance(index, bool) or not 0 <= index < self.count:
                raise OptionError(f"Slices are whole numbers within 0..{self.count - 1}, but {index!r} came.")
        return [int(index) for index in checked]

    @property
    def _noun(self) -> str:
        return "image" if self.images else "slice"

    def _check_index(self, index: int) -> None:
        if not isinstance(index, (int, np.integer)) or not 0 <= index < self.count:
            where = "" if self.images else " along the slicing axis"
            advice = "give another image" if self.images else "give another slice, or choose another slicing axis"
            raise PromptError(
                f"The {self._noun} index is a whole number within 0..{self.count - 1}{where}, but {index} came; {advice}."
            )

    def _check_mask(self, prompt: MaskPrompt) -> None:
        shape = self.shape_of(prompt.slice_index)
        if prompt.mask.shape != shape:
            doubt = "is it of another image?" if self.images else "is it of another slicing axis?"
            raise PromptError(
                f"The mask prompt must have the {self._noun}'s {shape} rows and columns, but it has {prompt.mask.shape}; {doubt}"
            )
        if prompt.mask.dtype != bool:
            raise PromptError(f"A mask prompt is of type bool, but {prompt.mask.dtype} came; compare it with the label's value.")

    def _check_inside(self, what: str, index: int, xs: Sequence[float], ys: Sequence[float]) -> None:
        rows, columns = self.shape_of(index)
        if min(xs) < -0.5 or min(ys) < -0.5 or max(xs) > columns - 0.5 or max(ys) > rows - 0.5:
            given = " ".join(f"{x:g},{y:g}" for x, y in zip(xs, ys, strict=True))
            other = "another image" if self.images else "another slicing axis"
            raise PromptError(
                f"The {what} must lie on the {self._noun}, X (column) within 0..{columns - 1} and Y (row) within "
                f"0..{rows - 1}, but {given} came; is X,Y the other way round, or is it {other}?"
            )

    def _clipped(self, box: Box) -> Box:
        rows, columns = self.shape_of(box.slice_index)
        x0, x1 = (min(max(x, 0), columns - 1) for x in (box.x0, box.x1))
        y0, y1 = (min(max(y, 0), rows - 1) for y in (box.y0, box.y1))
        return Box(box.slice_index, x0, y0, x1, y1)
