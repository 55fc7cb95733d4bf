"""A file of weights to a network, strictly: every key and shape must be the network's.

Files hold tensors only. They are read with `weights_only=True`, so a pickle that carries code is refused unread.
"""

from __future__ import annotations

import functools
import hashlib
import pickle
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from MedSAM2Lib.checkpoints.registry import MODELS, Model
from MedSAM2Lib.checkpoints.store import weights_path
from MedSAM2Lib.depth_prior import DepthPrior
from MedSAM2Lib.errors import CheckpointError, OptionError
from MedSAM2Lib.network.build import build_network
from MedSAM2Lib.network.config import NETWORKS, network_config
from MedSAM2Lib.network.sam2 import SAM2

__all__ = ["LoadedModel", "load_model", "save_checkpoint"]

_KEYS_SHOWN = 3  # of a list of differing keys in a message


@dataclass(frozen=True)
class LoadedModel:
    """A network ready for inference, and what a report says of it."""

    network: SAM2 = field(repr=False)
    name: str  # model id, or the file's name
    path: Path
    sha256: str
    zoom: float | None  # side of the view on a slice in sides of the prompt; None: the whole slice
    depth_prior: DepthPrior | None = None  # how deep its objects are expected to be; None: it sees that by itself


def load_model(name_or_path: str, device: torch.device, network: str | None = None) -> LoadedModel:
    """A registered model by its id, or a checkpoint file.

    network  which network a file is for, where its hash is not a published one and several networks share its layout
             (MedSAM2 and SAM 2.1 tiny do)

    Raises OptionError for an unknown name, CheckpointError for a file that is missing, damaged or of another network.
    """
    path = weights_path(name_or_path)
    sha256 = _sha256(path)
    state, stored_network = _read(path)
    known = MODELS.get(name_or_path) or _published(sha256)
    network_name = network or stored_network or (known.network if known else _recognise(state, path))
    # A user's own checkpoint is used as the registered model of its network is.
    like = known or next((model for model in MODELS.values() if model.network == network_name), None)
    zoom, depth_prior = (like.zoom, like.depth_prior) if like else (None, None)
    loaded = _fill(network_name, state, path).to(device)
    return LoadedModel(loaded, known.id if known else path.name, path, sha256, zoom, depth_prior)


def save_checkpoint(network: SAM2, network_name: str, path: Path) -> None:
    """Writes weights in half precision, with the name of their network."""
    state = {key: value.half() if value.is_floating_point() else value for key, value in network.state_dict().items()}
    torch.save({"model": state, "network": network_name}, path)


def _sha256(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest() if hasattr(hashlib, "file_digest") else _sha256_of(file.read())
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read ({error.strerror}); check its permissions.") from error


def _sha256_of(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _published(sha256: str) -> Model | None:
    return next((model for model in MODELS.values() if model.sha256 == sha256), None)


def _read(path: Path) -> tuple[dict[str, Tensor], str | None]:
    """The state dictionary of a file, and the network that the file says it is for."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about old pickles; whether they load is what counts
            content: Any = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise CheckpointError(
            f"{path} is not a plain file of weights (it is damaged, foreign, or would run code when opened), so it was not "
            "loaded; get the file again from its publisher."
        ) from error
    except Exception as error:  # damaged bytes lead torch's reader into any of them: struct.error, AssertionError, KeyError ...
        raise CheckpointError(f"{path} is not a whole checkpoint ({_first_line(error)}); get the file again.") from error
    network = content.get("network") if isinstance(content, Mapping) else None
    state = content.get("model", content) if isinstance(content, Mapping) else content
    if not isinstance(state, Mapping) or not state or not all(isinstance(v, Tensor) for v in state.values()):
        raise CheckpointError(f"{path} must hold a dictionary of tensors (or one under 'model'), but it holds something else.")
    if not isinstance(network, str):  # other programs may mean something else by the word
        network = None
    elif network not in NETWORKS:
        raise CheckpointError(f"{path} is for a network {network!r} that this version does not know; update MedSAM2.")
    return {str(key): value for key, value in state.items()}, network


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


@functools.cache
def _layout(network_name: str) -> Mapping[str, torch.Size]:
    with torch.device("meta"):
        return {key: value.shape for key, value in SAM2(network_config(network_name)).state_dict().items()}


def _recognise(state: Mapping[str, Tensor], path: Path) -> str:
    """The one network whose layout a state dictionary has."""
    shapes = {key: value.shape for key, value in state.items()}
    matching = [name for name in NETWORKS if _layout(name) == shapes]
    if len(matching) == 1:
        return matching[0]
    if matching:
        raise OptionError(f"{path} fits the networks {' and '.join(matching)}; say which with --network.")
    closest = min(NETWORKS, key=lambda name: len(shapes.items() ^ _layout(name).items()))
    raise CheckpointError(f"{path} fits no network. {_difference(state, _layout(closest), closest)}")


def _fill(network_name: str, state: Mapping[str, Tensor], path: Path) -> SAM2:
    layout = _layout(network_name)
    if {key: value.shape for key, value in state.items()} != layout:
        raise CheckpointError(f"{path} is not for {network_name}. {_difference(state, layout, network_name)}")
    if odd := [key for key, value in state.items() if not _is_plain(value)]:
        raise CheckpointError(f"{path} must hold plain floating-point weights, but {_some(odd)} differ; convert them first.")
    with torch.device("meta"):
        network = build_network(network_config(network_name))
    network.load_state_dict({key: value.float() for key, value in state.items()}, strict=True, assign=True)
    broken = [key for key, value in network.state_dict().items() if not torch.isfinite(value).all()]
    if broken:
        raise CheckpointError(f"{path} holds NaN or infinite weights ({_some(broken)}); get the file again.")
    return network.eval().requires_grad_(False)


def _is_plain(weights: Tensor) -> bool:
    """Neither whole numbers (quantised), nor sparse, nor a shape without content."""
    return weights.is_floating_point() and weights.layout == torch.strided and not weights.is_meta


def _difference(state: Mapping[str, Tensor], layout: Mapping[str, torch.Size], network_name: str) -> str:
    """What separates a file from a network, in one line that names keys and shapes."""
    missing = [key for key in layout if key not in state]
    unexpected = [key for key in state if key not in layout]
    reshaped = [
        f"{key} {tuple(state[key].shape)} instead of {tuple(shape)}"
        for key, shape in layout.items()
        if key in state and state[key].shape != shape
    ]
    parts = [("lacks", missing), ("has in excess", unexpected), ("differs in shape:", reshaped)]
    found = "; ".join(f"{word} {_some(keys)}" for word, keys in parts if keys)
    return f"Compared with {network_name} it {found}."


def _some(keys: list[str]) -> str:
    shown = ", ".join(keys[:_KEYS_SHOWN])
    return shown if len(keys) <= _KEYS_SHOWN else f"{shown} and {len(keys) - _KEYS_SHOWN} more"
