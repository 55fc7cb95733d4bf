"""The model that a command runs: its options, what can be found wrong with them at once, and how it is loaded.

No numpy and no torch at the top level: `--help` reads this module.
"""

from __future__ import annotations

import argparse
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from MedSAM2Lib.errors import OptionError
from MedSAM2Lib.memory.options import MEMORIES, MemoryName
from MedSAM2Lib.network.config import APPROXIMATIONS, NETWORKS, PRECISIONS, Approximation, Precision

if TYPE_CHECKING:
    from MedSAM2Lib.checkpoints.loading import LoadedModel, LoadedSAM
    from MedSAM2Lib.inference.session import SessionOptions

__all__ = [
    "DEVICES", "PRECISION_HELP", "THREADS_HELP", "Engine", "add_engine_arguments", "add_sight_arguments", "at_least", "engine_of",
    "load_any_engine", "load_engine", "session_options",
]  # fmt: skip

DEVICES = ("auto", "cpu", "cuda", "mps")  # as MedSAM2Lib.device has them; a test compares
THREADS_HELP = "processor threads; default: 1 for a network of small images (nano), else as many as there are cores"

PRECISION_HELP = "float32 is exact (default); bfloat16 is faster, and masks differ a little at their edge"


@dataclass(frozen=True)
class Engine:
    """The model a person asked for, where it runs, and how it looks at a slice."""

    model: str = "nano"
    network: str | None = None
    device: str = "auto"
    threads: int | None = None  # None: as many as suit the network
    zoom: float | str | None = "auto"  # None: the whole slice; "auto": as the model was trained
    depth_prior: bool = True
    drafts: bool = True
    memory: MemoryName = "recent"
    precision: Precision = "float32"
    approximations: tuple[Approximation, ...] = ()


def add_engine_arguments(parser: argparse.ArgumentParser) -> None:
    """Which weights, on which processor: the same for every command that runs a network."""
    group = parser.add_argument_group("the model")
    group.add_argument(
        "--model", default="nano", metavar="ID|FILE", help="a model of `medsam2 models`, or a checkpoint; default nano"
    )
    group.add_argument(
        "--network",
        choices=tuple(NETWORKS),
        metavar="NAME",
        help=f"what a FILE is for, where it fits several: {', '.join(NETWORKS)}",
    )
    group.add_argument("--device", default="auto", choices=DEVICES, help="auto takes a GPU if there is one")
    group.add_argument("--threads", type=int, metavar="N", help=THREADS_HELP)
    group.add_argument("--precision", choices=PRECISIONS, default="float32", help=PRECISION_HELP)
    group.add_argument(
        "--approximate", action="append", default=[], choices=APPROXIMATIONS,
        help="faster, with masks that are not quite the network's own (docs/performance.md); repeatable",
    )  # fmt: skip


def add_sight_arguments(group: argparse._ArgumentGroup) -> None:
    """How the model looks at a slice, and what it expects: the same for every command that makes masks as asked."""
    group.add_argument(
        "--zoom", default="auto", metavar="auto|off|FACTOR",
        help="look at a square FACTOR times the prompt instead of the whole slice; auto: as the model was trained",
    )  # fmt: skip
    group.add_argument("--no-depth-prior", action="store_true", help="do not expect objects to be about as deep as wide (nano)")
    group.add_argument("--no-drafts", action="store_true", help="from slice to slice without drafts of the whole object (nano)")
    group.add_argument(
        "--memory", choices=MEMORIES,
        help="which slices a slice gets to see: the last ones, as in SAM 2 (default); those worth most, as in the paper of "
        "Medical SAM 2 (default for a set of images), or these drawn by chance; or by that paper's published code",
    )  # fmt: skip


def engine_of(args: argparse.Namespace) -> Engine:
    """What the arguments of `add_engine_arguments` and, where the command has them, `add_sight_arguments` ask for.

    Raises OptionError.
    """
    threads = at_least("--threads", args.threads, 1)
    if "zoom" not in args:
        return Engine(
            args.model, args.network, args.device, threads, precision=args.precision, approximations=tuple(args.approximate)
        )
    return Engine(
        args.model,
        args.network,
        args.device,
        threads,
        _zoom_of(args.zoom),
        not args.no_depth_prior,
        not args.no_drafts,
        args.memory or "recent",
        args.precision,
        tuple(args.approximate),
    )


def load_engine(engine: Engine) -> LoadedModel:
    """Loads the model and gives torch its threads. Raises OptionError (also for a model without memory) or CheckpointError."""
    from MedSAM2Lib.checkpoints.loading import with_memory

    return with_memory(load_any_engine(engine))


def load_any_engine(engine: Engine) -> LoadedModel | LoadedSAM:
    """As `load_engine`; models without memory as well."""
    import torch

    from MedSAM2Lib.checkpoints.loading import load_any_model
    from MedSAM2Lib.cli.console import warn
    from MedSAM2Lib.device import choose_device, sensible_threads
    from MedSAM2Lib.network.precision import bfloat16_gain
    from MedSAM2Lib.simpleitk import import_simpleitk

    device = choose_device(engine.device)
    model = load_any_model(engine.model, device, engine.network, engine.precision, engine.approximations)
    if engine.threads is not None:
        import_simpleitk().ProcessObject.SetGlobalDefaultNumberOfThreads(engine.threads)
    torch.set_num_threads(engine.threads or sensible_threads(model.network.config))
    if engine.precision == "bfloat16" and device.type == "cpu" and bfloat16_gain() < 1:
        warn("this processor computes in bfloat16 more slowly than exactly; leave --precision out.")
    return model


def session_options(engine: Engine, model: LoadedModel | LoadedSAM) -> SessionOptions:
    """What the request says of a session; all else is as the session has it."""
    from MedSAM2Lib.inference.session import SessionOptions

    zoom = model.zoom if engine.zoom == "auto" else engine.zoom
    return SessionOptions(
        zoom=None if zoom is None else float(zoom),
        depth_prior=model.depth_prior if engine.depth_prior else None,
        drafts=engine.drafts,
        memory=engine.memory,
    )


def at_least(option: str, value: int | None, least: int) -> int | None:
    """The value of an option. Raises OptionError where it is lower."""
    if value is not None and value < least:
        raise OptionError(f"{option} must be at least {least}, but {value} came.")
    return value


def _zoom_of(text: str) -> float | str | None:
    """What `--zoom` means: "auto", None for the whole slice, or a factor. Raises OptionError."""
    if text == "auto":
        return text
    if text == "off":
        return None
    try:
        factor = float(text)
    except ValueError:
        factor = math.nan
    if not 1 <= factor < math.inf:
        raise OptionError(f"--zoom is auto, off, or a number from 1 (sides of the prompt), but {text} came.")
    return factor
