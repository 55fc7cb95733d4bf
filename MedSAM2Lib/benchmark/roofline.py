"""How much work a slice is, how fast this machine could do it, and how fast it is done.

Work is counted on tensors without content, so that large networks cost no more than small ones: multiplications and
additions of matrix products and convolutions (an attention's are counted as plain products, which fused kernels hide from
the counter), and bytes that operations read and write when nothing stays in a cache between two of them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import median
from typing import Any

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

from MedSAM2Lib.benchmark.clock import seconds
from MedSAM2Lib.network.build import build_network
from MedSAM2Lib.network.config import NetworkConfig
from MedSAM2Lib.network.linear import linear, uses_onednn
from MedSAM2Lib.network.sam2 import SAM2

__all__ = ["IMAGE_SIZES", "Machine", "Part", "Roofline", "Work", "count_work", "measure_roofline"]

IMAGE_SIZES = (256, 512, 1024)  # for which the growth is counted
_REPEATS = 3
_MATRIX_SIDE = 1536  # 7 GFLOP a product
_COPIED_FLOATS = 2**25  # 128 MB there, 128 MB back: more than any cache
_ENCODER = "image encoder"


@dataclass(frozen=True)
class Work:
    """gflop: 10^9 multiplications and additions, each counted; mbytes: 10^6 bytes read and written."""

    gflop: float
    mbytes: float


@dataclass(frozen=True)
class Machine:
    """On the threads that torch has: matrix products in float32 and bfloat16, and what a copy moves, read and written."""

    gflops: float
    bfloat16_gflops: float
    gbytes_per_s: float


@dataclass(frozen=True)
class Part:
    """A part of the network on one slice of one object, seconds.

    arithmetic_s  what the work's products take at the machine's rate in float32
    traffic_s     what its bytes take; a cache saves most of it
    """

    name: str
    work: Work
    arithmetic_s: float
    traffic_s: float
    measured_s: float

    @property
    def share(self) -> float:
        """Of what the machine can do, 1 is all."""
        return self.arithmetic_s / self.measured_s


@dataclass(frozen=True)
class Roofline:
    """growth  work of a slice by image size and part; all but the image encoder is for each object again"""

    machine: Machine
    parts: tuple[Part, ...]
    growth: Mapping[int, Mapping[str, Work]]

    def gflop(self, image_size: int, objects: int) -> float:
        """Of a slice that is encoded and tracked for several objects."""
        return sum(work.gflop * (1 if name == _ENCODER else objects) for name, work in self.growth[image_size].items())


@torch.inference_mode()
def measure_roofline(network: SAM2) -> Roofline:
    """Everything, in less than a minute for the tiny network at 512 pixels on one core."""
    machine = _measure_machine(network.device)
    own = network.config.image_size
    growth = {size: count_work(replace(network.config, image_size=size)) for size in sorted({own, *IMAGE_SIZES})}
    parts = []
    for name, step in _steps(network).items():
        step()  # what is made once is made
        measured = median(seconds(step, network.device) for _ in range(_REPEATS))
        work = growth[own][name]
        parts.append(Part(name, work, work.gflop / machine.gflops, work.mbytes / 1000 / machine.gbytes_per_s, measured))
    return Roofline(machine, tuple(parts), growth)


def count_work(config: NetworkConfig) -> dict[str, Work]:
    """The work of each part on one slice of one object, with as many memories and pointers as a slice sees at most."""
    counted = {}
    with torch.inference_mode():  # asked here: a tensor without content cannot tell
        formulas = {torch.ops.mkldnn._linear_pointwise: _linear_flops} if uses_onednn(torch.zeros(1)) else {}
    with FakeTensorMode(), torch.inference_mode():
        for name, step in _steps(build_network(config)).items():
            with FlopCounterMode(display=False, custom_mapping=formulas) as flops, sdpa_kernel(SDPBackend.MATH):
                step()
            with _Traffic() as traffic:
                step()
            counted[name] = Work(flops.get_total_flops() / 1e9, traffic.nbytes / 1e6)
    return counted


def _steps(network: SAM2) -> dict[str, Callable[[], object]]:
    """By part, what it does on a slice."""
    config, device = network.config, network.device
    side, grid = config.image_size, config.feature_size
    image = torch.zeros(1, 3, side, side, device=device)
    features = network.encode_image(image)
    pointers = config.max_object_pointers * config.hidden_dim // config.memory_dim
    memory = torch.zeros(1, config.memory_slots * grid**2 + pointers, config.memory_dim, device=device)
    logits = torch.zeros(1, 1, side // 4, side // 4, device=device)
    score = torch.ones(1, device=device)
    follows = logits if config.follow_mask else None
    return {
        _ENCODER: lambda: network.encode_image(image),
        "memory attention": lambda: network.with_memory(features.stride16, memory, memory, pointers),
        "prompt and mask decoder": lambda: network.predict(features.stride16, features, mask=follows),
        "memory encoder": lambda: network.encode_memory(features.stride16, logits, score, prompted=False),
    }


def _linear_flops(x: Sequence[int], weight: Sequence[int], *_: object, **__: object) -> int:
    """Of shapes (..., C) and (C', C)."""
    return 2 * math.prod(x) * weight[0]


class _Traffic(TorchDispatchMode):
    """Sums up what operations read and write; views move nothing."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.nbytes = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if not func.is_view:
            self.nbytes += sum(one.nbytes for one in tree_leaves((args, kwargs, result)) if isinstance(one, Tensor))
        return result


def _measure_machine(device: torch.device) -> Machine:
    def product(dtype: torch.dtype) -> float:
        one, other = (torch.rand(_MATRIX_SIDE, _MATRIX_SIDE, device=device).to(dtype) for _ in range(2))
        return 2 * _MATRIX_SIDE**3 / 1e9 / _fastest(lambda: linear(one, other), device)

    origin, goal = (torch.ones(_COPIED_FLOATS, device=device) for _ in range(2))
    moved = (origin.nbytes + goal.nbytes) / 1e9
    return Machine(product(torch.float32), product(torch.bfloat16), moved / _fastest(lambda: goal.copy_(origin), device))


def _fastest(work: Callable[[], object], device: torch.device) -> float:
    """Seconds, when nothing else disturbs."""
    work()
    return min(seconds(work, device) for _ in range(_REPEATS))
