"""Weights in eight bits, so that a file is half as large; they are computed with in full precision all the same.

Each output channel of a matrix or convolution has a scale of its own: the finest of 255 steps that reach its largest weight.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

__all__ = ["pack_weights", "unpack_weights"]

_LEAST_WEIGHTS = 2**12  # of a tensor; smaller ones, which are embeddings and normalisations, would save nothing
_STEPS = 127  # from 0 to the largest weight of a channel
_LEAST_SCALE = 2.0**-24  # the smallest number above 0 in half precision


def pack_weights(state: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """A state dictionary in which large tensors are int8, and by their names the scales (C,), float16, of their C channels."""
    packed = {key: value.half() if value.is_floating_point() else value for key, value in state.items()}
    scales: dict[str, Tensor] = {}
    for key, value in state.items():
        if value.is_floating_point() and value.ndim > 1 and value.numel() >= _LEAST_WEIGHTS:
            scales[key] = (value.flatten(1).abs().amax(1) / _STEPS).half().clamp(min=_LEAST_SCALE)
            steps = (value / _as_column(scales[key], value)).round()
            packed[key] = steps.clamp(-_STEPS, _STEPS).to(torch.int8)
    return packed, scales


def unpack_weights(state: Mapping[str, Tensor], scales: object) -> dict[str, Tensor]:
    """The state dictionary in float32; `scales` as a file says they are. Raises ValueError where they do not fit the weights."""
    if not isinstance(scales, Mapping):
        raise ValueError("its scales are no dictionary")
    weights = dict(state)
    for key, scale in scales.items():
        value = weights.get(key)
        if value is None or value.dtype != torch.int8 or not _is_scale(scale, value):
            raise ValueError(f"the scales of {str(key)[:80]} do not fit its weights")
        weights[key] = value.float() * _as_column(scale, value)
    return weights


def _is_scale(scale: object, weights: Tensor) -> bool:
    return isinstance(scale, Tensor) and scale.dtype == torch.float16 and scale.shape == weights.shape[:1]


def _as_column(scale: Tensor, weights: Tensor) -> Tensor:
    """(C,) to (C, 1, ...), with as many dimensions as the weights."""
    return scale.float().view(-1, *(1,) * (weights.ndim - 1))
