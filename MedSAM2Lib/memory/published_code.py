"""The self-sorting memory as the published code of Medical SAM 2 has it (its 2D part; its 3D part has none).

It departs from the paper: every memory is admitted until the bank is full; later a new one can only take the place of one
that another resembles; and a few memories are drawn by a softmax over similarities, and carry no time. Left out are slips
that the rule does not need: embeddings flattened in different orders, which made every similarity about 0; draws without
a seed; a bank that outlives its volume. Prompted slices and object pointers are as in `SelfSortingBank`.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from MedSAM2Lib.memory.entry import MemoryEntry
from MedSAM2Lib.memory.options import SelfSorting
from MedSAM2Lib.memory.self_sorting import SelfSortingBank, random_draws, similarities

__all__ = ["PublishedCodeBank", "replaced_row"]

_CAPACITY = 16
_DRAWS = 4  # as many as there are images in a batch, which by default is four
_CONFIDENCE_LOST = 0.1  # expected IoU that a new memory may have less than the one it replaces


def replaced_row(new: Tensor, new_iou: float, embeddings: Tensor, ious: list[float]) -> int | None:
    """Which of the embeddings (n, d) with their expected IoUs makes room for a new one (d,); None: the new one goes.

    With i the row least like the new one, and j the row most like row i, j goes where the new one resembles i less than j
    does, at a confidence that is hardly lower.
    """
    like_new = similarities(new, embeddings)
    furthest = int(like_new.argmin())
    like_furthest = similarities(embeddings[furthest], embeddings)
    like_furthest[furthest] = -torch.inf
    twin = int(like_furthest.argmax())
    brings_more = bool(like_new[furthest] < like_furthest[twin])
    return twin if brings_more and new_iou > ious[twin] - _CONFIDENCE_LOST else None


@dataclass
class PublishedCodeBank(SelfSortingBank):
    rule: SelfSorting = field(default=SelfSorting(capacity=_CAPACITY, slots="timeless", resample="random"))

    def admit(self, entry: MemoryEntry, direction: int) -> None:
        if len(self.tracked) == self.capacity:
            known = [kept for kept, _ in self.tracked.values()]
            embeddings = torch.stack([self.embedding(kept) for kept in known])
            row = replaced_row(self.embedding(entry), float(entry.iou), embeddings, [float(kept.iou) for kept in known])
            if row is None:
                return
            del self.tracked[known[row].slice_index]
        self.tracked[entry.slice_index] = entry, direction

    def drawn(self, current: Tensor, appearances: Tensor, generator: torch.Generator) -> list[int]:
        return random_draws(similarities(current, appearances).softmax(0), _DRAWS, generator)
