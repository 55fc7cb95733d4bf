"""`medsam2 benchmark --approximations`: what each of them is worth, as a table."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import torch

from MedSAM2Lib.benchmark import approximations
from MedSAM2Lib.benchmark.reference import NewReference
from MedSAM2Lib.checkpoints.loading import LoadedModel
from MedSAM2Lib.cli.console import tell

__all__ = ["measure_approximations"]


def measure_approximations(model: LoadedModel, slices: int, references: Mapping[str, NewReference]) -> list[dict[str, Any]]:
    """Measures, prints, and returns the rows as `json` can write them."""
    rows = approximations.measure_approximations(model, slices, references, lambda step: tell(f"measuring: {step}"))
    size, threads = model.network.config.image_size, torch.get_num_threads()
    print(f"{model.name} at {size} pixels, {slices} slices, {threads} {'thread' if threads == 1 else 'threads'}")
    print("each twice: a slice of a first pass, a slice of a second one with image features at hand\n")
    titles = "".join(f"{name + ' take':>20}" for name in references)
    print(f"{'':54}{'takes':>16}{'exact takes':>16}{titles}   Dice to exact: mean, lowest")
    for row in rows:
        takes = f"{1000 * row.first_pass:.0f}, {1000 * row.second_pass:.0f} ms"
        dice = "-" if row.mean_dice is None else f"{row.mean_dice:.4f}, {row.lowest_dice:.4f}"
        others = "".join(f"{_times(*row.to_references[name]):>20}" for name in references)
        print(f"{row.name:54}{takes:>16}{_times(*row.to_exact):>16}{others}   {dice}")
    return [asdict(row) for row in rows]


def _times(first: float, second: float) -> str:
    return f"{first:.2f}, {second:.2f} x"
