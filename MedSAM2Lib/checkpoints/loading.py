"""A file of weights to a network, strictly: every key and shape must be the network's.

Files hold tensors only. Their outline (names and shapes) is checked before a number of them is read, and they are read
with `weights_only=True`: a file that carries code, or is larger inside than outside, is refused unread.
"""

from __future__ import annotations

import functools
import warnings
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from MedSAM2Lib.checkpoints.archive import check_size
from MedSAM2Lib.checkpoints.eight_bits import pack_weights, unpack_weights
from MedSAM2Lib.checkpoints.outline import read_outline
from MedSAM2Lib.checkpoints.registry import MODELS, Model
from MedSAM2Lib.checkpoints.store import check_hash, sha256_of, weights_path
from MedSAM2Lib.depth_prior import DepthPrior
from MedSAM2Lib.errors import CheckpointError, OptionError, is_out_of_memory
from MedSAM2Lib.network.build import build_network
from MedSAM2Lib.network.config import (
    CROP_ZOOM,
    NETWORKS,
    PRECISIONS,
    SAM_NETWORKS,
    Approximation,
    Precision,
    approximated,
    network_config,
)  # fmt: skip
from MedSAM2Lib.network.precision import precision_of, set_precision
from MedSAM2Lib.network.sam import SAM
from MedSAM2Lib.network.sam2 import SAM2

__all__ = ["LoadedModel", "LoadedSAM", "load_any_model", "load_model", "save_checkpoint", "with_memory"]

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
    approximations: tuple[Approximation, ...] = ()  # in what its masks are not the network's own

    @property
    def precision(self) -> Precision:
        return precision_of(self.network)


@dataclass(frozen=True)
class LoadedSAM:
    """A network without memory, ready for inference, and what a report says of it."""

    network: SAM = field(repr=False)
    name: str  # model id, or the file's name
    path: Path
    sha256: str
    zoom: None = None  # it always sees the whole slice
    depth_prior: None = None  # and expects nothing of the others
    precision: Precision = "float32"
    approximations: tuple[()] = ()


def load_model(
    name_or_path: str,
    device: torch.device,
    network: str | None = None,
    precision: Precision = "float32",
    approximations: Collection[Approximation] = (),
) -> LoadedModel:
    """A registered model by its id, or a checkpoint file.

    network         which network a file is for, where its hash is not a published one and several networks share its layout
                    (MedSAM2 and SAM 2.1 tiny do)
    precision       "float32", exact; or "bfloat16", about twice as fast on processors and GPUs that know it, with masks that
                    differ by a few pixels in a hundred at their edge
    approximations  see `network.config.Approximation`

    Raises OptionError for an unknown name or precision and for a network without memory, CheckpointError for a file that is
    missing, damaged or of another network.
    """
    return with_memory(load_any_model(name_or_path, device, network, precision, approximations))


def with_memory(model: LoadedModel | LoadedSAM) -> LoadedModel:
    """The model. Raises OptionError where its network has no memory."""
    if isinstance(model, LoadedSAM):
        raise OptionError(
            f"{model.name} segments single slices and remembers none of them, which is not enough here; choose another model, "
            "or use it with `medsam2 segment`."
        )
    return model


def load_any_model(
    name_or_path: str,
    device: torch.device,
    network: str | None = None,
    precision: Precision = "float32",
    approximations: Collection[Approximation] = (),
) -> LoadedModel | LoadedSAM:
    """As `load_model`; networks without memory as well."""
    if precision not in PRECISIONS:
        raise OptionError(f"The precision is one of {', '.join(PRECISIONS)}, but {precision!r} came.")
    path = weights_path(name_or_path)
    try:
        with path.open("rb") as file:  # one opening: what is hashed and checked is what is loaded
            check_size(file, str(path))
            sha256 = sha256_of(file)
            known = MODELS.get(name_or_path) or _published(sha256)
            if name_or_path in MODELS:
                check_hash(MODELS[name_or_path], sha256)
            outline = read_outline(file, str(path))
            network_name = network or _stated(outline.network, path) or (known.network if known else None)
            network_name = network_name or _recognise(outline.shapes, path)
            _check_layout(network_name, outline.shapes, path)
            state = _read(file, path)
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read ({error.strerror}); check its permissions.") from error
    # A user's own checkpoint is used as the registered model of its network is.
    like = known or next((model for model in MODELS.values() if model.network == network_name), None)
    zoom, depth_prior = (like.zoom, like.depth_prior) if like else (None, None)
    name = known.id if known else path.name
    if "crop" in approximations and zoom is not None:
        raise OptionError(f"{name} sees a crop of the slice as it is; leave the approximation crop out.")
    loaded = _fill(network_name, state, path, approximations).to(device)
    if isinstance(loaded, SAM):
        if precision != "float32":
            raise OptionError(f"{name} computes in float32 only, but {precision} came; leave the precision out.")
        return LoadedSAM(loaded, name, path, sha256)
    zoom = CROP_ZOOM if "crop" in approximations else zoom
    return LoadedModel(set_precision(loaded, precision), name, path, sha256, zoom, depth_prior, tuple(approximations))


