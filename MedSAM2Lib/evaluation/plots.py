"""Plots of a run's rows as PNG. matplotlib is optional (the `train` extra), and drawn without its global state."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from MedSAM2Lib.atomic import atomic_path
from MedSAM2Lib.evaluation.baselines import BASELINES
from MedSAM2Lib.evaluation.rows import MODEL, Row
from MedSAM2Lib.evaluation.summary import Group

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["plot_corrections", "plot_groups"]

_COLORS = {MODEL: "#2166ac", "ellipsoid": "#bdbdbd", "region grower": "#f4a582"}
_BOX_WIDTH = 0.25
_LEAST_WIDTH, _INCHES_PER_GROUP = 6.0, 1.3
_DOTS_PER_INCH = 130


def plot_groups(path: Path, groups: dict[str, list[Row]]) -> None:
    """3D Dice per group as boxes (quartiles, whiskers to the extremes, a dot per structure), baselines beside the model.

    Groups without a volume are left out; without any, nothing is written. Raises ImportError without matplotlib.
    """
    shown = {name: rows for name, rows in groups.items() if any(row.dice is not None for row in rows)}
    if not shown:
        return
    figure, axes = _figure(max(_LEAST_WIDTH, _INCHES_PER_GROUP * len(shown)))
    methods = (MODEL, *BASELINES)
    for place, method in enumerate(methods):
        offset = (place - (len(methods) - 1) / 2) * _BOX_WIDTH
        for x, rows in enumerate(shown.values()):
            values = [row.dice for row in rows if row.method == method and row.corrections == 0 and row.dice is not None]
            _draw_box(axes, x + offset, values, _COLORS[method])
        axes.plot([], [], color=_COLORS[method], linewidth=6, label=method)
    names = [f"{name}\n(n = {_count(rows)})" for name, rows in shown.items()]
    axes.set_xticks(range(len(shown)), names, fontsize=8, rotation=20 if len(shown) > 6 else 0)
    _finish(axes, "3D Dice from the first prompt")
    _save(figure, path)


def plot_corrections(path: Path, rows: Sequence[Row], group: Group) -> None:
    """3D Dice against the number of corrections: a thin line per structure, their mean and its interval."""
    steps = [one for one in group.methods if one.method == MODEL and one.dice is not None]
    if not steps:
        return
    figure, axes = _figure(_LEAST_WIDTH)
    mine = [row for row in rows if row.method == MODEL and row.dice is not None]
    for key in sorted({(row.case, row.structure) for row in mine}):
        line = sorted((row.corrections, row.dice) for row in mine if (row.case, row.structure) == key)
        axes.plot(*zip(*line, strict=True), color="#2166ac", alpha=0.2, linewidth=0.8)
    counts = [one.corrections for one in steps]
    intervals = [one.dice for one in steps if one.dice is not None]
    axes.fill_between(counts, [i.low for i in intervals], [i.high for i in intervals], color="#2166ac", alpha=0.2)
    axes.plot(counts, [i.mean for i in intervals], "o-", color="#2166ac", linewidth=2.5, label="mean and 95 % interval")
    axes.set_xticks(counts)
    axes.set_xlabel("simulated corrections")
    _finish(axes, "3D Dice")
    _save(figure, path)


def _figure(width: float) -> tuple[Figure, Any]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, 4.2), layout="constrained")
    return figure, figure.add_subplot()


def _draw_box(axes: Axes, x: float, values: Sequence[float], color: str) -> None:
    if not values:
        return
    style = {"color": "#333333", "linewidth": 1.0}
    axes.boxplot(
        [values],
        positions=[x],
        widths=_BOX_WIDTH * 0.85,
        whis=(0, 100),
        patch_artist=True,
        boxprops={"facecolor": color, **style},
        medianprops=style,
        whiskerprops=style,
        capprops=style,
    )
    spread = np.linspace(-0.06, 0.06, len(values)) if len(values) > 1 else np.zeros(1)
    axes.plot(x + spread, values, ".", color="#333333", markersize=2.5, alpha=0.7)


def _count(rows: Sequence[Row]) -> int:
    return sum(row.method == MODEL and row.corrections == 0 and row.dice is not None for row in rows)


def _finish(axes: Axes, label: str) -> None:
    axes.set_ylim(-0.02, 1.02)
    axes.set_ylabel(label)
    axes.grid(axis="y", alpha=0.3)
    axes.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=3, fontsize=8, frameon=False)


def _save(figure: Figure, path: Path) -> None:
    with atomic_path(path) as temporary:
        figure.savefig(temporary, format="png", dpi=_DOTS_PER_INCH)
