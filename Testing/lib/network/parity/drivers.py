"""Ours, Meta's and transformers' way of segmenting a volume, under one vocabulary, so that a test is one story told twice.

Every answer is a slice's (1, 1, S / 4, S / 4) logits. Slices are (T, 3, S, S) normalised images. Memory maps are kept in
`memory_dtype`: float32 shows that the arithmetic agrees, bfloat16 is what the references hard-code, and there two runs
that differ by one rounding differ by 1e-4 some slices later.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from functools import cache
from typing import Any, Protocol
from unittest import mock

import pytest
import torch
from torch import Tensor

from MedSAM2Lib.inference.tracker import Tracker
from MedSAM2Lib.memory.bank import RecentBank
from MedSAM2Lib.network.sam2 import SAM2, ImageFeatures, PointTensors

__all__ = ["Driver", "Meta", "Ours", "Transformers", "points"]


def points(*clicks: tuple[float, float, int]) -> PointTensors:
    """(x, y, label) each, in pixels of the network's image."""
    table = torch.tensor(clicks, dtype=torch.float32)
    return PointTensors(table[None, :, :2], table[None, :, 2].int())


def _rectangle(side: int) -> Tensor:
    """(S, S) bool; its edges do not lie on the S / 4 grid."""
    mask = torch.zeros(side, side, dtype=torch.bool)
    mask[side // 4 - 2 : side // 2 + 15, side // 3 - 1 : side - 25] = True
    return mask


class Driver(Protocol):
    def __init__(self, network: SAM2, slices: Tensor, memory_dtype: torch.dtype = torch.float32) -> None: ...

    def prompt(self, index: int, given: PointTensors) -> Tensor:
        """The answer to all the clicks and box corners of a slice, also those of earlier prompts."""

    def paint(self, index: int) -> Tensor:
        """The answer to a person's mask, which is always the same rectangle."""

    def propagate(self, order: Sequence[int], *, anew: bool = True) -> dict[int, Tensor]:
        """Goes through slices in order, upwards or downwards; prompted ones keep their answers.

        anew  ours forgets what earlier passes in this direction remember; the references never do, which makes no
              difference to a pass that starts at the first prompted slice
        """


class Ours:
    def __init__(self, network: SAM2, slices: Tensor, memory_dtype: torch.dtype = torch.float32) -> None:
        self.bank = RecentBank(network.config.memory_slots, network.config.max_object_pointers)
        self.tracker = Tracker(network, self.bank, len(slices), memory_dtype)
        with torch.no_grad():
            self.features: list[ImageFeatures] = [network.encode_image(image[None]) for image in slices]
        self.logits: dict[int, Tensor] = {}
        self.prompted: set[int] = set()

    @torch.no_grad()
    def prompt(self, index: int, given: PointTensors) -> Tensor:
        self.prompted.add(index)
        prediction = self.tracker.prompt(index, self.features[index], given, self.logits.get(index))
        self.logits[index] = prediction.logits
        return prediction.logits

    @torch.no_grad()
    def paint(self, index: int) -> Tensor:
        self.prompted.add(index)
        mask = _rectangle(self.tracker.network.config.image_size)[None, None]
        self.logits[index] = self.tracker.adopt_mask(index, self.features[index], mask).logits
        return self.logits[index]

    @torch.no_grad()
    def propagate(self, order: Sequence[int], *, anew: bool = True) -> dict[int, Tensor]:
        direction = 1 if order[-1] > order[0] else -1
        if anew:
            self.tracker.start_pass(direction)
        for index in order:
            if index not in self.prompted:
                self.logits[index] = self.tracker.track(index, self.features[index], direction).logits
        return {index: self.logits[index] for index in order}


def _memories_in(dtype: torch.dtype) -> AbstractContextManager[object]:
    """Both references write `torch.bfloat16` where they store a memory map."""
    return mock.patch.object(torch, "bfloat16", dtype)


@cache
def _meta_predictor(network: SAM2, keep_corrections: bool) -> Any:
    """Built once for a network: change its weights before, not after."""
    from MedSAM2Lib.benchmark.meta import meta_predictor

    return meta_predictor(network, keep_corrections=keep_corrections)


class Meta:
    def __init__(
        self, network: SAM2, slices: Tensor, memory_dtype: torch.dtype = torch.float32, *, keep_corrections: bool = True
    ) -> None:
        pytest.importorskip("sam2", reason="Meta's package sam2 1.1.0 is a reference that is installed apart")
        from MedSAM2Lib.benchmark.meta import meta_state

        self.memory_dtype = memory_dtype
        self.predictor = _meta_predictor(network, keep_corrections)
        side = network.config.image_size
        self.state: dict[str, Any] = meta_state(self.predictor, slices, side, side)

    def prompt(self, index: int, given: PointTensors) -> Tensor:
        self.predictor.add_new_points_or_box(self.state, index, 0, *given)
        return self._output("temp_output_dict_per_obj", index)

    def paint(self, index: int) -> Tensor:
        self.predictor.add_new_mask(self.state, index, 0, _rectangle(self.predictor.image_size))
        return self._output("temp_output_dict_per_obj", index)

    def propagate(self, order: Sequence[int], *, anew: bool = True) -> dict[int, Tensor]:
        from MedSAM2Lib.benchmark.meta import quiet_meta

        with _memories_in(self.memory_dtype), quiet_meta():
            frames = self.predictor.propagate_in_video(self.state, order[0], len(order) - 1, reverse=order[-1] < order[0])
            assert [index for index, *_ in frames] == list(order)
        return {index: self._output("output_dict_per_obj", index) for index in order}

    def _output(self, where: str, index: int) -> Tensor:
        outputs = self.state[where][0]
        record = outputs["cond_frame_outputs"].get(index) or outputs["non_cond_frame_outputs"][index]
        logits: Tensor = record["pred_masks"]
        return logits


@cache
def _transformers_model(network: SAM2) -> Any:
    """Likewise."""
    from MedSAM2Lib.benchmark.hugging_face import transformers_model

    return transformers_model(network)


class Transformers:
    def __init__(self, network: SAM2, slices: Tensor, memory_dtype: torch.dtype = torch.float32) -> None:
        pytest.importorskip("transformers", reason="transformers is a reference that only the tests need")
        from MedSAM2Lib.benchmark.hugging_face import open_session

        self.memory_dtype = memory_dtype
        self.model = _transformers_model(network)
        self.side = network.config.image_size
        self.session = open_session(slices)

    def prompt(self, index: int, given: PointTensors) -> Tensor:
        from MedSAM2Lib.benchmark.hugging_face import answer_points

        with _memories_in(self.memory_dtype):
            return answer_points(self.model, self.session, index, 0, *given)

    def paint(self, index: int) -> Tensor:
        mask = _rectangle(self.side)[None, None]
        self.session.add_mask_inputs(self.session.obj_id_to_idx(0), index, mask)
        self.session.obj_with_new_inputs = [0]
        with _memories_in(self.memory_dtype):
            logits: Tensor = self.model(self.session, frame_idx=index).pred_masks
        return logits

    def propagate(self, order: Sequence[int], *, anew: bool = True) -> dict[int, Tensor]:
        reverse = order[-1] < order[0]
        with _memories_in(self.memory_dtype):
            frames = list(self.model.propagate_in_video_iterator(self.session, order[0], len(order) - 1, reverse=reverse))
        return {frame.frame_idx: frame.pred_masks for frame in frames}
