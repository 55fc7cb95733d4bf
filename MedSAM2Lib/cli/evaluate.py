"""`medsam2 evaluate`: a model on labelled cases, with figures that anyone can reproduce."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from MedSAM2Lib.cli.engine import add_engine_arguments, add_sight_arguments
from MedSAM2Lib.cli.orientation import COUNTS

if TYPE_CHECKING:
    from MedSAM2Lib.evaluation.bootstrap import Interval
    from MedSAM2Lib.evaluation.summary import Group, MethodSummary

NAME = "evaluate"
HELP = "score a model on labelled cases, beside two baselines"

# As MedSAM2Lib.evaluation has them; a test compares. Those modules need numpy.
PROMPTS = ("box", "jittered-box", "point", "mask", "recist")
SLICES = ("suggested", "centre")
CORRECTIONS = ("click", "box", "mask")
WORST = ("dice", "area")

_MORE = """
DIR gets results.csv (a line per structure, method and number of corrections), summary.json (the same, with means and
95 % bootstrap intervals per group), plots, and a picture of every structure. A run that was interrupted goes on where it
stopped when the same command is given again.

examples:
  medsam2 evaluate manifest.json -o scores
  medsam2 evaluate manifest.json -o scores3 --corrections 3 --train-manifest train/manifest.json
  medsam2 evaluate manifest.json -o clicks --prompt point --slice centre --model medsam2.pt
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.usage = "medsam2 evaluate MANIFEST.json -o DIR [options]"
    parser.epilog = _MORE
    parser.add_argument("manifest", metavar="MANIFEST.json", type=Path, help="the cases: images, label maps, structures, boxes")
    parser.add_argument("-o", "--output", metavar="DIR", type=Path, required=True, help="folder for the results")
    parser.add_argument("--cases", metavar="ID,...", help="only these cases")
    parser.add_argument(
        "--train-manifest", metavar="FILE", type=Path,
        help="what the model was trained on: cases that share a source with it are reported apart",
    )  # fmt: skip
    add_engine_arguments(parser)
    prompts = parser.add_argument_group("the simulated person")
    prompts.add_argument("--prompt", choices=PROMPTS, default="box", help="what is drawn; default box")
    prompts.add_argument(
        "--slice", choices=SLICES, default="suggested", help="where: the manifest's suggestion, or the centre of mass"
    )
    prompts.add_argument(
        "--every", type=float, metavar="P", help="instead of one slice, a random share P (0..1) of those with the object"
    )
    prompts.add_argument(
        "--corrections",
        type=int,
        default=0,
        metavar="N",
        help="corrections afterwards, each of the worst slice, with a new propagation",
    )
    prompts.add_argument(
        "--correct-with", choices=CORRECTIONS, default="click",
        help="a click in the slice's largest error (default), a box around the object there, or its painted mask; a click where "
        "the object is not there",
    )  # fmt: skip
    prompts.add_argument(
        "--worst", choices=WORST, default="dice", help="the worst slice has the lowest Dice (default) or the largest wrong area"
    )
    prompts.add_argument("--seed", type=int, default=0, metavar="N", help="of jitter, random slices and intervals; default 0")
    view = parser.add_argument_group("how the images are seen")
    view.add_argument(
        "--window",
        default="auto",
        metavar="WINDOW",
        help="display (the manifest's, where it has one), or as for segment; default auto",
    )
    add_sight_arguments(view)
    view.add_argument(
        "--orientations",
        type=int,
        choices=COUNTS,
        default=1,
        help="look along all three axes (3), and inwards as well (6), and put the masks together; default 1",
    )


def run(args: argparse.Namespace) -> int:
    from MedSAM2Lib.cli.evaluation import evaluate, request_of

    outcome = evaluate(request_of(args))
    print(f"model {outcome.model}; {outcome.told_prompt}")
    for group in outcome.groups:
        _print_group(group)
    for path in outcome.written:
        print(f"wrote {path}")
    for problem in outcome.problems:
        print(f"not scored: {problem}")
    return 1 if outcome.problems else 0


def _print_group(group: Group) -> None:
    first = group.methods[0]
    in_3d = "" if first.structures_3d == first.structures else f", {first.structures_3d} of them in volumes"
    print(f"\n{group.name}: {_counted(first.structures, 'structure')} of {_counted(first.cases, 'case')}{in_3d}")
    print(f"  {'':22}{'slice Dice':20}{'3D Dice':20}{'surface Dice 2 mm':20}{'HD95 mm':>8}{'seconds':>9}  better than")
    for one in group.methods:
        print("  " + _line(one).rstrip())


def _line(one: MethodSummary) -> str:
    corrected = f", {one.corrections} corrected" if one.corrections else ""
    hd95 = "-" if one.median_hd95_mm is None else f"{one.median_hd95_mm:.1f}"
    seconds = "" if one.median_seconds is None else f"{one.median_seconds:.1f}"
    beaten = ", ".join(f"{name} on {share:.0%}" for name, share in one.beats_in_3d.items())
    empty = f"; {one.empty_masks} empty" if one.empty_masks else ""
    intervals = "".join(f"{_interval(value):20}" for value in (one.slice_dice, one.dice, one.surface_dice))
    return f"{one.method + corrected:22}{intervals}{hd95:>8}{seconds:>9}  {beaten}{empty}"


def _interval(value: Interval | None) -> str:
    return "-" if value is None else f"{value.mean:.3f} [{value.low:.2f}, {value.high:.2f}]"


def _counted(count: int, what: str) -> str:
    return f"{count} {what}{'' if count == 1 else 's'}"
