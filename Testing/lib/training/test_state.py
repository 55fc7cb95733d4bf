from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from Testing.lib.cli.support import ROOT, environment

pytest.importorskip("resource")  # limits of a process, which Windows does not have

# A limit on the size of files is what a full disk is to the process that writes.
_PROGRAM = """
import resource, signal, sys, torch
from pathlib import Path
from MedSAM2Lib.errors import OutputError
from MedSAM2Lib.training.state import tensor_file
path = Path(sys.argv[1])
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20))
try:
    with tensor_file(path) as temporary:
        torch.save({"weights": torch.zeros(1 << 20)}, temporary)
except OutputError as error:
    print(error)
"""


def test_on_a_full_disk_the_state_before_is_kept(tmp_path: Path) -> None:
    state = tmp_path / "state.pt"
    state.write_bytes(b"before")
    command = [sys.executable, "-c", _PROGRAM, str(state)]
    ended = subprocess.run(command, cwd=ROOT, env=environment(), capture_output=True, text=True, check=True, timeout=60)
    assert "the disk is probably full" in ended.stdout
    assert state.read_bytes() == b"before"
    assert [path.name for path in tmp_path.iterdir()] == ["state.pt"]
