"""`--orientations`: several slicing axes for one prompt, in `medsam2 segment`. Its options are read without numpy and torch."""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from MedSAM2Lib.cli.console import Progress
from MedSAM2Lib.errors import OptionError

if TYPE_CHECKING:
    from MedSAM2Lib.cli.inputs import Inputs
    from MedSAM2Lib.inference.opening import AnySession
    from MedSAM2Lib.inference.orientations import Aggregation, OrientedMask
    from MedSAM2Lib.slice_stack import SliceStack

__all__ = [
    "AGGREGATIONS", "COUNTS", "OrientationRequest", "add_orientation_arguments", "check_orientations", "orientation_request",
    "oriented_masks", "told_in_report", "write_uncertainty",
]  # fmt: skip

# As MedSAM2Lib.inference.orientations has them; a test compares.
COUNTS = (1, 3, 6)
AGGREGATIONS = ("mean", "majority")


@dataclass(frozen=True)
class OrientationRequest:
    count: int = 1
    aggregation: Aggregation = "mean"
    uncertainty: Path | None = None  # where the map of disagreement goes


def add_orientation_arguments(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--orientations", type=int, choices=COUNTS,
        help="look along all three axes (3), and inwards as well (6), and put the masks together; default 1",
    )  # fmt: skip
    group.add_argument(
        "--aggregate", choices=AGGREGATIONS, help="how orientations are put together: mean of logits (default), or majority"
    )


def orientation_request(args: argparse.Namespace) -> OrientationRequest:
    """Raises OptionError where an option needs more than one orientation."""
    count = args.orientations or 1
    for option in ("aggregate", "uncertainty"):
        if count == 1 and getattr(args, option) is not None:
            raise OptionError(f"--{option} is about several orientations; add --orientations 3 or 6, or leave it out.")
    return OrientationRequest(count, args.aggregate or "mean", args.uncertainty)


def check_orientations(session: AnySession, request: OrientationRequest) -> None:
    """Raises OptionError where the model cannot follow an object along other axes."""
    from MedSAM2Lib.inference.session import Session

    if request.count > 1 and not isinstance(session, Session):
        raise OptionError(f"{session.model.name} has no memory to follow an object along other axes; leave --orientations out.")


def oriented_masks(session: AnySession, request: OrientationRequest, inputs: Inputs, window: str) -> dict[str, OrientedMask]:
    """Every object of a session along the axes asked for, by name; empty for one orientation."""
    from MedSAM2Lib.inference.orientations import Orientations
    from MedSAM2Lib.inference.session import Session

    if request.count == 1 or not isinstance(session, Session):
        return {}
    axis = "kji"[inputs.array_axis]
    others = Orientations(session, inputs.sliced, axis, window, request.count, request.aggregation)
    masks = {}
    with Progress("other orientations", others.more * len(session.objects), "sequences") as progress:
        for place, name in enumerate(session.objects):
            done = iter(range(place * others.more + 1, (place + 1) * others.more + 1))

            def one_more(done: Any = done) -> None:
                progress.update(position := next(done), position)

            masks[name] = others.segment(name, inputs.within, one_more)
    return masks


def write_uncertainty(request: OrientationRequest, masks: dict[str, OrientedMask], stack: SliceStack) -> list[tuple[Path, str]]:
    """One map for all objects, at each voxel the most uncertain one's, where it was asked for; returns what was written."""
    if request.uncertainty is None:
        return []
    import numpy as np

    from MedSAM2Lib.volume_io.write import write_map

    most = np.maximum.reduce([one.uncertainty for one in masks.values()])
    write_map(request.uncertainty, stack.on_grid(most), stack.grid)
    return [(request.uncertainty, "where orientations disagree")]


def told_in_report(request: OrientationRequest, masks: dict[str, OrientedMask]) -> dict[str, Any]:
    """What a report says of the orientations."""
    return {
        "count": request.count,
        "aggregation": request.aggregation,
        "objects": {name: {"sequences": one.sequences, "agreement": round(one.agreement, 4)} for name, one in masks.items()},
    }
