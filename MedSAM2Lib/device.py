"""Which processor runs the network."""

from __future__ import annotations

import torch

from MedSAM2Lib.errors import OptionError

__all__ = ["DEVICE_NAMES", "choose_device"]

DEVICE_NAMES = ("auto", "cpu", "cuda", "mps")


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
