"""`medsam2 train`: the network that ships, from random weights, on a folder of labelled volumes."""

from __future__ import annotations

import argparse
from pathlib import Path

NAME = "train"
HELP = "train nano on labelled volumes and synthetic patients"

_MORE = """
DATA holds manifest.json and one .npz per volume. DIR gets state.pt (an interrupted run goes on from it when the same
command is given again), log.csv, curve.png and, at the end, nano.pt for --model.

example:
  medsam2 train ../shared/train -o runs/nano
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.usage = "medsam2 train DATA -o DIR [options]"
    parser.epilog = _MORE
    parser.add_argument("data", metavar="DATA", type=Path, help="folder of training volumes")
    parser.add_argument("-o", "--output", metavar="DIR", type=Path, required=True, help="folder of the run")
    parser.add_argument("--steps", type=int, help="training steps; default: those of the network that ships")
    parser.add_argument("--seed", type=int, default=0, help="everything random follows from it; default 0")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or mps")
    parser.add_argument("--threads", type=int, default=1, help="processor threads of the network; default 1")
    parser.add_argument("--workers", type=int, default=1, help="processes that draw clips; default 1")
    parser.add_argument("--no-validation", action="store_true", help="hold nothing out, for data other than ours")


def run(args: argparse.Namespace) -> int:
    from dataclasses import replace

    import torch

    from MedSAM2Lib.device import choose_device
    from MedSAM2Lib.errors import OptionError
    from MedSAM2Lib.training.nano import HELD_OUT, NANO_PLAN, train_nano

    steps = NANO_PLAN.steps if args.steps is None else args.steps
    if steps < 1 or args.threads < 1 or args.workers < 0:
        raise OptionError(f"Steps and threads count from 1, workers from 0, but {steps}, {args.threads}, {args.workers} came.")
    torch.set_num_threads(args.threads)
    plan = replace(NANO_PLAN.scaled(steps), seed=args.seed, workers=args.workers)
    weights = train_nano(
        args.data,
        args.output,
        plan,
        device=choose_device(args.device),
        held_out=() if args.no_validation else HELD_OUT,
        report=lambda line: print(line, flush=True),
    )
    print(f"Trained weights: {weights}")
    return 0
