"""`medsam2 benchmark`: speed and memory of this machine, beside the reference implementation."""

from __future__ import annotations

import argparse

NAME = "benchmark"
HELP = "measure speed and memory, as ratios to Meta's implementation where it is installed"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    pass


def run(args: argparse.Namespace) -> int:
    return 0