def save_checkpoint(network: SAM2 | SAM, network_name: str, path: Path, *, eight_bits: bool = False) -> None:
    """Writes weights in half precision, or half as large in eight bits, with the name of their network."""
    state = network.state_dict()
    if eight_bits:
        packed, scales = pack_weights(state)
        torch.save({"model": packed, "scales": scales, "network": network_name}, path)
    else:
        torch.save({"model": {key: value.half() for key, value in state.items()}, "network": network_name}, path)


def _published(sha256: str) -> Model | None:
    return next((model for model in MODELS.values() if model.sha256 == sha256), None)


def _stated(network: str | None, path: Path) -> str | None:
    """The network that a file says it is for."""
    if network is not None and network not in {*NETWORKS, *SAM_NETWORKS}:
        raise CheckpointError(f"{path} is for a network {network[:40]!r} that this version does not know; update MedSAM2.")
    return network


def _read(file: BinaryIO, path: Path) -> dict[str, Tensor]:
    """The state dictionary of a file whose outline has been checked."""
    file.seek(0)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about old pickles; whether they load is what counts
            content: Any = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # damaged bytes lead torch's reader into any of them: struct.error, AssertionError, KeyError ...
        if is_out_of_memory(error):
            raise
        raise CheckpointError(f"{path} is not a whole checkpoint ({_first_line(error)}); get the file again.") from error
    state: dict[str, Tensor] = content.get("model", content)
    try:
        return unpack_weights(state, content["scales"]) if {"model", "scales"} <= content.keys() else state
    except ValueError as error:
        raise CheckpointError(f"{path} is not a whole checkpoint ({error}); get the file again.") from error


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


class _DrawNothing(TorchFunctionMode):
    """Weights come from a file; to draw starting ones on the meta device would load parts of torch that take seconds."""

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if function is torch.nn.init.normal_:
            return kwargs["tensor"]
        return (torch.empty if function is torch.randn else function)(*args, **(kwargs or {}))


def _without_weights(network_name: str, approximations: Collection[Approximation] = ()) -> SAM2 | SAM:
    with torch.device("meta"), _DrawNothing():
        if network_name not in SAM_NETWORKS:
            return build_network(approximated(network_config(network_name), approximations))
        if approximations:
            raise OptionError(f"{network_name} has no memory, and is never approximated; leave out {', '.join(approximations)}.")
        return SAM(SAM_NETWORKS[network_name])


@functools.cache
def _layout(network_name: str) -> Mapping[str, tuple[int, ...]]:
    return {key: tuple(value.shape) for key, value in _without_weights(network_name).state_dict().items()}


def _recognise(shapes: Mapping[str, tuple[int, ...]], path: Path) -> str:
    """The one network whose layout a state dictionary has."""
    names = [*NETWORKS, *SAM_NETWORKS]
    matching = [name for name in names if _layout(name) == shapes]
    if len(matching) == 1:
        return matching[0]
    if matching:
        raise OptionError(f"{path} fits the networks {' and '.join(matching)}; say which with --network.")
    closest = min(names, key=lambda name: len(shapes.items() ^ _layout(name).items()))
    raise CheckpointError(f"{path} fits no network. {_difference(shapes, closest)}")


def _check_layout(network_name: str, shapes: Mapping[str, tuple[int, ...]], path: Path) -> None:
    if shapes != _layout(network_name):
        raise CheckpointError(f"{path} is not for {network_name}. {_difference(shapes, network_name)}")


def _fill(network_name: str, state: Mapping[str, Tensor], path: Path, approximations: Collection[Approximation]) -> SAM2 | SAM:
    if odd := [key for key, value in state.items() if not value.is_floating_point()]:  # quantised, for example
        raise CheckpointError(f"{path} must hold plain floating-point weights, but {_some(odd)} differ; convert them first.")
    network = _without_weights(network_name, approximations)
    network.load_state_dict({key: value.float() for key, value in state.items()}, strict=True, assign=True)
    broken = [key for key, value in network.state_dict().items() if not torch.isfinite(value).all()]
    if broken:
        raise CheckpointError(f"{path} holds NaN or infinite weights ({_some(broken)}); get the file again.")
    return network.eval().requires_grad_(False)


def _difference(shapes: Mapping[str, tuple[int, ...]], network_name: str) -> str:
    """What separates a file from a network, in one line that names keys and shapes."""
    layout = _layout(network_name)
    missing = [key for key in layout if key not in shapes]
    unexpected = [key for key in shapes if key not in layout]
    reshaped = [
        f"{key} {shapes[key]} instead of {shape}" for key, shape in layout.items() if key in shapes and shapes[key] != shape
    ]
    parts = [("lacks", missing), ("has in excess", unexpected), ("differs in shape:", reshaped)]
    found = "; ".join(f"{word} {_some(keys)}" for word, keys in parts if keys)
    return f"Compared with {network_name} it {found}."


def _some(keys: list[str]) -> str:
    shown = ", ".join(keys[:_KEYS_SHOWN])
    return shown if len(keys) <= _KEYS_SHOWN else f"{shown} and {len(keys) - _KEYS_SHOWN} more"
