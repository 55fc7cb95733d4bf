"""Small networks and slices to compare on; the networks' weights come from `MedSAM2Lib.benchmark.subject`."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor
from torch.nn import functional as F

from MedSAM2Lib.benchmark.subject import last_layer
from MedSAM2Lib.network.config import NetworkConfig, TrunkConfig
from MedSAM2Lib.network.sam2 import SAM2

__all__ = ["SMALL", "SMALL_2_0", "random_slices", "shift_object_score"]

# Windows of 6, 6 and 3 tokens do not fill grids of 16, 8 and 4: the padding takes part, as it does in tiny at 512.
# A memory map of 64 channels is what transformers hard-codes.
SMALL = NetworkConfig(
    trunk=TrunkConfig(16, 1, (1, 2, 3, 1), (4,), (8, 6, 6, 3), (7, 7)),
    image_size=128,
    hidden_dim=128,
    memory_dim=64,
    memory_layers=2,
    feedforward_dim=96,
)
SMALL_2_0 = replace(SMALL, pointer_positions=False, absent_object_embedding=False)


def random_slices(count: int, config: NetworkConfig, seed: int = 0) -> Tensor:
    """(count, 3, S, S) noisy blobs that drift from slice to slice."""
    generator = torch.Generator().manual_seed(seed)
    side = config.image_size
    coarse = torch.randn(1, 3, count, side // 8, side // 8, generator=generator).cumsum(2) / 2
    blobs = F.interpolate(coarse, size=(count, side, side), mode="trilinear")[0].transpose(0, 1)
    return blobs + 0.3 * torch.randn(count, 3, side, side, generator=generator)


def shift_object_score(network: SAM2, shift: float) -> None:
    """Makes objects appear (positive) or disappear (negative)."""
    with torch.no_grad():
        last_layer(network.sam_mask_decoder.pred_obj_score_head).bias.add_(shift)
