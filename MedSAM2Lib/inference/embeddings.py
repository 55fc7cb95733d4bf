"""Image features per slice and view: encoded once, kept while a byte budget lasts, least recently used goes first.

A network whose channels are neighbouring slices sees a slice differently in either direction; for all others the
direction makes no difference.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache, partial

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from MedSAM2Lib.frames import View, normalise, slice_to_frame
from MedSAM2Lib.network.sam2 import SAM2, ImageFeatures

__all__ = ["FORWARD", "Embeddings"]

FORWARD = 1  # towards higher slice indices; also how a prompted slice is seen that no pass has reached yet
_Key = tuple[int, View, int]  # slice index, view, direction
_PLANES_KEPT = 16  # of a network that sees neighbours: three for each direction of some objects, each in its own view


class Embeddings:
    """Features of one volume through one intensity window.

    read_slice   slice index -> (rows, columns) uint8, already windowed; of a set of images also (rows, columns, 3)
    slice_count  of the volume; neighbours beyond its ends are replaced by the slice itself
    byte_budget  features kept; a slice that fell out is encoded again when asked for
    batch        slices sent through the encoder at once by `prefetch`; 1 is fastest on a CPU
    ordered      slices lie one above the other; else a network that sees neighbours sees each image by itself
    """

    def __init__(
        self,
        network: SAM2,
        read_slice: Callable[[int], npt.NDArray[np.uint8]],
        slice_count: int,
        *,
        byte_budget: int,
        batch: int = 1,
        ordered: bool = True,
    ) -> None:
        self._network = network
        self._slice_count = slice_count
        self._byte_budget = byte_budget
        self.batch = batch
        self._sees_neighbours = ordered and network.config.neighbour_channels
        # A slice is drawn once, and not again as the neighbour of those beside it.
        draw = partial(_drawn, read_slice, network.config.image_size)
        self._plane = lru_cache(_PLANES_KEPT if self._sees_neighbours else 0)(draw)
        self._kept: OrderedDict[_Key, ImageFeatures] = OrderedDict()
        self._kept_bytes = 0
        self._in_main_memory = False  # though the network is elsewhere
        self.encoded = 0  # slices sent through the encoder so far

    def features(self, slice_index: int, view: View, direction: int = FORWARD) -> ImageFeatures:
        """Features of one slice, batch dimension 1."""
        key = self._key(slice_index, view, direction)
        if key not in self._kept:
            self._encode([key])
        self._kept.move_to_end(key)
        kept = self._kept[key]
        return _moved(kept, self._network.device) if self._in_main_memory else kept

    def prefetch(self, slice_indices: Sequence[int], view: View, direction: int = FORWARD) -> None:
        """When the first of these slices is missing: encodes it and those that follow, as many as are encoded at once."""
        keys = [self._key(index, view, direction) for index in slice_indices[: self.batch]]
        missing = [key for key in keys if key not in self._kept]
        if len(missing) > 1 and missing[0] == keys[0]:  # else full batches would be followed by small ones
            self._encode(missing)

    def encode_next(self, wanted: Iterable[tuple[int, View, int]]) -> bool:
        """Encodes the first that is missing of some (slice, view, direction), if there is room for it beside what is kept.

        Returns whether it did.
        """
        for index, view, direction in wanted:
            key = self._key(index, view, direction)
            if key not in self._kept:
                one = self._kept_bytes / max(len(self._kept), 1)
                if self._kept_bytes + one > self._byte_budget:
                    return False
                self._encode([key])
                return True
        return False

    @property
    def in_main_memory(self) -> bool:
        """Whether features are kept in the machine's memory rather than in a GPU's."""
        return self._in_main_memory or self._network.device.type == "cpu"

    def move_to_main_memory(self) -> None:
        """Keeps features there from now on; each is brought to the network when it is asked for."""
        self._in_main_memory = True
        for key, features in self._kept.items():
            self._kept[key] = _moved(features, torch.device("cpu"))

    @property
    def kept_bytes(self) -> int:
        """Of the features that are kept at the moment."""
        return self._kept_bytes

    def limit(self, byte_budget: int) -> None:
        """Another budget from now on; what does not fit goes at once."""
        self._byte_budget = byte_budget
        self._drop_beyond(byte_budget, least=0)

    def _drop_beyond(self, byte_budget: int, least: int) -> None:
        while self._kept_bytes > byte_budget and len(self._kept) > least:
            self._kept_bytes -= _bytes(self._kept.popitem(last=False)[1])

    def _key(self, slice_index: int, view: View, direction: int) -> _Key:
        return slice_index, view, direction if self._sees_neighbours else FORWARD

    def _encode(self, keys: Sequence[_Key]) -> None:
        frames = normalise(torch.stack([self._frame(key) for key in keys]).to(self._network.device))
        encoded = self._network.encode_image(frames)
        self.encoded += len(keys)
        for row, key in enumerate(keys):
            # A copy: a view of the batch would keep the whole batch alive.
            features = ImageFeatures(*(level.clone() for level in encoded.row(row))) if len(keys) > 1 else encoded
            if self._in_main_memory:
                features = _moved(features, torch.device("cpu"))
            self._kept[key] = features
            self._kept_bytes += _bytes(features)
        self._drop_beyond(self._byte_budget, least=len(keys))

    def _frame(self, key: _Key) -> Tensor:
        """(1, S, S) or, of a slice between its neighbours, (3, S, S)."""
        index, view, direction = key
        shown = [index]
        if self._sees_neighbours:
            around = (index - direction, index, index + direction)
            shown = [other if 0 <= other < self._slice_count else index for other in around]
        return torch.cat([self._plane(other, view) for other in shown])


def _drawn(read_slice: Callable[[int], npt.NDArray[np.uint8]], side: int, index: int, view: View) -> Tensor:
    """(1, S, S) of a slice, or (3, S, S) of a coloured image."""
    return slice_to_frame(read_slice(index), view, side)


def _moved(features: ImageFeatures, device: torch.device) -> ImageFeatures:
    return ImageFeatures(*(level.to(device) for level in features))


def _bytes(features: ImageFeatures) -> int:
    return sum(level.nbytes for level in features)
