"""`medsam2 benchmark --approximations`: what each of them is worth, as a table."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import torch

from MedSAM2Lib.benchmark import approximations
from MedSAM2Lib.checkpoints.loading import LoadedModel
from MedSAM2Lib.cli.console import tell

__all__ = ["measure_approximations"]


def measure_approximations(model: LoadedModel, slices: int, with_reference: bool) -> list[dict[str, Any]]:
    """Measures, prints, and returns the rows as `json` can write them."""
    rows = approximations.measure_approximations(
        model, slices, with_reference=with_reference, note=lambda step: tell(f"measuring: {step}")
    )
    size, threads = model.network.config.image_size, torch.get_num_threads()
    print(f"{model.name} at {size} pixels, {slices} slices, {threads} {'thread' if threads == 1 else 'threads'}")
    print("each twice: a slice of a first pass, a slice of a second one with image features at hand\n")
    print(f"{'':54}{'takes':>16}{'exact takes':>16}{'Meta takes':>16}   Dice to exact: mean, lowest")
    for row in rows:
        takes = f"{1000 * row.first_pass:.0f}, {1000 * row.second_pass:.0f} ms"
        exact, meta = _times(row.first_to_exact, row.second_to_exact), _times(row.first_to_reference, row.second_to_reference)
        dice = "-" if row.mean_dice is None else f"{row.mean_dice:.4f}, {row.lowest_dice:.4f}"
        print(f"{row.name:54}{takes:>16}{exact:>16}{meta:>16}   {dice}")
    return [asdict(row) for row in rows]


def _times(first: float | None, second: float | None) -> str:
    return "-" if first is None or second is None else f"{first:.2f}, {second:.2f} x"
