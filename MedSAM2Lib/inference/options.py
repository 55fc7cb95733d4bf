"""How a session segments."""

from __future__ import annotations

import math
from dataclasses import dataclass

from MedSAM2Lib.depth_prior import DepthPrior
from MedSAM2Lib.errors import OptionError
from MedSAM2Lib.memory.options import MEMORIES, Memory, SelfSorting

__all__ = ["SessionOptions"]


@dataclass(frozen=True)
class SessionOptions:
    """Defaults suit a person in a hurry; each can be switched off."""

    zoom: float | None = None  # side of the view in sides of the prompt's box; None: the whole slice, as SAM 2 does
    depth_prior: DepthPrior | None = None  # how deep objects are expected to be; None: no expectation, as in SAM 2
    drafts: bool = True  # passes take drafts of the object along, where the network makes them
    memory: Memory = "recent"  # which slices a slice gets to see: the last ones as in SAM 2, or those worth most
    stop_after: int = 3  # a direction ends after this many slices in a row without the object; 0: never
    agreement: float = 0.99  # after a correction, Dice with the old mask at which a slice counts as unchanged; 0: none does
    fill_hole_cells: int = 8  # background specks of up to this many cells of the grid of logits are filled (SAM 2); 0: none
    keep_largest: bool = True  # of an object's 3D mask, keep only the largest piece of each prompted or locked slice
    cache_bytes: int = 2 * 10**9  # image features kept
    history_bytes: int = 2**29  # of what only undone steps and steps to undo hold; beyond it the oldest steps go
    encoder_batch: int | None = None  # slices encoded at once; None: 1 on a CPU, 8 on a GPU

    def __post_init__(self) -> None:
        if self.zoom is not None and not 1 <= self.zoom < math.inf:
            raise OptionError(f"The zoom is None for the whole slice, or a number from 1, but {self.zoom} came.")
        if self.memory not in MEMORIES and not isinstance(self.memory, SelfSorting):
            raise OptionError(f"The memory is one of {', '.join(MEMORIES)}, or a SelfSorting, but {self.memory!r} came.")
        if not 0 <= self.agreement <= 1:
            raise OptionError(f"The agreement is a Dice within 0..1, 0 for none, but {self.agreement} came.")
        least = {"stop_after": 0, "fill_hole_cells": 0, "cache_bytes": 0, "history_bytes": 0, "encoder_batch": 1}
        for name, lowest in least.items():
            value = getattr(self, name)
            if value is not None and value < lowest:
                raise OptionError(f"The option {name} must be at least {lowest}, but {value} came.")
