"""The learning curve of a run, as a picture. Needs matplotlib (the extra `train`)."""

from __future__ import annotations

import csv
from pathlib import Path

from MedSAM2Lib.atomic import atomic_path

__all__ = ["plot_learning_curve"]

_DICE_COLUMNS = {
    "prompted_dice": "Dice, prompted slice",
    "tracked_dice": "Dice, tracked slices",
    "draft_dice": "Dice, drafts in 3D",
}


def plot_learning_curve(log: Path, picture: Path) -> None:
    """Draws loss and held-out Dice over steps from a run's log.csv into a PNG. Raises ImportError without matplotlib."""
    from matplotlib.figure import Figure

    with log.open(newline="") as file:
        rows = list(csv.DictReader(file))
    figure = Figure(figsize=(8, 4), layout="constrained")
    loss_axes, dice_axes = figure.subplots(1, 2)
    loss_axes.plot([int(row["step"]) for row in rows], [float(row["loss"]) for row in rows], color="tab:gray")
    loss_axes.set(xlabel="step", ylabel="training loss", yscale="log")
    for column, label in _DICE_COLUMNS.items():
        validated = [row for row in rows if row.get(column)]
        steps, scores = [int(row["step"]) for row in validated], [float(row[column]) for row in validated]
        if scores:
            dice_axes.plot(steps, scores, marker=".", label=label)
    dice_axes.set(xlabel="step", ylabel="held out", ylim=(0, 1))
    if dice_axes.lines:
        dice_axes.legend(loc="lower right")
    with atomic_path(picture) as temporary:
        figure.savefig(temporary, dpi=120, format="png")
