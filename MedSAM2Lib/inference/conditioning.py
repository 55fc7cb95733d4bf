"""Memory entries to the tokens that memory attention reads."""

from __future__ import annotations

import torch
from torch import Tensor

from MedSAM2Lib.memory.bank import Selection
from MedSAM2Lib.network.sam2 import SAM2

__all__ = ["condition"]


def condition(network: SAM2, stride16: Tensor, selection: Selection, slice_count: int) -> Tensor:
    """Features of a slice after it has looked at the selected memories, (B, C, h, w).

    stride16     (B, C, h, w) of the slice
    slice_count  slices in the volume: with fewer than `max_object_pointers`, temporal positions are scaled by it
    """
    if not selection.maps:
        return network.without_memory(stride16)
    dtype = stride16.dtype
    tokens = [entry.map.to(dtype).flatten(2).transpose(1, 2) for entry, _ in selection.maps]  # each (B, hw, D)
    positions = [network.map_position(slot).expand_as(map) for (_, slot), map in zip(selection.maps, tokens, strict=True)]
    pointer_count = 0
    if selection.pointers:
        pointers = torch.stack([entry.pointer for entry, _ in selection.pointers], dim=1).to(dtype)  # (B, P, C)
        distances = torch.tensor([float(d) for _, d in selection.pointers], device=stride16.device)
        furthest = max(1, min(slice_count, network.config.max_object_pointers) - 1)
        pointer_tokens, pointer_positions = network.pointer_tokens(pointers, distances, furthest)
        pointer_count = pointer_tokens.shape[1]
        tokens.append(pointer_tokens)
        positions.append(pointer_positions)
    return network.with_memory(stride16, torch.cat(tokens, dim=1), torch.cat(positions, dim=1).to(dtype), pointer_count)
