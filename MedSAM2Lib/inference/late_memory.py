"""A memory that is made when a slice first looks at it, and can be made again.

What a person clicks is answered before its memory is made. And what lies in the history of a session, or was read from a
saved one, has only what the memory is made of: a map takes ten times the room of the logits behind it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from MedSAM2Lib.frames import View
from MedSAM2Lib.memory.entry import MemoryEntry, appearance
from MedSAM2Lib.network.sam2 import SAM2, ImageFeatures

if TYPE_CHECKING:
    from MedSAM2Lib.inference.objects import SliceRecord

__all__ = ["LateMemory", "Maker", "Parts"]


class Parts(NamedTuple):
    """Of a `MemoryEntry`, what is made."""

    map: Tensor
    appearance: Tensor
    grey_profile: Tensor | None

    @classmethod
    def of(
        cls,
        network: SAM2,
        features: ImageFeatures,
        logits: Tensor,
        object_score: Tensor,
        prompted: bool,
        dtype: torch.dtype | None,
    ) -> Parts:
        """Of a slice's features, and the mask (logits (B, 1, L, L)) that it got.

        prompted  a person gave or approved the mask
        dtype     of the map; None: as the network gives it
        """
        memory = network.encode_memory(features.stride16, logits, object_score, prompted)
        profile = network.grey_profile(features, logits) if prompted else None
        return cls(memory if dtype is None else memory.to(dtype), appearance(features.stride16), profile)


Maker = Callable[[], Parts]


class LateMemory(MemoryEntry):
    """A memory entry whose parts are made at the first look.

    record    what it is made of, where it can be made again after `fade`
    prompted  a person gave or approved the mask
    """

    def __init__(
        self,
        slice_index: int,
        pointer: Tensor,
        iou: Tensor,
        object_score: Tensor,
        view: View | None,
        make: Maker,
        record: SliceRecord | None = None,
        prompted: bool = False,
    ) -> None:
        given = {"slice_index": slice_index, "pointer": pointer, "iou": iou, "object_score": object_score, "view": view}
        # Like every entry it is frozen to those who look at it; its parts are set past that.
        self.__dict__.update(given, record=record, prompted=prompted, _make=make, _made=None)

    record: SliceRecord | None
    prompted: bool
    _make: Maker | None
    _made: Parts | None

    @property
    def map(self) -> Tensor:
        return self.look().map

    @property
    def appearance(self) -> Tensor:
        return self.look().appearance

    @property
    def grey_profile(self) -> Tensor | None:
        return self.look().grey_profile

    def look(self) -> Parts:
        if self._made is None:
            assert self._make is not None, "what cannot be made again is never faded"
            self.__dict__["_made"] = self._make()
            if self.record is None:  # else the features that it was made of would be kept with it
                self.__dict__["_make"] = None
        made = self._made
        assert made is not None
        return made

    def fade(self) -> None:
        """Gives back the room of what can be made again."""
        if self.record is not None:
            self.__dict__["_made"] = None
