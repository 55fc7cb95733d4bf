"""The comparisons of an ablation as Markdown tables and one plot, and their place in a page of the documentation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from MedSAM2Lib.atomic import atomic_path
from MedSAM2Lib.errors import UsageError
from MedSAM2Lib.evaluation.ablation import Comparison, Study
from MedSAM2Lib.evaluation.bootstrap import Interval

__all__ = ["around_marks", "markdown", "plot_comparisons", "put_into_page"]

_BEGIN, _END = "<!-- ablation: written by medsam2 ablation -->", "<!-- end of ablation -->"
_WIDTH, _HEIGHT_PER_VARIANT, _LEAST_HEIGHT = 8.0, 0.26, 2.0  # inches
_DOTS_PER_INCH = 130
_LEAST_REACH = 0.02  # of the scale to either side of zero, in Dice
_COLOR = "#2166ac"


def markdown(results: Mapping[str, Sequence[Comparison]], studies: Mapping[str, Study], told: str) -> str:
    """What was done, and one table per study."""
    parts = [told]
    for key, comparisons in results.items():
        parts += [f"### {studies[key].title}", "\n".join(_table(comparisons))]
    return "\n\n".join(parts) + "\n"


def _table(comparisons: Sequence[Comparison]) -> list[str]:
    lines = ["| | 3D Dice | difference from SAM 2's rule | better | worse | s |", "| --- | --- | --- | --- | --- | --- |"]
    lines += [
        f"| {one.variant} | {_interval(one.dice)} | {_interval(one.difference, '+')} | {one.better} | {one.worse} "
        f"| {one.seconds:.1f} |"
        for one in comparisons
    ]
    return lines


def _interval(value: Interval, sign: str = "") -> str:
    mean, low, high = (round(figure, 3) + 0.0 for figure in (value.mean, value.low, value.high))  # + 0.0: no "-0.000"
    return f"{mean:{sign}.3f} [{low:{sign}.3f}, {high:{sign}.3f}]"


def put_into_page(page: Path, content: str) -> None:
    """Replaces what stands between the page's two marks."""
    before, after = around_marks(page)
    with atomic_path(page) as temporary:
        temporary.write_text(f"{before}{_BEGIN}\n\n{content}\n{_END}{after}", encoding="utf-8")


def around_marks(page: Path) -> tuple[str, str]:
    """What stands before and after a page's two marks. Raises UsageError where it lacks them."""
    try:
        text = page.read_text(encoding="utf-8")
    except OSError as error:
        raise UsageError(f"{page} cannot be read ({error.strerror}); give a page that has the line {_BEGIN!r}.") from error
    before, begin, rest = text.partition(_BEGIN)
    _, end, after = rest.partition(_END)
    if not (begin and end):
        raise UsageError(f"{page} must have the lines {_BEGIN!r} and {_END!r}, between which the tables go.")
    return before, after


def plot_comparisons(path: Path, results: Mapping[str, Sequence[Comparison]], studies: Mapping[str, Study]) -> None:
    """Difference in 3D Dice of every variant, a point and its 95 % interval; studies below each other, each with its scale.

    What is compared with itself is left out. Raises ImportError without matplotlib.
    """
    from matplotlib.figure import Figure

    against = {key: {one.name for one in study.against} for key, study in studies.items()}
    results = {key: [one for one in several if one.variant not in against[key]] for key, several in results.items()}
    heights = [2.5 + len(comparisons) for comparisons in results.values()]
    height = max(_LEAST_HEIGHT, _HEIGHT_PER_VARIANT * sum(heights))
    figure = Figure(figsize=(_WIDTH, height), layout="constrained")
    panels = figure.subplots(len(results), 1, squeeze=False, height_ratios=heights)[:, 0]
    for axes, (key, comparisons) in zip(panels, results.items(), strict=True):
        places = range(len(comparisons))
        means = [one.difference.mean for one in comparisons]
        below = [one.difference.mean - one.difference.low for one in comparisons]
        above = [one.difference.high - one.difference.mean for one in comparisons]
        axes.axvline(0, color="#999999", linewidth=0.8)
        axes.errorbar(means, places, xerr=(below, above), fmt="o", color=_COLOR, markersize=4, capsize=2, linewidth=1)
        axes.set_yticks(places, [one.variant for one in comparisons], fontsize=8)
        axes.set_ylim(len(comparisons) - 0.5, -0.5)
        axes.set_title(studies[key].title, fontsize=9, loc="left")
        axes.tick_params(axis="x", labelsize=8)
        axes.grid(axis="x", alpha=0.3)
        left, right = axes.get_xlim()
        axes.set_xlim(min(left, -_LEAST_REACH), max(right, _LEAST_REACH))  # or nothing, magnified, would look like something
    panels[-1].set_xlabel("difference in 3D Dice from SAM 2's rule (mean over structures, 95 % interval)", fontsize=8)
    with atomic_path(path) as temporary:
        figure.savefig(temporary, format="png", dpi=_DOTS_PER_INCH)
