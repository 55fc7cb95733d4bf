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

from collections.abc import Callable
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from MedSAM2Lib.frames import View
from MedSAM2Lib.inference.conditioning import condition
from MedSAM2Lib.memory.bank import MemoryBank
from MedSAM2Lib.memory.entry import MemoryEntry
from MedSAM2Lib.network.sam2 import SAM2, ImageFeatures, MaskPrediction, PointTensors

__all__ = ["ROUGH_MASK_BOUND", "Tracker"]

ROUGH_MASK_BOUND = 10.0  # likewise for the mask of a neighbouring slice, which is no more than a hint
PREVIOUS_LOGITS_BOUND = 32.0  # previous logits are clamped to +- this before they become a mask prompt (SAM 2)


@dataclass
class Tracker:
    """Follows one object (or, in training, one object per clip of a batch) from slice to slice.

    memory_dtype  how memory maps are stored. SAM 2 keeps bfloat16 even in float32 runs; training keeps what it gets,
                  because gradients flow through the maps.
    """

    network: SAM2
    bank: MemoryBank
    slice_count: int
    memory_dtype: torch.dtype | None = torch.bfloat16
    tracked_direction: dict[int, int] = field(default_factory=dict)  # slice index -> direction of its last pass
    # By slice index, of slices prompted since the last pass: features (B, C, h, w), answer and view. A memory is made of
    # them when the pass begins, so that a person who clicks does not wait for it.
    pending: dict[int, tuple[Tensor, MaskPrediction, View | None]] = field(default_factory=dict)

    def copy(self) -> Tracker:
        """A tracker that can be changed without changing this one; the network and the tensors are shared."""
        return replace(self, bank=self.bank.copy(), tracked_direction=dict(self.tracked_direction), pending=dict(self.pending))

    def prompt(
        self,
        slice_index: int,
        features: ImageFeatures,
        points: PointTensors,
        previous_logits: Tensor | None = None,
        view: View | None = None,
    ) -> MaskPrediction:
        """The mask from clicks or a box; the slice is conditioning from the next pass on.

        previous_logits  (B, 1, S / 4, S / 4) of this slice, where it has a mask that these points correct
        view             through which the features see the slice, where there is more than one way
        """
        if previous_logits is not None:
            previous_logits = previous_logits.clamp(-PREVIOUS_LOGITS_BOUND, PREVIOUS_LOGITS_BOUND)
        direction = self.tracked_direction.get(slice_index)
        if direction is None:
            conditioned = self.network.without_memory(features.stride16)
        else:
            conditioned = self._condition(slice_index, features, direction)
        prediction = self.network.predict(conditioned, features, points, previous_logits)
        self.pending[slice_index] = features.stride16, prediction, view
        return prediction

    def adopt_mask(self, slice_index: int, features: ImageFeatures, mask: Tensor, view: View | None = None) -> MaskPrediction:
        """Takes a person's mask (B, 1, S, S) as the slice's answer; the slice is conditioning from the next pass on."""
        prediction = self.network.adopt_mask(features, mask)
        self.pending[slice_index] = features.stride16, prediction, view
        return prediction

    def track(
        self,
        slice_index: int,
        features: ImageFeatures,
        direction: int,
        neighbour_logits: Tensor | None = None,
        view: View | None = None,
        doubt: float = 0.0,
    ) -> MaskPrediction:
        """The mask from memories alone, going in `direction` (+1 or -1). `doubt` as in `SAM2.predict`.

        neighbour_logits  (B, 1, S / 4, S / 4) of the slice before, for a network that follows its mask; others ignore it
        """
        self.settle()
        rough_mask = None
        if self.network.config.follow_mask and neighbour_logits is not None:
            rough_mask = neighbour_logits.clamp(-ROUGH_MASK_BOUND, ROUGH_MASK_BOUND)
        conditioned = self._condition(slice_index, features, direction)
        prediction = self.network.predict(conditioned, features, mask=rough_mask, doubt=doubt)
        entry = self._entry(slice_index, features.stride16, prediction, view, prompted=False)
        self.bank.insert(entry, direction)
        self.tracked_direction[slice_index] = direction
        return prediction

    def settle(self) -> None:
        """What was prompted since the last pass takes its place among the memories."""
        for slice_index, (stride16, prediction, view) in self.pending.items():
            self.bank.add_conditioning(self._entry(slice_index, stride16, prediction, view, prompted=True))
        self.pending.clear()

    def start_pass(self, direction: int) -> None:
        """Forgets what the last pass in this direction left, so that passes do not depend on earlier ones."""
        self.settle()
        self.bank.forget_tracked(direction)
        for slice_index in self.bank.conditioning:
            self.tracked_direction[slice_index] = direction

    def forget(self, slice_index: int) -> None:
        """As if the slice had never been segmented."""
        self.bank.forget(slice_index)
        self.tracked_direction.pop(slice_index, None)
        self.pending.pop(slice_index, None)

    def reframe(
        self,
        slice_index: int,
        direction: int,
        view: View | None,
        encode: Callable[[int], ImageFeatures],
        logits_of: Callable[[int], Tensor],
    ) -> None:
        """Makes the memories that a slice will see anew where they were made through another view.

        slice_index  the slice that goes on in `direction`
        view         the one through which the slice will be seen
        encode       features of a slice through that view
        logits_of    (B, 1, S / 4, S / 4) logits of a slice as seen through that view; where a person has spoken since the
                     memory was made, they may be the newer ones
        """
        for entry, _ in self.bank.select(slice_index, direction, self.slice_count).maps:
            index = entry.slice_index
            if entry.view == view:
                continue
            prompted = index in self.bank.conditioning
            memory = self.network.encode_memory(encode(index).stride16, logits_of(index), entry.object_score, prompted)
            remade = replace(entry, map=self._stored(memory), view=view)
            if prompted:
                self.bank.conditioning[index] = remade
            else:
                self.bank.insert(remade, direction)

    def _condition(self, slice_index: int, features: ImageFeatures, direction: int) -> Tensor:
        selection = self.bank.select(slice_index, direction, self.slice_count)
        return condition(self.network, features.stride16, selection, self.slice_count)

    def _entry(
        self, slice_index: int, stride16: Tensor, prediction: MaskPrediction, view: View | None, prompted: bool
    ) -> MemoryEntry:
        score = prediction.object_score
        memory = self._stored(self.network.encode_memory(stride16, prediction.logits, score, prompted))
        return MemoryEntry(slice_index, memory, prediction.pointer, prediction.iou, score, view)

    def _stored(self, memory: Tensor) -> Tensor:
        return memory if self.memory_dtype is None else memory.to(self.memory_dtype)
