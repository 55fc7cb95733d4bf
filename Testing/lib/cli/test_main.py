from __future__ import annotations

import logging
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from MedSAM2Lib.cli import engine as engine_module
from MedSAM2Lib.cli import main as main_module
from MedSAM2Lib.cli import segment as segment_module
from MedSAM2Lib.cli.main import COMMANDS
from MedSAM2Lib.device import DEVICE_NAMES
from MedSAM2Lib.errors import CheckpointError, PromptError
from MedSAM2Lib.geometry import AXIS_NAMES
from MedSAM2Lib.intensity import PRESETS
from MedSAM2Lib.version import __version__
from Testing.lib.cli.support import ROOT, Command, environment


@pytest.mark.parametrize("arguments", [[], *([command] for command in COMMANDS)], ids=["medsam2", *COMMANDS])
def test_help_needs_neither_torch_nor_numpy(arguments: list[str]) -> None:
    program = (
        "import sys\nfrom MedSAM2Lib.cli.main import main\n"
        f"try:\n    main([*{arguments!r}, '--help'])\nexcept SystemExit as ended:\n    assert not ended.code\n"
        "heavy = {'torch', 'numpy', 'SimpleITK', 'PIL'} & sys.modules.keys()\nassert not heavy, heavy\n"
    )
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, env=environment(), check=False)
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.startswith("usage: medsam2")


def test_help_lists_every_command(medsam2: Command) -> None:
    told = medsam2("--help").out
    assert all(command in told for command in COMMANDS)


def test_what_help_says_without_numpy_is_what_the_library_has() -> None:
    assert set(segment_module.AXES) == set(AXIS_NAMES)
    assert set(segment_module.WINDOW_PRESETS) == set(PRESETS)
    assert set(engine_module.DEVICES) == set(DEVICE_NAMES)


def test_the_version_is_the_projects(medsam2: Command) -> None:
    project = re.search(r'^version = "(.+)"$', (ROOT / "pyproject.toml").read_text(), re.MULTILINE)
    assert medsam2("--version").out == f"medsam2 {__version__}\n"
    assert project is not None
    assert project[1] == __version__


@pytest.mark.parametrize(
    ("arguments", "said", "helper"),
    [
        ("", "required: COMMAND", "medsam2"),
        ("segmnt", "invalid choice: 'segmnt'", "medsam2"),
        ("segment", "required: IMAGE, -o/--output", "medsam2 segment"),
        ("segment scan.nrrd -o mask.nrrd --wndow auto", "Unrecognized arguments: --wndow", "medsam2 segment"),
        ("segment scan.nrrd -o mask.nrrd --axis x", "invalid choice: 'x'", "medsam2 segment"),
        ("segment scan.nrrd -o mask.nrrd --stop-after few", "invalid int value: 'few'", "medsam2 segment"),
        ("models download", "required: ID", "medsam2 models download"),
    ],
)
def test_a_wrong_argument_is_one_line_that_names_the_help(medsam2: Command, arguments: str, said: str, helper: str) -> None:
    ended = medsam2(*arguments.split())
    assert ended.status == 2
    assert ended.err.count("\n") == 1
    assert ended.err.startswith("medsam2: error: ")
    assert said in ended.err
    assert ended.err.endswith(f"; see {helper} --help.\n")


def a_command_that(action: Any) -> SimpleNamespace:
    return SimpleNamespace(NAME="segment", HELP="a stand-in", add_arguments=lambda parser: None, run=action)


def raising(error: BaseException) -> Any:
    def run(_: object) -> int:
        raise error

    return run


@pytest.fixture
def with_command(monkeypatch: pytest.MonkeyPatch) -> Any:
    def use(action: Any) -> None:
        monkeypatch.setattr(main_module, "COMMANDS", ("stand_in",))
        monkeypatch.setitem(sys.modules, "MedSAM2Lib.cli.stand_in", a_command_that(action))

    return use


class OutOfMemoryError(RuntimeError):
    """As torch calls its own."""


@pytest.mark.parametrize(
    ("error", "status", "said"),
    [
        (PromptError("The box is odd."), 2, "error: The box is odd."),
        (CheckpointError("The file is odd."), 1, "error: The file is odd."),
        (ZeroDivisionError("division by\nzero"), 1, "error: unexpected ZeroDivisionError: division by zero (--debug shows where"),
        (AssertionError(), 1, "error: unexpected AssertionError: no message"),
        (MemoryError(), 1, "error: not enough memory"),
        (OutOfMemoryError("CUDA out of memory"), 1, "error: not enough memory"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried"), 1, "error: not enough memory"),
        (RuntimeError("MPS backend out of memory (MPS allocated: 8 GB)"), 1, "error: not enough memory"),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling cublasCreate"), 1, "error: not enough memory"),
        (OSError(28, "No space left on device", "x.nrrd"), 1, "error: the disk is full (x.nrrd)"),
        (KeyboardInterrupt(), 130, "interrupted"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, BaseException) else None,
)
def test_what_goes_wrong_is_one_line_and_a_status(
    medsam2: Command, with_command: Any, error: BaseException, status: int, said: str
) -> None:
    with_command(raising(error))
    ended = medsam2("segment")
    assert ended.status == status
    assert ended.err.startswith(f"medsam2: {said}")
    assert ended.err.count("\n") == 1
    assert not ended.out


def test_debug_shows_the_traceback_and_keeps_the_status(medsam2: Command, with_command: Any) -> None:
    with_command(raising(PromptError("The box is odd.")))
    ended = medsam2("segment", "--debug")
    assert ended.status == 2
    assert "Traceback" in ended.err
    assert ended.err.endswith("medsam2: error: The box is odd.\n")


def test_the_librarys_warnings_are_lines_on_stderr(medsam2: Command, with_command: Any) -> None:
    def run(_: object) -> int:
        logging.getLogger("MedSAM2Lib.somewhere").warning("look at %s", "this")
        logging.getLogger("MedSAM2Lib.somewhere").info("or not")
        return 0

    with_command(run)
    assert medsam2("segment").err == "medsam2: warning: look at this\n"
    assert not logging.getLogger("MedSAM2Lib").handlers


def test_a_reader_that_goes_away_is_no_error() -> None:
    command = f"{sys.executable} -m MedSAM2Lib models | head -n 1; echo ${{PIPESTATUS[0]}}"
    ended = subprocess.run(["bash", "-c", command], capture_output=True, text=True, env=environment(), check=False)
    assert ended.stdout.startswith("nano")
    assert not ended.stderr


@pytest.mark.parametrize("encoding", ["ascii", "utf-8"])
def test_any_name_can_be_printed(encoding: str, an_untrained_model: Path, tmp_path: Path) -> None:
    arguments = ["segment", "蛋.nrrd", "-o", "m.nrrd", "--box", "肝:1:1,1,2,2", "--model", str(an_untrained_model)]
    program = f"import sys\nfrom MedSAM2Lib.cli.main import main\nsys.exit(main({arguments!r}))"
    encoded = {**environment(), "PYTHONIOENCODING": encoding}
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, env=encoded, cwd=tmp_path, check=False)
    assert ended.returncode == 1
    assert b".nrrd does not exist" in ended.stderr
