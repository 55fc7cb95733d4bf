"""`medsam2 demo`: a synthetic patient, segmented as `medsam2 segment` would, and compared with the truth. Offline."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from MedSAM2Lib.atomic import atomic_path, make_folder
from MedSAM2Lib.checkpoints.store import weights_path
from MedSAM2Lib.cli import segment
from MedSAM2Lib.cli.console import tell
from MedSAM2Lib.cli.engine import add_engine_arguments
from MedSAM2Lib.errors import OptionError, OutputError

if TYPE_CHECKING:
    from MedSAM2Lib.phantom import Phantom

NAME = "demo"
HELP = "segment a built-in synthetic patient and compare with its truth; needs no data and no network"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "-o", "--output", metavar="DIR", type=Path, default=Path("medsam2-demo"),
        help="where the image, truth, masks, preview and report go; default medsam2-demo",
    )  # fmt: skip
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="which patient; default 0")
    add_engine_arguments(parser)


def run(args: argparse.Namespace) -> int:
    from MedSAM2Lib.metrics import dice
    from MedSAM2Lib.phantom import make_phantom

    if args.seed < 0:
        raise OptionError(f"--seed must be 0 or more, but {args.seed} came.")
    weights_path(args.model)
    make_folder(args.output)
    tell(f"making patient {args.seed}")
    phantom = make_phantom(args.seed)
    image = _write_patient(phantom, args.output)
    options = _segment_options(phantom, image, args)
    print("medsam2 segment", " ".join(_quoted(option) for option in options), flush=True)
    outcome = segment.perform(_parsed(options))
    scores = {one.name: dice(one.mask, phantom.structures[one.name]) for one in outcome.segments}
    print("\nDice with the truth (synthetic: says that it works, not how well on patients)")
    width = max(len(name) for name in scores)
    for name, score in scores.items():
        print(f"{name:{width}}  {score:.3f}")
    print(f"{'mean':{width}}  {sum(scores.values()) / len(scores):.3f}")
    print(f"\nLook at {args.output / 'preview.png'}; open patient.nrrd and masks.seg.nrrd of that folder in 3D Slicer.")
    return 0


def _write_patient(phantom: Phantom, folder: Path) -> Path:
    """The image and its truth; returns the image's path."""
    from MedSAM2Lib.simpleitk import import_simpleitk
    from MedSAM2Lib.volume_io.itk import image_from_array
    from MedSAM2Lib.volume_io.write import Segment, write_segmentation

    image = folder / "patient.nrrd"
    with atomic_path(image) as temporary:
        try:
            itk_image = image_from_array(phantom.volume.array, phantom.volume.geometry)
            import_simpleitk().WriteImage(itk_image, str(temporary), useCompression=True)
        except RuntimeError as error:
            raise OutputError(f"{image} cannot be written; free some space, or choose another folder with -o.") from error
    truth = [Segment(name, mask) for name, mask in phantom.structures.items()]
    write_segmentation(folder / "truth.seg.nrrd", truth, phantom.volume.geometry)
    return image


def _segment_options(phantom: Phantom, image: Path, args: argparse.Namespace) -> list[str]:
    """What a person would type after `medsam2 segment`: a tight box for each structure, on a slice where it is large."""
    import numpy as np

    from MedSAM2Lib.evaluation.prompting import reference_box

    options = [str(image), "-o", str(args.output / "masks.seg.nrrd")]
    for name, mask in phantom.structures.items():
        areas = mask.sum(axis=(1, 2))
        occupied = np.flatnonzero(areas)
        middle = occupied[len(occupied) // 4 : 3 * len(occupied) // 4 + 1]  # not at its end, where one sees too little of it
        index = int(middle[np.argmax(areas[middle])])
        box = reference_box(mask[index], index)
        options += ["--box", f"{name}:{index}:{box.x0},{box.y0},{box.x1},{box.y1}"]
    options += ["--preview", str(args.output / "preview.png"), "--report", str(args.output / "report.json")]
    for option, value in (
        ("--model", args.model),
        ("--network", args.network),
        ("--device", args.device),
        ("--threads", args.threads),
    ):
        if value is not None and (option, value) not in (("--model", "nano"), ("--device", "auto")):
            options += [option, str(value)]
    return options


def _parsed(options: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="medsam2 segment")
    segment.add_arguments(parser)
    return parser.parse_args(options)


def _quoted(option: str) -> str:
    return f'"{option}"' if " " in option or ":" in option else option
