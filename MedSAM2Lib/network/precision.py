"""In how many bits a network computes: exactly, in float32, or faster, in bfloat16."""

from __future__ import annotations

import functools
import time

import torch

from MedSAM2Lib.network.config import Precision
from MedSAM2Lib.network.linear import linear
from MedSAM2Lib.network.sam2 import SAM2

__all__ = ["bfloat16_gain", "precision_of", "set_precision"]

_SIDE = 512  # of the matrices whose product is timed: a millisecond or two each
_TRIES = 5


def set_precision(network: SAM2, precision: Precision) -> SAM2:
    """The same network; going back to float32 does not bring back the bits that bfloat16 dropped.

    In bfloat16 are the parts where the work is, and the image features. Prompts and SAM 2's mask decoder stay in float32: they
    are a twentieth of the work, and their rounding would show in a mask's edge. A U-Net in its place is nearly all of the work.
    """
    dtype = torch.bfloat16 if precision == "bfloat16" else torch.float32
    for part in network.costly_parts:
        part.to(dtype)
    return network


def precision_of(network: SAM2) -> Precision:
    return "bfloat16" if next(network.image_encoder.parameters()).dtype == torch.bfloat16 else "float32"


@functools.cache
@torch.inference_mode()
def bfloat16_gain() -> float:
    """How many times as fast as in float32 this machine's CPU multiplies matrices in bfloat16. Takes some 50 ms.

    Below 1 where it has no instructions for bfloat16: most laptops'. Nothing of torch's promised interface tells.
    """
    return _seconds(torch.float32) / _seconds(torch.bfloat16)


def _seconds(dtype: torch.dtype) -> float:
    """Processor time of this thread for a product, at best: other programs do not count."""
    matrix = torch.ones(_SIDE, _SIDE, dtype=dtype)
    taken = []
    for _ in range(_TRIES):
        began = time.thread_time()
        linear(matrix, matrix)
        taken.append(time.thread_time() - began)
    return min(taken)
