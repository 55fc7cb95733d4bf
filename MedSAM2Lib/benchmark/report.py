"""The model that a benchmark runs, and its figures as JSON."""

from __future__ import annotations

import json
import platform
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from MedSAM2Lib.atomic import atomic_path
from MedSAM2Lib.benchmark.subject import random_network
from MedSAM2Lib.checkpoints.loading import LoadedModel, load_model
from MedSAM2Lib.checkpoints.registry import MODELS
from MedSAM2Lib.checkpoints.store import installed_path
from MedSAM2Lib.device import choose_device, sensible_threads
from MedSAM2Lib.errors import OptionError
from MedSAM2Lib.network.config import NETWORKS, network_config
from MedSAM2Lib.version import __version__

__all__ = ["network_name", "prepare", "write_report"]


def prepare(
    model: str, network: str | None, size: int | None, device_name: str, threads: int | None, *, random_weights: bool
) -> LoadedModel:
    """A model, or random weights of its network where its own are not on this machine or another size is asked for.

    Gives torch as many threads as asked for, or as suit the network.
    """
    if threads is not None and threads < 1:
        raise OptionError(f"--threads must be at least 1, but {threads} came.")
    device = choose_device(device_name)
    known = MODELS.get(model)
    missing = known is not None and installed_path(known) is None
    if missing or random_weights or size is not None:
        prepared = _with_random_weights(model, known.network if known is not None else network, size, device)
    else:
        prepared = load_model(model, device, network)
    torch.set_num_threads(threads or sensible_threads(prepared.network.config))
    return prepared


def _with_random_weights(model: str, network: str | None, size: int | None, device: torch.device) -> LoadedModel:
    if network is None:
        raise OptionError(f"--size and --random-weights need to know the network: give --network, or a model instead of {model}.")
    drawn = random_network(network_config(network, size)).to(device)
    return LoadedModel(drawn, f"{network} with random weights", Path(), "", None)


def network_name(model: LoadedModel) -> str:
    """The name under which `network_config` knows a model's network, whatever its image size."""
    size = model.network.config.image_size
    return next(name for name in NETWORKS if network_config(name, size) == model.network.config)


def write_report(path: Path, model: LoadedModel, figures: Mapping[str, Any]) -> None:
    """figures: of what was measured, by name."""
    content = {
        "model": model.name,
        "image_size": model.network.config.image_size,
        "device": str(model.network.device),
        "threads": torch.get_num_threads(),
        "processor": platform.processor() or platform.machine(),
        "torch": torch.__version__,
        "version": __version__,
        **figures,
    }
    with atomic_path(path) as temporary:
        temporary.write_text(json.dumps(content, indent=1, allow_nan=False) + "\n", encoding="utf-8")
