"""`medsam2 batch`: many cases from a table, each as `medsam2 segment` does it, in several processes or on a cluster."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from MedSAM2Lib.cli.console import millilitres
from MedSAM2Lib.cli.engine import add_engine_arguments
from MedSAM2Lib.cli.segment import add_mask_arguments, add_view_arguments

if TYPE_CHECKING:
    from MedSAM2Lib.batch.records import CaseResult
    from MedSAM2Lib.cli.batch_run import Outcome

NAME = "batch"
HELP = "segment many cases, listed in a table"

# As MedSAM2Lib.volume_io.write has them; a test compares. That module needs numpy.
FORMATS = ("nii.gz", "nii", "nrrd", "mha", "seg.nrrd")

_MORE = """
CASES.csv has a line per case: its name, its image, and either boxes (as for segment --box, several with semicolons between
them) or a file of prompts. Paths are relative to the table:

  case,image,prompts,box,series
  p01,scans/p01.nii.gz,,"liver:42:80,60,210,190",
  p02,scans/p02.nrrd,,"liver:40:78,66,200,180; spleen:38:260,90,330,200",
  p03,dicom/p03,prompts/p03.json,,1.2.840.113619.2.1

DIR gets a mask per case, named after it, and summary.csv. The same command again does what is missing, failed, or was asked
otherwise before. Exit status 1: a case failed; the summary says which, and why. More: docs/batch.md

examples:
  medsam2 batch cases.csv -o masks
  medsam2 batch cases.csv -o masks --jobs 4 --previews --window liver
  medsam2 batch cases.csv -o masks --model medsam2 --scheduler tcp://cluster:8786
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.usage = "medsam2 batch CASES.csv -o DIR [options]"
    parser.epilog = _MORE
    parser.add_argument("cases", metavar="CASES.csv", type=Path, help="the cases, one per line")
    parser.add_argument("-o", "--output", metavar="DIR", type=Path, required=True, help="folder for the results")
    parser.add_argument("--format", choices=FORMATS, default="seg.nrrd", help="of the masks, as for segment; default seg.nrrd")
    parser.add_argument("--previews", action="store_true", help="also a contact sheet of each case, CASE.png")
    parser.add_argument("--reports", action="store_true", help="also a report of each case, CASE.json")
    where = parser.add_argument_group("where the work is done")
    where.add_argument("--jobs", type=int, metavar="N", help="so many processes here, each with its own model; default 1")
    where.add_argument("--scheduler", metavar="ADDRESS", help="an existing Dask cluster that sees the same files, here and there")
    add_engine_arguments(parser)
    add_view_arguments(parser.add_argument_group("how the images are seen"))
    add_mask_arguments(parser.add_argument_group("how the masks are made"))


def run(args: argparse.Namespace) -> int:
    from MedSAM2Lib.cli.batch_run import run_batch

    outcome = run_batch(args)
    _print_table(outcome)
    failed = [result for result in outcome.results if result.error is not None]
    done = len(outcome.results) - len(failed)
    before = f" ({outcome.done_before} of them before)" if outcome.done_before else ""
    print(f"{done} of {len(outcome.results)} cases done{before}, {len(failed)} failed")
    print(f"wrote {outcome.summary}")
    return 1 if failed else 0


def _print_table(outcome: Outcome) -> None:
    from MedSAM2Lib.batch.summary import status_of

    width = max(len("case"), *(len(result.case) for result in outcome.results))
    print(f"{'case':{width}}  status  seconds  objects")
    for result in outcome.results:
        print(f"{result.case:{width}}  {status_of(result):6}  {result.seconds:7.1f}  {_told(result)}".rstrip())
        for warning in result.warnings:
            print(f"{'':{width}}  warning: {warning}")


def _told(result: CaseResult) -> str:
    if result.error is not None:
        return result.error
    return ", ".join(f"{one.name} {millilitres(one.volume_ml)} mL" for one in result.objects)
