"""Several processes that train one network together, each on its own GPU (or on the CPU): torch's data parallelism.

`torchrun --nproc-per-node 4 -m MedSAM2Lib train ...` starts them and tells each its number by environment variables. Every
process draws its own share of a step's clips; gradients are averaged, so that all have the same weights at any time.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta

import torch
from torch import Tensor, distributed, nn
from torch.nn.parallel import DistributedDataParallel

__all__ = ["Processes", "joined_processes"]

_PATIENCE = timedelta(hours=12)  # while the first process scores and validates, the others wait


@dataclass(frozen=True)
class Processes:
    """This process's place among those that train together. The default is one that trains alone."""

    rank: int = 0
    count: int = 1

    @property
    def is_first(self) -> bool:
        """The one that writes files and reports."""
        return self.rank == 0

    def parallel(self, module: nn.Module) -> nn.Module:
        """The module, whose gradients are averaged over all processes in its backward pass.

        Which parameters require gradients must not change afterwards. Those that a step does not use are found, because
        a clip of one slice has no memory to look at.
        """
        return module if self.count == 1 else DistributedDataParallel(module, find_unused_parameters=True)

    def mean(self, value: Tensor) -> Tensor:
        """Of a number that each process has; all get the same, NaN where one has it."""
        if self.count > 1:
            distributed.all_reduce(value)
            value = value / self.count
        return value

    def wait_for_all(self) -> None:
        if self.count > 1:
            distributed.barrier()


@contextmanager
def joined_processes(device: torch.device) -> Iterator[tuple[Processes, torch.device]]:
    """For the length of the block, this process is one of those that torchrun started; alone if it started none.

    Yields its place, and its own device: with CUDA, the GPU of its number on this machine.
    """
    if "RANK" not in os.environ or int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield Processes(), device
        return
    if device.type == "cuda":
        device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
        torch.cuda.set_device(device)
    distributed.init_process_group("nccl" if device.type == "cuda" else "gloo", timeout=_PATIENCE)
    try:
        yield Processes(distributed.get_rank(), distributed.get_world_size()), device
    finally:
        distributed.destroy_process_group()
