"""Which rule of memory a session follows, and what the self-sorting rule's paper leaves open. No torch here: for `--help`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from MedSAM2Lib.errors import OptionError

__all__ = ["MEMORIES", "NAMED_RULES", "Memory", "MemoryName", "SelfSorting"]

# random: eq. 5 by chance, as in the paper. code: the rule of the paper's published code
MemoryName = Literal["recent", "self-sorting", "self-sorting-random", "self-sorting-code"]
MEMORIES: tuple[MemoryName, ...] = get_args(MemoryName)

_Keep = Literal["recent", "dissimilar"]
_Resample = Literal["no", "likeliest", "random"]
_Compare = Literal["map", "pointer", "appearance"]
_Slots = Literal["distance", "timeless"]


@dataclass(frozen=True)
class SelfSorting:
    """The rule, and what the paper leaves open of it. docs/memory.md measures the choices.

    capacity    K: tracked slices remembered, beside all prompted ones; None: as many as the network was trained to see
    threshold   least confidence to be admitted, 0..1: the expected IoU times the probability that the object is there, for
                the expected IoU of an absent object means nothing. The paper does not give its value. Low, because nano
                expects IoUs of a half where its masks are good: a higher one freezes its memory soon after the prompt
    fill        slices below the threshold are admitted too while fewer than K are there; else, as in the paper, the
                bank stays as it is, and a network that trusts itself little works from the prompted slices alone
    keep        which K stay: those of highest total dissimilarity, prompted slices counted among the others; or, to tell
                what the threshold alone does, the last ones
    compare     by what memories are compared: memory maps (the paper's E), object pointers, or what slices look like
    resample    no: each memory is shown once. likeliest: as many draws as there are memories, in their most probable
                outcome. random: as many draws, by chance, the same for the same seed and slice
    sharpness   power of the similarity by which memories are drawn. The paper's is 1, but cosines of image features lie so
                close together that then the most probable outcome is each memory once
    slots       temporal position of a map: its distance in slices, to which the network is used; or timeless, that of a
                prompted slice, for sets of images without order
    """

    capacity: int | None = None
    threshold: float = 0.2
    fill: bool = True
    keep: _Keep = "dissimilar"
    compare: _Compare = "map"
    resample: _Resample = "likeliest"
    sharpness: float = 8.0
    slots: _Slots = "distance"
    seed: int = 0

    def __post_init__(self) -> None:
        if self.capacity is not None and self.capacity < 1:
            raise OptionError(f"The memory's capacity must be at least 1, but {self.capacity} came.")
        if not 0 <= self.threshold <= 1:
            raise OptionError(f"The memory's threshold is a confidence within 0..1, but {self.threshold:g} came.")
        if not self.sharpness > 0:
            raise OptionError(f"The memory's sharpness must be above 0, but {self.sharpness:g} came.")
        for name, kind in (("keep", _Keep), ("compare", _Compare), ("resample", _Resample), ("slots", _Slots)):
            if getattr(self, name) not in get_args(kind):
                raise OptionError(f"The memory's {name} is one of {', '.join(get_args(kind))}, but {getattr(self, name)!r} came.")


Memory = MemoryName | SelfSorting  # by name, with the defaults; or the self-sorting rule with others
NAMED_RULES: dict[MemoryName, SelfSorting] = {
    "self-sorting": SelfSorting(),
    "self-sorting-random": SelfSorting(resample="random", sharpness=1.0),
}
