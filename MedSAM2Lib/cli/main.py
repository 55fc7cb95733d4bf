"""`medsam2 COMMAND ...`: finds the command, runs it, turns whatever goes wrong into one line and an exit status.

A command is a module of this package with `NAME`, `HELP`, `add_arguments(parser)` and `run(args) -> int`. Its top level
imports nothing heavy (no torch, no numpy), so that `--help` answers at once; `run` imports what it needs.

Exit status: 0 done, 2 the request was wrong, 1 it failed, 130 interrupted by Ctrl-C, 141 nobody reads the output.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import logging
import os
import re
import sys
import traceback
from collections.abc import Iterator, Sequence
from typing import Any, NoReturn, Protocol, cast

from MedSAM2Lib.cli.failures import message_of
from MedSAM2Lib.errors import MedSAM2Error, OptionError
from MedSAM2Lib.version import __version__

__all__ = ["COMMANDS", "Command", "main"]

# Modules of MedSAM2Lib.cli, in the order in which --help lists them.
COMMANDS = ("segment", "batch", "demo", "models", "evaluate", "ablation", "train", "benchmark", "selftest", "worker")

_INTERRUPTED = 130  # 128 + SIGINT, as shells report it
_NOBODY_READS = 141  # 128 + SIGPIPE
# Values that begin with a minus, as in `--window -160:240`, which argparse would take for an option.
_LOOKS_NEGATIVE = re.compile(r"-\.?\d")
_LONG_OPTION = re.compile(r"--[a-z0-9][a-z0-9-]*")


class Command(Protocol):
    """What a command's module offers."""

    NAME: str
    HELP: str

    def add_arguments(self, parser: argparse.ArgumentParser) -> None: ...

    def run(self, args: argparse.Namespace) -> int: ...


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command; returns the exit status. `--help` and `--version` raise SystemExit(0) as argparse does."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    debug = "--debug" in arguments
    _let_streams_print_any_name()
    try:
        with _log_on_stderr(debug):
            args = _parser().parse_args(_join_negative_values(arguments))
            status: int = args.run(args)
            sys.stdout.flush()
            return status
    except (Exception, KeyboardInterrupt) as error:
        if debug:
            traceback.print_exc()
        return _report_failure(error)


class _Parser(argparse.ArgumentParser):
    """argparse, with a wrong argument as an OptionError: one line instead of the usage and a line.

    An argument that nobody knows is an error of the subcommand that met it, whose help then is named.
    """

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> tuple[Any, list[str]]:
        known, unknown = super().parse_known_args(args, namespace)
        if unknown:
            self.error(f"unrecognized arguments: {' '.join(unknown)}")
        return known, unknown

    def error(self, message: str) -> NoReturn:
        raise OptionError(f"{message[:1].upper()}{message[1:]}; see {self.prog} --help.")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="medsam2",
        description="Segment CT and MR volumes from a box, clicks, a caliper line or a painted mask. "
        "Research software, not a medical device.",
        epilog="medsam2 COMMAND --help tells more. Try: medsam2 demo",
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"medsam2 {__version__}")
    subparsers = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for module in COMMANDS:
        command = cast(Command, importlib.import_module(f"MedSAM2Lib.cli.{module}"))
        subparser = subparsers.add_parser(
            command.NAME,
            help=command.HELP,
            description=command.HELP[:1].upper() + command.HELP[1:] + ".",
            allow_abbrev=False,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        command.add_arguments(subparser)
        subparser.add_argument("--debug", action="store_true", help="show tracebacks and what the file readers say")
        subparser.set_defaults(run=command.run)
    return parser


def _join_negative_values(arguments: Sequence[str]) -> list[str]:
    """`--window -160:240` as `--window=-160:240`."""
    joined: list[str] = []
    for argument in arguments:
        if joined and _LONG_OPTION.fullmatch(joined[-1]) and _LOOKS_NEGATIVE.match(argument):
            joined[-1] += f"={argument}"
        else:
            joined.append(argument)
    return joined


# ── what went wrong, in one line ──────────────────────────────────────────────────────────────────────────────────


def _report_failure(error: BaseException) -> int:
    """Says on stderr what went wrong; returns the exit status."""
    if isinstance(error, BrokenPipeError):
        # The interpreter flushes stdout once more at its end: let that go nowhere.
        with contextlib.suppress(OSError, ValueError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return _NOBODY_READS
    message, status = _explain(error)
    with contextlib.suppress(OSError):
        print(f"medsam2: {message}", file=sys.stderr, flush=True)
    return status


def _explain(error: BaseException) -> tuple[str, int]:
    if isinstance(error, KeyboardInterrupt):
        return "interrupted; no file was left half-written.", _INTERRUPTED
    return f"error: {message_of(error)}", error.exit_status if isinstance(error, MedSAM2Error) else 1


# ── streams ───────────────────────────────────────────────────────────────────────────────────────────────────────


def _let_streams_print_any_name() -> None:
    """A name of an object may hold characters that the terminal's encoding lacks: show `?` rather than fail."""
    for stream in (sys.stdout, sys.stderr):
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure is not None:
            reconfigure(errors="replace")


class _OneLine(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        return f"medsam2: {record.levelname.lower()}: {record.getMessage()}"


@contextlib.contextmanager
def _log_on_stderr(debug: bool) -> Iterator[None]:
    """For the length of the block, the library's warnings (with `debug` everything it logs) are lines on stderr."""
    logger = logging.getLogger("MedSAM2Lib")
    handler = logging.StreamHandler()
    handler.setFormatter(_OneLine())
    level = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.DEBUG if debug else logging.WARNING)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)
