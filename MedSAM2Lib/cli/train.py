"""`medsam2 train`: the network that ships, from random weights; or any network, fine-tuned on a person's own cases."""

from __future__ import annotations

import argparse
from pathlib import Path

from MedSAM2Lib.cli.engine import DEVICES, THREADS_HELP
from MedSAM2Lib.errors import OptionError
from MedSAM2Lib.network.config import NETWORKS
from MedSAM2Lib.training.parts import PARTS

NAME = "train"
HELP = "fine-tune a model on your own corrected cases; or train nano from the beginning"

MEMORIES = ("recent", "self-sorting", "self-sorting-random")  # rules that a clip can be tracked with
PRECISIONS = ("auto", "float32", "bfloat16")
PROMPTS = ("auto", "boxes", "paper")

_MORE = """
Fine-tuning: FOLDER holds images and their segmentations, which belong together by name: anna.nrrd with anna.seg.nrrd,
bert.nii.gz with bert_label.nii.gz (also _seg, _mask), or images/ and labels/ with equal names. A share of the cases is held out,
scored before and after, and an improvement is claimed only where it was measured. DIR gets fine_tuned.pt for --model,
before_after.csv and .json, log.csv and curve.png.

From the beginning: DATA holds manifest.json and one .npz per volume. DIR gets nano.pt for --model, log.csv and curve.png.

Either way DIR keeps state.pt: an interrupted run goes on from it, bit for bit, when the same command is given again. On
several GPUs: torchrun --nproc-per-node GPUS -m MedSAM2Lib train ...

examples:
  medsam2 train --from nano --cases corrected -o tuned
  medsam2 train --from sam2.1-tiny --cases corrected -o tuned --freeze image-encoder --hold-out anna,bert --device cuda
  medsam2 train ../shared/train -o runs/nano
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.usage = "medsam2 train --from ID|FILE --cases FOLDER -o DIR [options]\n       medsam2 train DATA -o DIR [options]"
    parser.epilog = _MORE
    parser.add_argument("data", metavar="DATA", type=Path, nargs="?", help="training volumes, to begin from random weights")
    parser.add_argument("-o", "--output", metavar="DIR", type=Path, required=True, help="folder of the run")

    tuning = parser.add_argument_group("fine-tuning")
    tuning.add_argument("--from", dest="base", metavar="ID|FILE", help="a model of `medsam2 models`, or a checkpoint")
    tuning.add_argument("--cases", metavar="FOLDER", type=Path, help="images with their corrected segmentations")
    tuning.add_argument(
        "--network",
        choices=tuple(NETWORKS),
        metavar="NAME",
        help=f"what a FILE is for, where it fits several: {', '.join(NETWORKS)}",
    )
    tuning.add_argument(
        "--hold-out",
        metavar="SHARE|CASE,...",
        default="0.25",
        help="cases that are not trained on but measured: a share of them, or their names; default 0.25; 0 measures nothing",
    )
    tuning.add_argument(
        "--synthetic",
        type=float,
        metavar="SHARE",
        help="of the clips that show synthetic patients, so that nothing is forgotten; default 0.3 for nano, else 0",
    )
    tuning.add_argument("--freeze", metavar="PART,...", help=f"parts that stay as they are: {', '.join(PARTS)}; default none")
    tuning.add_argument("--learning-rate", type=float, metavar="RATE", help="at its highest; default 1e-4 for nano, else 3e-5")

    whole = parser.add_argument_group("the run")
    whole.add_argument("--steps", type=int, help="default 300; from the beginning, those of the network that ships")
    whole.add_argument("--slices", type=int, metavar="N", help="per step, over all GPUs; default 16; from the beginning 48")
    whole.add_argument(
        "--prompts",
        choices=PROMPTS,
        default="auto",
        help="what clips start with: mostly boxes (default for nano), or as in the paper of SAM 2 mask 50 %%, click 25 %%, "
        "box 25 %%, with clicks on up to two slices (default for others)",
    )
    whole.add_argument("--memory", choices=MEMORIES, default="recent", help="which slices a slice of a clip gets to see")
    whole.add_argument("--seed", type=int, default=0, help="everything random follows from it; default 0")
    whole.add_argument("--device", default="auto", choices=DEVICES, help="auto takes a GPU if there is one")
    whole.add_argument("--threads", type=int, help=THREADS_HELP)
    whole.add_argument("--workers", type=int, default=1, help="processes that draw clips; default 1")
    whole.add_argument("--precision", choices=PRECISIONS, default="auto", help="auto: bfloat16 for nano and on a GPU")
    whole.add_argument("--gradient-checkpoints", action="store_true", help="compute twice what would not fit in memory")
    whole.add_argument("--tensorboard", action="store_true", help="write logs for TensorBoard too (pip install tensorboard)")
    whole.add_argument(
        "--no-validation", action="store_true", help="from the beginning: hold nothing out, for data other than ours"
    )


def run(args: argparse.Namespace) -> int:
    from MedSAM2Lib.cli.console import tell
    from MedSAM2Lib.cli.training import fine_tune, train_from_the_beginning

    _check(args)
    try:
        return train_from_the_beginning(args) if args.data is not None else fine_tune(args)
    except KeyboardInterrupt:
        tell(f"what was trained so far is in {args.output}; give the same command again to go on.")
        raise


def _check(args: argparse.Namespace) -> None:
    """Raises OptionError for what can be found wrong at once."""
    if (args.data is None) == (args.base is None and args.cases is None):
        raise OptionError("Give either DATA, to train from the beginning, or --from and --cases, to fine-tune.")
    if args.data is None and (args.base is None or args.cases is None):
        raise OptionError("Fine-tuning needs both: --from, the model to go on from, and --cases, the folder of cases.")
    least = {"--steps": 1, "--slices": 1, "--threads": 1, "--workers": 0}
    for option, lowest in least.items():
        value = getattr(args, option.removeprefix("--"))
        if value is not None and value < lowest:
            raise OptionError(f"{option} must be at least {lowest}, but {value} came.")
    if args.learning_rate is not None and not 0 < args.learning_rate < 1:
        raise OptionError(f"--learning-rate is a number between 0 and 1, such as 1e-4, but {args.learning_rate:g} came.")
    if args.synthetic is not None and not 0 <= args.synthetic < 1:
        raise OptionError(f"--synthetic is a share from 0 to below 1, but {args.synthetic:g} came.")
    if args.data is not None and any((args.network, args.freeze, args.learning_rate, args.synthetic)):
        raise OptionError("--network, --freeze, --learning-rate and --synthetic are for fine-tuning: leave them out, or DATA.")
