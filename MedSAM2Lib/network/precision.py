"""In how many bits a network computes: exactly, in float32, or faster, in bfloat16."""

from __future__ import annotations

import torch

from MedSAM2Lib.network.config import Precision
from MedSAM2Lib.network.sam2 import SAM2

__all__ = ["precision_of", "set_precision"]


def set_precision(network: SAM2, precision: Precision) -> SAM2:
    """The same network; going back to float32 does not bring back the bits that bfloat16 dropped.

    In bfloat16 are the parts where the work is, and the image features. Prompts and the mask decoder stay in float32: they
    are a twentieth of the work, and their rounding would show in a mask's edge.
    """
    dtype = torch.bfloat16 if precision == "bfloat16" else torch.float32
    for part in (network.image_encoder, network.memory_attention, network.memory_encoder):
        part.to(dtype)
    return network


def precision_of(network: SAM2) -> Precision:
    return "bfloat16" if next(network.image_encoder.parameters()).dtype == torch.bfloat16 else "float32"
