"""One object on one slice: prompted, corrected, or tracked from its memories.

The semantics are those SAM 2 and MedSAM2 were trained with, where Meta's predictor in its default settings departs
from them (a correction on a tracked slice is lost on the next pass, facebookresearch/sam2 issues 719 and 731):

* the first prompt on a slice that was never tracked sees no memory;
* a prompt on a slice that was tracked is a correction: it sees the memories of the direction the slice was tracked in,
  and the slice's previous logits as a mask prompt;
* a prompted slice is conditioning for every pass that starts after its prompts; until then its prompts see the memories
  as the last pass left them, so a second click does not see what the first one made.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor
from torch.nn import functional as F

from MedSAM2Lib.frames import View
from MedSAM2Lib.inference.conditioning import condition
from MedSAM2Lib.inference.late_memory import LateMemory, Parts
from MedSAM2Lib.memory.bank import MemoryBank, Selection
from MedSAM2Lib.memory.entry import MemoryEntry, appearance
from MedSAM2Lib.network.sam2 import NO_OBJECT_LOGIT, SAM2, ImageFeatures, MaskPrediction, PointTensors, SliceDepth

__all__ = ["ROUGH_MASK_BOUND", "Tracker", "absent"]

ROUGH_MASK_BOUND = 10.0  # likewise for the mask of a neighbouring slice, which is no more than a hint
PREVIOUS_LOGITS_BOUND = 32.0  # previous logits are clamped to +- this before they become a mask prompt (SAM 2)


def absent(network: SAM2, prediction: MaskPrediction) -> MaskPrediction:
    """The answer of a network that is sure enough of its opposite: the object is not on this slice."""
    return prediction._replace(
        logits=torch.full_like(prediction.logits, NO_OBJECT_LOGIT),
        object_score=-prediction.object_score.abs(),
        pointer=network.no_obj_ptr.expand_as(prediction.pointer),
    )


@dataclass
class Tracker:
    """Follows one object (or, in training, one object per clip of a batch) from slice to slice.

    `prompt`, `adopt_mask` and `track` answer and remember. Who changes an answer before it is remembered (`Session` cleans
    masks) asks for it by `answer_points`, `network.adopt_mask` and `answer`, and remembers by `expect` and `remember`.

    memory_dtype  how memory maps are stored. SAM 2 keeps bfloat16 even in float32 runs; training keeps what it gets,
                  because gradients flow through the maps.
    ordered       slices are those of a volume; the images of a set are near where they look alike
    """

    network: SAM2
    bank: MemoryBank
    slice_count: int
    memory_dtype: torch.dtype | None = torch.bfloat16
    ordered: bool = True
    tracked_direction: dict[int, int] = field(default_factory=dict)  # slice index -> direction of its last pass
    # By slice index, of slices prompted since the last pass: they become conditioning when the next one begins. Their
    # memories are made then, so that a person who clicks does not wait for it.
    pending: dict[int, MemoryEntry] = field(default_factory=dict)

    def copy(self) -> Tracker:
        """A tracker that can be changed without changing this one; the network and the tensors are shared."""
        return replace(self, bank=self.bank.copy(), tracked_direction=dict(self.tracked_direction), pending=dict(self.pending))

    # ── an answer, remembered ─────────────────────────────────────────────────────────────────────────────────

    def prompt(
        self,
        slice_index: int,
        features: ImageFeatures,
        points: PointTensors,
        previous_logits: Tensor | None = None,
        view: View | None = None,
    ) -> MaskPrediction:
        """The mask from clicks or a box; the slice is conditioning from the next pass on.

        previous_logits  (B, 1, L, L) of this slice, where it has a mask that these points correct
        view             through which the features see the slice, where there is more than one way
        """
        prediction = self.answer_points(slice_index, features, points, previous_logits)
        self.expect_answer(slice_index, features, prediction, view)
        return prediction

    def adopt_mask(self, slice_index: int, features: ImageFeatures, mask: Tensor, view: View | None = None) -> MaskPrediction:
        """Takes a person's mask (B, 1, S, S) as the slice's answer; the slice is conditioning from the next pass on."""
        prediction = self.network.adopt_mask(features, mask)
        self.expect_answer(slice_index, features, prediction, view)
        return prediction

    def track(
        self,
        slice_index: int,
        features: ImageFeatures,
        direction: int,
        neighbour_logits: Tensor | None = None,
        view: View | None = None,
        doubt: float = 0.0,
        depth: SliceDepth | None = None,
    ) -> MaskPrediction:
        """The mask from memories alone, going in `direction` (+1 or -1). `doubt` as in `SAM2.predict`.

        neighbour_logits  (B, 1, L, L) of the slice before, for a network that follows its mask; others ignore it
        depth             where the slice lies, for a network that minds it; None: it does not know
        """
        self.settle()
        prediction = self.answer(slice_index, features, direction, neighbour_logits, doubt, depth)
        entry = self._entry(slice_index, features, prediction, view, prompted=False)
        entry.look()  # while the features are at hand, rather than keep them
        self.remember(entry, direction)
        return prediction

    # ── an answer ─────────────────────────────────────────────────────────────────────────────────────────────

    def answer_points(
        self, slice_index: int, features: ImageFeatures, points: PointTensors, previous_logits: Tensor | None = None
    ) -> MaskPrediction:
        """As `prompt`, without remembering it."""
        if previous_logits is not None:
            previous_logits = previous_logits.clamp(-PREVIOUS_LOGITS_BOUND, PREVIOUS_LOGITS_BOUND)
        direction = self.tracked_direction.get(slice_index)
        if direction is None:
            conditioned = self.network.without_memory(features.stride16)
        else:
            conditioned = self._condition(slice_index, features, direction)
            features = self._recognised(slice_index, features)
        return self.network.predict(conditioned, features, points, previous_logits)

    def answer(
        self,
        slice_index: int,
        features: ImageFeatures,
        direction: int,
        neighbour_logits: Tensor | None = None,
        doubt: float = 0.0,
        depth: SliceDepth | None = None,
    ) -> MaskPrediction:
        """As `track`, without remembering it."""
        rough_mask = None
        if self.network.config.follow_mask and neighbour_logits is not None:
            rough_mask = neighbour_logits.clamp(-ROUGH_MASK_BOUND, ROUGH_MASK_BOUND)
        conditioned = self._condition(slice_index, features, direction)
        if depth is not None:
            conditioned = self.network.at_depth(conditioned, depth)
        features = self._recognised(slice_index, features)
        return self.network.predict(conditioned, features, mask=rough_mask, doubt=doubt)

    # ── what is remembered ────────────────────────────────────────────────────────────────────────────────────

    def expect(self, entry: MemoryEntry) -> None:
        """The entry's slice is conditioning from the next pass on; until then its memory is the one it has."""
        self.pending[entry.slice_index] = entry

    def expect_answer(self, slice_index: int, features: ImageFeatures, prediction: MaskPrediction, view: View | None) -> None:
        """The same of an answer to a prompt, with the image features of its slice."""
        self.expect(self._entry(slice_index, features, prediction, view, prompted=True))

    def remember(self, entry: MemoryEntry, direction: int) -> None:
        """The entry's slice was tracked in this direction."""
        self.bank.insert(entry, direction)
        self.tracked_direction[entry.slice_index] = direction

    def settle(self) -> None:
        """What was prompted since the last pass takes its place among the memories."""
        for entry in self.pending.values():
            self.bank.add_conditioning(entry)
        self.pending.clear()

    def start_pass(self, direction: int, again: Collection[int] | None = None) -> None:
        """Forgets what the last pass in this direction left, so that passes do not depend on earlier ones.

        again  only these slices are segmented again: the others' memories stay
        """
        self.settle()
        if again is None:
            self.bank.forget_tracked(direction)
        else:
            for slice_index in again:
                self.bank.forget(slice_index)
        for slice_index in self.bank.conditioning:
            self.tracked_direction[slice_index] = direction

    def forget(self, slice_index: int) -> None:
        """As if the slice had never been segmented."""
        self.bank.forget(slice_index)
        self.tracked_direction.pop(slice_index, None)
        self.pending.pop(slice_index, None)

    def stale(self, slice_index: int, features: ImageFeatures, direction: int, view: View) -> list[MemoryEntry]:
        """The memories that a slice going on in `direction` would see, but that were made through another view than its own.

        A bank may choose by what memories look like, so renewing some can bring others in sight: ask again then.
        """
        return [entry for entry, _ in self._select(slice_index, features, direction).maps if entry.view != view]

    def _recognised(self, slice_index: int, features: ImageFeatures) -> ImageFeatures:
        """Features that also know the object by its looks on the nearest prompted slice that has it."""
        here = None if self.ordered else appearance(features.stride16).flatten(1)

        def nearness(entry: MemoryEntry) -> float:
            if here is None or entry.appearance is None:
                return -abs(entry.slice_index - slice_index)
            return float(F.cosine_similarity(entry.appearance.flatten(1), here).mean())

        profile: Tensor | None = None
        for entry in sorted(self.bank.conditioning.values(), key=nearness):  # the nearest has the last word
            said = entry.grey_profile
            if entry.slice_index != slice_index and said is not None:
                profile = said if profile is None else torch.where(said.any(-1, keepdim=True), said, profile)
        return features if profile is None else self.network.recognised(features, profile)

    def _condition(self, slice_index: int, features: ImageFeatures, direction: int) -> Tensor:
        selection = self._select(slice_index, features, direction)
        return condition(self.network, features.stride16, selection, self.slice_count)

    def _select(self, slice_index: int, features: ImageFeatures, direction: int) -> Selection:
        return self.bank.select(slice_index, direction, self.slice_count, features.stride16)

    def _entry(
        self, slice_index: int, features: ImageFeatures, prediction: MaskPrediction, view: View | None, prompted: bool
    ) -> LateMemory:
        features = features.for_memory()

        def make() -> Parts:
            return Parts.of(self.network, features, prediction.logits, prediction.object_score, prompted, self.memory_dtype)

        return LateMemory(slice_index, prediction.pointer, prediction.iou, prediction.object_score, view, make)
