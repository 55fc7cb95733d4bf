"""One object on one slice: prompted, corrected, or tracked from its memories.

The semantics are those SAM 2 and MedSAM2 were trained with, where Meta's predictor in its default settings departs
from them (a correction on a tracked slice is lost on the next pass, facebookresearch/sam2 issues 719 and 731):

* the first prompt on a slice that was never tracked sees no memory;
* a prompt on a slice that was tracked is a correction: it sees the memories of the direction the slice was tracked in,
  and the slice's previous logits as a mask prompt;
* every prompted slice is conditioning afterwards.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor

from MedSAM2Lib.inference.conditioning import condition
from MedSAM2Lib.memory.bank import MemoryBank
from MedSAM2Lib.memory.entry import MemoryEntry
from MedSAM2Lib.network.sam2 import SAM2, ImageFeatures, MaskPrediction, PointTensors

__all__ = ["Tracker"]

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

    def prompt(
        self, slice_index: int, features: ImageFeatures, points: PointTensors, previous_logits: Tensor | None = None
    ) -> MaskPrediction:
        """The mask from clicks or a box; the slice becomes conditioning.

        previous_logits  (B, 1, S / 4, S / 4) of this slice, where it has a mask that these points correct
        """
        if previous_logits is not None:
            previous_logits = previous_logits.clamp(-PREVIOUS_LOGITS_BOUND, PREVIOUS_LOGITS_BOUND)
        direction = self.tracked_direction.get(slice_index)
        if direction is None:
            conditioned = self.network.without_memory(features.stride16)
        else:
            conditioned = self._condition(slice_index, features, direction)
        prediction = self.network.predict(conditioned, features, points, previous_logits)
        self._remember_prompted(slice_index, features, prediction)
        return prediction

    def adopt_mask(self, slice_index: int, features: ImageFeatures, mask: Tensor) -> MaskPrediction:
        """Takes a person's mask (B, 1, S, S) as the slice's answer; the slice becomes conditioning."""
        prediction = self.network.adopt_mask(features, mask)
        self._remember_prompted(slice_index, features, prediction)
        return prediction

    def track(self, slice_index: int, features: ImageFeatures, direction: int) -> MaskPrediction:
        """The mask from memories alone, going in `direction` (+1 or -1)."""
        prediction = self.network.predict(self._condition(slice_index, features, direction), features)
        entry = self._entry(slice_index, features, prediction, prompted=False)
        self.bank.insert(entry, direction)
        self.tracked_direction[slice_index] = direction
        return prediction

    def start_pass(self, direction: int) -> None:
        """Forgets what the last pass in this direction left, so that passes do not depend on earlier ones."""
        self.bank.forget_tracked(direction)
        for slice_index in self.bank.conditioning:
            self.tracked_direction[slice_index] = direction

    def reframe(self, encode: Callable[[int], ImageFeatures], logits_of: Callable[[int], Tensor], direction: int, upto: int) -> None:
        """Makes the memories anew after the window on the slices has moved.

        encode     features of a slice through the new window
        logits_of  (B, 1, S / 4, S / 4) stored logits of a slice, resampled to the new window
        upto       the slice that the pass goes on from; only memories it can see are made
        """
        for index, entry in list(self.bank.conditioning.items()):
            self.bank.conditioning[index] = self._remade(entry, encode(index), logits_of(index), prompted=True)
        selection = self.bank.select(upto, direction, self.slice_count)
        for entry, _ in selection.maps:
            if entry.slice_index not in self.bank.conditioning:
                index = entry.slice_index
                self.bank.insert(self._remade(entry, encode(index), logits_of(index), prompted=False), direction)

    def _remade(self, entry: MemoryEntry, features: ImageFeatures, logits: Tensor, prompted: bool) -> MemoryEntry:
        memory = self.network.encode_memory(features.stride16, logits, entry.object_score, prompted)
        return MemoryEntry(entry.slice_index, self._stored(memory), entry.pointer, entry.iou, entry.object_score)

    def _condition(self, slice_index: int, features: ImageFeatures, direction: int) -> Tensor:
        selection = self.bank.select(slice_index, direction, self.slice_count)
        return condition(self.network, features.stride16, selection, self.slice_count)

    def _remember_prompted(self, slice_index: int, features: ImageFeatures, prediction: MaskPrediction) -> None:
        self.bank.add_conditioning(self._entry(slice_index, features, prediction, prompted=True))

    def _entry(self, slice_index: int, features: ImageFeatures, prediction: MaskPrediction, prompted: bool) -> MemoryEntry:
        memory = self.network.encode_memory(features.stride16, prediction.logits, prediction.object_score, prompted)
        return MemoryEntry(slice_index, self._stored(memory), prediction.pointer, prediction.iou, prediction.object_score)

    def _stored(self, memory: Tensor) -> Tensor:
        return memory if self.memory_dtype is None else memory.to(self.memory_dtype)
