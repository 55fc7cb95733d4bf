"""Products of matrices on a CPU: in inference by oneDNN, whose kernels are made for the processor they find.

torch gives products of float32 matrices to MKL, which on processors of AMD leaves half of the arithmetic units idle: on a Zen 5,
88 against 205 GFLOP/s and core for the same numbers (torch 2.13). The operator used here is the one torch's own compiler
uses. Where it is missing, and where gradients are needed, torch's `linear` does the same.
"""

from __future__ import annotations

import functools
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

__all__ = ["Activation", "Linear", "linear", "pointwise", "uses_onednn"]

Activation = Literal["none", "relu", "gelu"]

# Products of numbers from which it is worth the call. And where a process is refused memory, oneDNN, which makes code for every
# new shape, takes the process down; so small networks, which are to run on small machines, do without.
_LEAST_WORK = 2**24


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None, then: Activation = "none") -> Tensor:
    """(..., C) to (..., C'), by a matrix (C', C) and a bias (C',); `then` is applied to every element."""
    if x.numel() * len(weight) >= _LEAST_WORK and uses_onednn(x):
        algorithm = "none" if then == "gelu" else ""  # the exact one, by the error function
        x, weight = x.contiguous(), weight.contiguous()  # in strides it is hundreds of times slower
        out: Tensor = torch.ops.mkldnn._linear_pointwise(x, weight, bias, then, [], algorithm)
        return out
    out = F.linear(x, weight, bias)
    return out if then == "none" else (F.relu(out) if then == "relu" else F.gelu(out))


def pointwise(x: Tensor, convolution: nn.Conv2d) -> Tensor:
    """A 1 x 1 convolution of (B, C, h, w), as `linear`; the result lies channels last in memory."""
    return linear(x.permute(0, 2, 3, 1), convolution.weight.flatten(1), convolution.bias).permute(0, 3, 1, 2)


class Linear(nn.Linear):
    """A layer of `linear`."""

    def forward(self, x: Tensor, then: Activation = "none") -> Tensor:
        return linear(x, self.weight, self.bias, then)


def uses_onednn(x: Tensor) -> bool:
    """Whether products of this tensor go to oneDNN."""
    return (
        x.device.type == "cpu"
        and not torch.is_grad_enabled()
        and x.dtype in (torch.float32, torch.bfloat16)
        and not torch.is_autocast_enabled("cpu")
        and _has_onednn(x.dtype)
    )


@functools.cache
def _has_onednn(dtype: torch.dtype) -> bool:
    """Whether this build of torch has the operator, which is not part of its promised interface, as it is called here, and
    the processor the instructions for it: there is no bfloat16 on one with AVX2 alone."""
    x, weight, bias = (torch.tensor(values, dtype=dtype) for values in ([[1.0, 2.0]], [[3.0, 4.0]], [5.0]))
    try:
        return bool(torch.ops.mkldnn._linear_pointwise(x, weight, bias, "relu", [], "").item() == 16)
    except (AttributeError, RuntimeError):  # NotImplementedError is one of the latter
        return False
