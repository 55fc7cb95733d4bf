"""Memories kept by worth, not by time: the self-sorting memory bank of Medical SAM 2 (Zhu et al., arXiv 2408.00874).

A slice's memory is admitted when the network trusts its mask; of those admitted, the ones most unlike the others stay
(equations 2 and 3); before a slice looks at them, they are resampled in favour of those that look like it (4 and 5).
Prompted slices are always kept and always shown, and the bank is filled from both directions, so the paper's equation 6
is `conditioning.condition` on what `SelfSortingBank.select` gives.

Embeddings are rows of (n, d) float tensors. Of equal values the one that came first wins, so the same input gives the
same memory.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import torch
from torch import Tensor
from torch.nn import functional as F

from MedSAM2Lib.memory.bank import RecentBank, Selection
from MedSAM2Lib.memory.entry import MemoryEntry, appearance
from MedSAM2Lib.memory.options import SelfSorting

__all__ = [
    "SelfSortingBank",
    "confidence",
    "likeliest_draws",
    "mean_similarity",
    "most_dissimilar",
    "random_draws",
    "resampling_probabilities",
    "similarities",
    "total_dissimilarity",
]

# ── the paper's equations ─────────────────────────────────────────────────────────────────────────────────────────────


def similarities(one: Tensor, embeddings: Tensor) -> Tensor:
    """Cosine of the angle between one embedding (d,) and each of (n, d): (n,), -1..1."""
    return F.cosine_similarity(one[None], embeddings, dim=1)


def total_dissimilarity(embeddings: Tensor) -> Tensor:
    """Equation 2, (n,): of each embedding, the sum over the others of 1 - similarity."""
    directions = F.normalize(embeddings, dim=1)
    dissimilarity = 1 - directions @ directions.T
    return dissimilarity.sum(1) - dissimilarity.diagonal()


def mean_similarity(embeddings: Tensor) -> float:
    """Of every two embeddings; 1 for a single one."""
    pairs = len(embeddings) * (len(embeddings) - 1)
    return 1 - float(total_dissimilarity(embeddings).sum()) / pairs if pairs else 1.0


def most_dissimilar(embeddings: Tensor, count: int, always: int = 0) -> list[int]:
    """Equation 3: the `count` rows of highest total dissimilarity, in ascending order; all where there are no more.

    always  first rows that stay in any case: they count among the others of every row, and are not returned
    """
    best_first = total_dissimilarity(embeddings)[always:].argsort(descending=True, stable=True)
    return sorted((best_first[:count] + always).tolist())


def resampling_probabilities(current: Tensor, embeddings: Tensor, sharpness: float = 1.0) -> Tensor:
    """Equation 4, (n,): how likely each embedding is drawn for the current one (d,), in proportion to its similarity.

    The paper does not say what a negative similarity means; here it is none. Where all are, each is as likely.

    sharpness  power to which similarities are raised; 1 as in the paper
    """
    weights = similarities(current, embeddings).clamp_min(0) ** sharpness
    if not weights.any():
        weights = torch.ones_like(weights)
    return weights / weights.sum()


def random_draws(probabilities: Tensor, count: int, generator: torch.Generator) -> list[int]:
    """Equation 5: `count` rows, each drawn with its probability, with replacement."""
    return torch.multinomial(probabilities, count, replacement=True, generator=generator).tolist()


def likeliest_draws(probabilities: Tensor, count: int) -> list[int]:
    """Equation 5 without chance: the rows that are the most probable outcome of `count` draws, in ascending order.

    That is the mode of the multinomial distribution. Its probability is a product of p^n / n! over the rows, so each
    further draw goes where it multiplies it most: to the largest p / (n + 1).
    """
    drawn = torch.zeros_like(probabilities)
    for _ in range(count):
        drawn[(probabilities / (drawn + 1)).argmax()] += 1
    return torch.arange(len(drawn)).repeat_interleave(drawn.long()).tolist()


# ── the bank ──────────────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass
class SelfSortingBank:
    """The memories of one object (B = 1), kept by worth. Both directions fill it and look at it.

    recent  SAM 2's own memory. It keeps the prompted slices, and says which object pointers are seen: the paper does not
            speak of them, and nano is lost without those of the last slices
    """

    recent: RecentBank
    rule: SelfSorting = field(default_factory=SelfSorting)
    tracked: dict[int, tuple[MemoryEntry, int]] = field(default_factory=dict)  # with the direction of each; oldest first

    @property
    def conditioning(self) -> dict[int, MemoryEntry]:
        return self.recent.conditioning

    @property
    def capacity(self) -> int:
        return self.rule.capacity or self.recent.slots - 1

    def insert(self, entry: MemoryEntry, direction: int) -> None:
        self.recent.insert(entry, direction)
        self.tracked.pop(entry.slice_index, None)
        self.admit(entry, direction)

    def add_conditioning(self, entry: MemoryEntry) -> None:
        self.forget(entry.slice_index)
        self.recent.add_conditioning(entry)

    def forget(self, slice_index: int) -> None:
        self.recent.forget(slice_index)
        self.tracked.pop(slice_index, None)

    def forget_tracked(self, direction: int) -> None:
        self.recent.forget_tracked(direction)
        self.tracked = {index: pair for index, pair in self.tracked.items() if pair[1] != direction}

    def renew(self, entry: MemoryEntry) -> None:
        self.recent.renew(entry)
        if entry.slice_index in self.tracked:
            self.tracked[entry.slice_index] = entry, self.tracked[entry.slice_index][1]

    def select(self, slice_index: int, direction: int, slice_count: int, stride16: Tensor) -> Selection:
        known = [entry for index, (entry, _) in self.tracked.items() if index != slice_index]
        shown = self._resampled(known, slice_index, direction, stride16) if known else []
        maps = [(entry, self.recent.slots - 1) for entry in self.conditioning.values()]
        maps += [(entry, self._slot(entry, slice_index)) for entry in shown]
        pointers = self.recent.select(slice_index, direction, slice_count, stride16).pointers
        return Selection(maps, pointers)

    def tracked_entries(self) -> list[tuple[MemoryEntry, int, bool]]:
        shown = [(entry, direction, True) for entry, direction in self.tracked.values()]
        others = [
            (entry, direction, False)
            for entry, direction, _ in self.recent.tracked_entries()
            if entry.slice_index not in self.tracked
        ]
        return shown + others

    def put_back(self, entry: MemoryEntry, direction: int, shown: bool) -> None:
        self.recent.insert(entry, direction)
        if shown:
            self.tracked[entry.slice_index] = entry, direction

    def copy(self) -> SelfSortingBank:
        return replace(self, recent=self.recent.copy(), tracked=dict(self.tracked))

    def admit(self, entry: MemoryEntry, direction: int) -> None:
        """Takes a slice's memory in, if it is worth it; of more than K, one goes."""
        trusted = confidence(entry) >= self.rule.threshold
        if not trusted and not (self.rule.fill and len(self.tracked) < self.capacity):
            return
        self.tracked[entry.slice_index] = entry, direction
        candidates = list(self.tracked)
        staying = candidates[-self.capacity :] if self.rule.keep == "recent" else self._most_dissimilar(candidates)
        self.tracked = {index: self.tracked[index] for index in staying}

    def drawn(self, current: Tensor, appearances: Tensor, generator: torch.Generator) -> list[int]:
        """Which memories a slice gets to see that looks like `current` (d,), by what their slices look like (n, d)."""
        probabilities = resampling_probabilities(current, appearances, self.rule.sharpness).cpu()
        if self.rule.resample == "likeliest":
            return likeliest_draws(probabilities, len(appearances))
        return random_draws(probabilities, len(appearances), generator)

    def embedding(self, entry: MemoryEntry) -> Tensor:
        """(d,) float32: what memories are compared by."""
        embedding: Tensor | None = getattr(entry, self.rule.compare)
        return _flat(embedding)

    def _most_dissimilar(self, candidates: list[int]) -> list[int]:
        """Of slice indices of tracked entries, the K that stay."""
        always = list(self.conditioning.values())
        entries = [*always, *(self.tracked[index][0] for index in candidates)]
        rows = most_dissimilar(torch.stack([self.embedding(entry) for entry in entries]), self.capacity, len(always))
        return [candidates[row - len(always)] for row in rows]

    def _resampled(self, known: list[MemoryEntry], slice_index: int, direction: int, stride16: Tensor) -> list[MemoryEntry]:
        if self.rule.resample == "no":
            return known
        appearances = torch.stack([_flat(entry.appearance) for entry in known])
        generator = _generator(self.rule.seed, slice_index, direction)
        return [known[row] for row in self.drawn(_flat(appearance(stride16)), appearances, generator)]

    def _slot(self, entry: MemoryEntry, slice_index: int) -> int:
        last = self.recent.slots - 1
        return last if self.rule.slots == "timeless" else min(abs(slice_index - entry.slice_index), last) - 1


def confidence(entry: MemoryEntry) -> float:
    """0..1: the expected IoU times the probability that the object is on the slice."""
    return float((entry.iou * entry.object_score.sigmoid()).detach())


def _flat(embedding: Tensor | None) -> Tensor:
    assert embedding is not None, "the tracker notes what its slices look like"
    return embedding.detach().flatten().float()  # in training, choosing among memories has no gradient


def _generator(seed: int, slice_index: int, direction: int) -> torch.Generator:
    """Of a slice alone, so that its draws do not depend on which slices were looked at before."""
    # torch's generator takes 32 bits of a seed. The prime keeps the slices of neighbouring seeds apart.
    return torch.Generator().manual_seed((seed * 1_000_003 + 2 * slice_index + (direction > 0)) % 2**32)
