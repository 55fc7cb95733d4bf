"""Draws `attempts.csv`, the learning curves of all attempts at nano: python docs/models/attempts.py"""

from __future__ import annotations

import csv
from collections import defaultdict
from pathlib import Path

from matplotlib import colormaps
from matplotlib.figure import Figure

HERE = Path(__file__).parent


def main() -> None:
    curves: dict[str, list[dict[str, str]]] = defaultdict(list)
    with (HERE / "attempts.csv").open(newline="") as file:
        for row in csv.DictReader(file):
            curves[row["attempt"]].append(row)
    figure = Figure(figsize=(14, 4), layout="constrained")
    axes = figure.subplots(1, 3, sharey=True)
    named: set[str] = set()  # each curve once
    for number, (attempt, rows) in enumerate(sorted(curves.items(), key=lambda curve: int(curve[0].split()[0]))):
        for one, measure in zip(axes, ("prompted_dice", "tracked_dice", "draft_dice"), strict=True):
            points = [(int(row["slices"]) / 1000, float(row[measure])) for row in rows if row[measure]]
            if points:
                color, label = colormaps["tab20"](2 * number % 20 + number // 10), None if attempt in named else attempt
                one.plot(*zip(*points, strict=True), color=color, marker=".", label=label)
                named.add(attempt)
    for one, title in zip(axes, ("slice with the box", "slices tracked from it", "drafts of cubes"), strict=True):
        one.set(xlabel="slices (planes) trained on, thousands", title=title, ylim=(0.2, 0.8))
    axes[0].set_ylabel("Dice on held-out clips")
    for one in axes:
        one.legend(loc="lower right", fontsize="small")
    figure.savefig(HERE.parent / "images" / "nano_attempts.png", dpi=110)


if __name__ == "__main__":
    main()
