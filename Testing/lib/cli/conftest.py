from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from MedSAM2Lib.cli.main import main
from Testing.lib.cli.support import Command, Ended, environment


@pytest.fixture
def medsam2(capsys: pytest.CaptureFixture[str]) -> Command:
    """Runs a command line in this process."""

    def run(*arguments: object) -> Ended:
        capsys.readouterr()
        try:
            status = main([str(argument) for argument in arguments])
        except SystemExit as ended:  # --help, --version
            status = int(ended.code or 0)
        said = capsys.readouterr()
        return Ended(status, said.out, said.err)

    return run


@pytest.fixture
def medsam2_process() -> Command:
    """Runs a command line as a process of its own."""

    def run(*arguments: object) -> Ended:
        command = [sys.executable, "-m", "MedSAM2Lib", *map(str, arguments)]
        ended = subprocess.run(command, capture_output=True, text=True, env=environment(), check=False, timeout=120)
        return Ended(ended.returncode, ended.stdout, ended.stderr)

    return run


@pytest.fixture
def segment(medsam2: Command, a_scan: Path, an_untrained_model: Path, tmp_path: Path) -> Command:
    """`medsam2 segment` of the small scan with the untrained model into `mask.nrrd`; options as given, later ones win."""

    def run(*options: object, image: object = a_scan) -> Ended:
        return medsam2("segment", image, "-o", tmp_path / "mask.nrrd", "--model", an_untrained_model, *options)

    return run
