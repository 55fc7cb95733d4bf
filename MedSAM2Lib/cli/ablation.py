"""`medsam2 ablation`: what each part of the self-sorting memory does, and more prompts and axes, on labelled cases."""

from __future__ import annotations

import argparse
from pathlib import Path

from MedSAM2Lib.cli.engine import add_engine_arguments

NAME = "ablation"
HELP = "measure what the parts of the memory, prompts and orientations do, on labelled cases"

# As MedSAM2Lib.evaluation.ablation has them; a test compares. That module needs torch.
STUDIES = ("parts", "threshold", "capacity", "open", "frequency", "orientations")

_MORE = """
Every variant segments the same structures from the same boxes, and is compared with SAM 2's own rule of memory. DIR
gets ablation.md (tables with 95 % bootstrap intervals), ablation.csv (a line per structure and variant) and ablation.png.
A run that was interrupted goes on where it stopped when the same command is given again.

examples:
  medsam2 ablation manifest.json -o ablation
  medsam2 ablation manifest.json -o ablation --studies parts,frequency --page docs/memory.md --plot docs/images/memory.png
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.usage = "medsam2 ablation MANIFEST.json -o DIR [options]"
    parser.epilog = _MORE
    parser.add_argument("manifest", metavar="MANIFEST.json", type=Path, help="the cases, as for evaluate")
    parser.add_argument("-o", "--output", metavar="DIR", type=Path, required=True, help="folder for the results")
    parser.add_argument("--cases", metavar="ID,...", help="only these cases")
    parser.add_argument("--studies", metavar="NAME,...", help=f"only these of {', '.join(STUDIES)}")
    parser.add_argument("--likeness", action="store_true", help="also how alike the memories are, as a pass goes on")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="of random slices and intervals; default 0")
    parser.add_argument("--page", metavar="FILE.md", type=Path, help="put the tables between the marks of this page, too")
    parser.add_argument("--plot", metavar="FILE.png", type=Path, help="where the plot goes instead of DIR")
    add_engine_arguments(parser)


def run(args: argparse.Namespace) -> int:
    from MedSAM2Lib.cli.ablation_run import ablate, request_of

    outcome = ablate(request_of(args))
    print(outcome.tables)
    for path in outcome.written:
        print(f"wrote {path}")
    for problem in outcome.problems:
        print(f"not scored: {problem}")
    return 1 if outcome.problems else 0
