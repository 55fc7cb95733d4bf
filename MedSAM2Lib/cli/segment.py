"""`medsam2 segment`: one image, prompts, a mask; optionally a picture and a report."""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import TYPE_CHECKING

from MedSAM2Lib.cli.console import millilitres, tell
from MedSAM2Lib.cli.engine import add_engine_arguments, add_sight_arguments
from MedSAM2Lib.cli.orientation import add_orientation_arguments
from MedSAM2Lib.cli.prompt_options import add_prompt_arguments

if TYPE_CHECKING:
    from MedSAM2Lib.cli.segmentation import Outcome

NAME = "segment"
HELP = "segment objects of an image, each from a prompt on one slice"

# As MedSAM2Lib.geometry and .intensity have them; a test compares. Those modules need numpy.
AXES = ("k", "j", "i", "axial", "coronal", "sagittal")
WINDOW_PRESETS = ("abdomen", "soft-tissue", "liver", "lung", "mediastinum", "bone", "brain", "stroke", "subdural", "spine")

_EXAMPLES = """
examples:
  medsam2 segment ct.nii.gz -o liver.nii.gz --box "liver:42:80,60,210,190" --preview liver.png
  medsam2 segment dicom_folder -o organs.seg.nrrd --box "liver:42:80,60,210,190" --box "spleen:40:260,90,330,200"
  medsam2 segment mr.nrrd -o lesion.nrrd --recist "lesion:12:101,88,120,97" --axis k --window percentiles
  medsam2 segment mr.nrrd -o cord.nrrd --plane ras:0,0.3,0.95 --box "cord:ras:12,-20.5,31,-4,-38,36"
  medsam2 segment photos -o masks --box "disc:patient7.png:310,220,420,335"
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.usage = "medsam2 segment IMAGE -o MASK PROMPT ... [options]"
    parser.epilog = _EXAMPLES
    parser.add_argument(
        "image", metavar="IMAGE", type=Path,
        help="NIfTI, NRRD, MHA/MHD, a DICOM folder, .npz of the MedSAM challenges; or a set of single images without order: "
        "a folder of PNG, JPEG or DICOM, or one PNG or JPEG (docs/images_2d.md)",
    )
    parser.add_argument(
        "-o", "--output", metavar="MASK", type=Path, required=True,
        help=".nii.gz, .nii, .nrrd, .mha: a map of labels 1, 2, ...; .seg.nrrd: named segments for 3D Slicer. "
        "A file of that name is replaced, when the new one is whole. Of single images, a folder",
    )  # fmt: skip
    add_prompt_arguments(parser)
    add_engine_arguments(parser)
    volume = parser.add_argument_group("how the image is seen")
    add_view_arguments(volume)
    volume.add_argument("--range", metavar="FIRST:LAST", help="stay within these slices, both included")
    volume.add_argument("--series", metavar="UID", help="which series of a DICOM folder")
    add_mask_arguments(parser.add_argument_group("how the masks are made"))
    results = parser.add_argument_group("what else to write")
    results.add_argument("--preview", metavar="FILE.png", type=Path, help="a contact sheet of slices with contours")
    results.add_argument(
        "--report", metavar="FILE.json", type=Path, help="prompts, model, versions, confidence per slice, volumes, timings"
    )
    results.add_argument(
        "--uncertainty", metavar="FILE", type=Path, help="a map of where orientations disagree: 0 nowhere, 1 in halves"
    )


def add_view_arguments(group: argparse._ArgumentGroup) -> None:
    """How an image is seen: the same for one case and for many."""
    group.add_argument(
        "--axis", choices=AXES, help="slicing axis: of the array (k is the file's slowest), or of the patient; default k"
    )
    group.add_argument(
        "--plane", metavar="SPACE:NORMAL[:POINT]",
        help="oblique slices instead: at right angles to a direction, as ras:0.3,0,0.95 (or lps:...), one of them through a "
        "point in mm; default: through the middle",
    )  # fmt: skip
    group.add_argument(
        "--window", default="auto", metavar="WINDOW",
        help="auto (soft tissue for CT, else percentiles), percentiles, LOW:HIGH, or a preset in HU: "
        + ", ".join(WINDOW_PRESETS),
    )  # fmt: skip


def add_mask_arguments(group: argparse._ArgumentGroup) -> None:
    """How masks are made: the same for one case and for many."""
    add_sight_arguments(group)
    group.add_argument(
        "--stop-after",
        type=int,
        default=3,
        metavar="N",
        help="end a direction after N slices without the object; 0: never; default 3",
    )
    add_orientation_arguments(group)
    group.add_argument("--no-fill-holes", action="store_true", help="leave small holes in the masks open")
    group.add_argument("--keep-all", action="store_true", help="keep every piece of an object, not only the largest")


def run(args: argparse.Namespace) -> int:
    from MedSAM2Lib.cli.image_set_inputs import asks_for_image_set

    if asks_for_image_set(args):
        from MedSAM2Lib.cli.image_set import perform as perform_on_images

        perform_on_images(args)
    else:
        perform(args)
    return 0


def perform(args: argparse.Namespace) -> Outcome:
    """Segments as the arguments say, and prints what came of it; also for `demo`."""
    started = time.perf_counter()
    timings: dict[str, float] = {}
    from MedSAM2Lib.cli.inputs import read_inputs, request_of

    request = request_of(args)
    inputs = read_inputs(request)
    timings["read_image"] = time.perf_counter() - started
    tell(f"loading {request.engine.model}")
    from MedSAM2Lib.cli.segmentation import segment  # torch: not before the request is known to be sound

    timings["import_torch"] = time.perf_counter() - started - timings["read_image"]
    outcome = segment(request, inputs, timings, started)
    _print_outcome(outcome)
    return outcome


def _print_outcome(outcome: Outcome) -> None:
    width = max(len(summary.name) for summary in outcome.summaries)
    for summary in outcome.summaries:
        if summary.slices is None:
            print(f"{summary.name:{width}}  nothing found")
            continue
        first, last = summary.slices
        print(
            f"{summary.name:{width}}  slices {first}..{last} ({summary.slice_count})  {millilitres(summary.volume_ml):>9} mL  "
            f"confidence {summary.confidence:.2f}"
        )
    for path, what in outcome.written:
        print(f"wrote {path}{f' ({what})' if what else ''}")
