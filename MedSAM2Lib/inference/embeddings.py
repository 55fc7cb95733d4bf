"""Image features per slice and view: encoded once, kept while a byte budget lasts, least recently used goes first."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt
import torch

from MedSAM2Lib.frames import View, slice_to_frame
from MedSAM2Lib.network.sam2 import SAM2, ImageFeatures

__all__ = ["Embeddings"]


class Embeddings:
    """Features of one volume through one intensity window.

    read_slice   slice index -> (rows, columns) uint8, already windowed
    byte_budget  features kept; a slice that fell out is encoded again when asked for
    batch        slices sent through the encoder at once by `prefetch`; 1 is fastest on a CPU
    """

    def __init__(
        self, network: SAM2, read_slice: Callable[[int], npt.NDArray[np.uint8]], *, byte_budget: int, batch: int = 1
    ) -> None:
        self._network = network
        self._read_slice = read_slice
        self._byte_budget = byte_budget
        self.batch = batch
        self._kept: OrderedDict[tuple[int, View], ImageFeatures] = OrderedDict()
        self._kept_bytes = 0
        self.encoded = 0  # slices sent through the encoder so far

    def features(self, slice_index: int, view: View) -> ImageFeatures:
        """Features of one slice, batch dimension 1."""
        key = (slice_index, view)
        if key not in self._kept:
            self._encode([slice_index], view)
        self._kept.move_to_end(key)
        return self._kept[key]

    def prefetch(self, slice_indices: Sequence[int], view: View) -> None:
        """When the first of these slices is missing: encodes it and those that follow, as many as are encoded at once."""
        missing = [index for index in slice_indices[: self.batch] if (index, view) not in self._kept]
        if len(missing) > 1 and missing[0] == slice_indices[0]:  # else full batches would be followed by small ones
            self._encode(missing, view)

    def _encode(self, slice_indices: Sequence[int], view: View) -> None:
        side = self._network.config.image_size
        frames = torch.stack([slice_to_frame(self._read_slice(index), view, side) for index in slice_indices])
        encoded = self._network.encode_image(frames.to(self._network.device))
        self.encoded += len(slice_indices)
        for row, index in enumerate(slice_indices):
            # A copy: a view of the batch would keep the whole batch alive.
            features = ImageFeatures(*(level.clone() for level in encoded.row(row))) if len(slice_indices) > 1 else encoded
            self._kept[index, view] = features
            self._kept_bytes += _bytes(features)
        while self._kept_bytes > self._byte_budget and len(self._kept) > len(slice_indices):
            self._kept_bytes -= _bytes(self._kept.popitem(last=False)[1])


def _bytes(features: ImageFeatures) -> int:
    return sum(level.nbytes for level in features)
