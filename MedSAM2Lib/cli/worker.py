"""`medsam2 worker`: the engine as a process for a front end, which speaks to it through standard input and output."""

from __future__ import annotations

import argparse

NAME = "worker"
HELP = "serve a front end, such as 3D Slicer, on standard input and output"

_MORE = """
Not for people: docs/worker.md describes what goes over standard input and output. The log is on standard error. The model
and the device are in the front end's first message. The process ends when its standard input does.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.usage = "medsam2 worker"
    parser.epilog = _MORE


def run(args: argparse.Namespace) -> int:
    from MedSAM2Lib.worker.server import serve

    serve()
