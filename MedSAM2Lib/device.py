"""Which processor runs the network, and on how many threads."""

from __future__ import annotations

import torch

from MedSAM2Lib.errors import OptionError
from MedSAM2Lib.network.config import NetworkConfig, SAMConfig

__all__ = ["DEVICE_NAMES", "choose_device", "sensible_threads"]

DEVICE_NAMES = ("auto", "cpu", "cuda", "mps")

_SMALL_IMAGE = 256  # pixels: up to this side, a step of the network is too little work to share
_TORCH_THREADS = torch.get_num_threads()  # before anyone set another number: the cores, or OMP_NUM_THREADS


def choose_device(name: str = "auto") -> torch.device:
    """`auto` takes CUDA, else Apple's MPS, else the CPU. A device that this machine lacks is an OptionError."""
    if name not in DEVICE_NAMES:
        raise OptionError(f"Unknown device {name!r}: use one of {', '.join(DEVICE_NAMES)}.")
    available = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if name == "auto":
        return torch.device(next(kind for kind, there in available.items() if there))
    if not available[name]:
        raise OptionError(
            f"Device {name} was asked for, but PyTorch {torch.__version__} finds none here; use --device cpu or auto."
        )
    return torch.device(name)


def sensible_threads(config: NetworkConfig | SAMConfig) -> int:
    """How many processor threads to give torch for a network, where nobody asked for a number.

    One for a network of small images: on a busy machine its threads would wait for whichever of them got no core, and a
    slice take seconds instead of a fraction of one. For the others as many as torch took when this module was imported.
    """
    return 1 if config.image_size <= _SMALL_IMAGE else _TORCH_THREADS
