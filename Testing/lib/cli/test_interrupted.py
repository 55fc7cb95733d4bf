"""Real processes that are stopped, or run out of room, in the middle: nothing is left half-written."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import SimpleITK

from Testing.lib.cli.support import BOX, Command, environment

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals and limits")

_PATIENCE_S = 60.0


@pytest.fixture(scope="module")
def a_long_scan(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """400 small slices: some ten seconds of work."""
    path = tmp_path_factory.mktemp("scans") / "long.nrrd"
    noise = np.random.default_rng(0).normal(0, 100, (400, 40, 48)).astype(np.int16)
    SimpleITK.WriteImage(SimpleITK.GetImageFromArray(noise), str(path))
    return path


@contextlib.contextmanager
def started(*arguments: object, before: str = "") -> Iterator[subprocess.Popen[str]]:
    """The command as a process, which does not outlive the test; `before` is Python that it runs first."""
    program = f"{before}\nimport sys\nfrom MedSAM2Lib.cli.main import main\nsys.exit(main())"
    command = [sys.executable, "-c", program, *map(str, arguments)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment()) as process:
        try:
            yield process
        finally:
            process.kill()


def wait_for(process: subprocess.Popen[str], words: str) -> str:
    """What the process has said on stderr up to a line that holds the words."""
    assert process.stderr is not None
    said, deadline = "", time.monotonic() + _PATIENCE_S
    while words not in said:
        assert time.monotonic() < deadline
        line = process.stderr.readline()
        assert line, said
        said += line
    return said


def test_ctrl_c_in_the_middle_leaves_no_file(a_long_scan: Path, an_untrained_model: Path, tmp_path: Path) -> None:
    outputs = ["-o", tmp_path / "mask.nii.gz", "--preview", tmp_path / "p.png", "--report", tmp_path / "r.json"]
    with started(
        "segment",
        a_long_scan,
        *outputs,
        "--model",
        an_untrained_model,
        "--no-depth-prior",
        "--stop-after",
        "0",
        "--box",
        "organ:200:12,11,36,29",
    ) as process:
        wait_for(process, "propagating: 10%")
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=_PATIENCE_S)
    assert process.returncode == 130
    assert err.splitlines()[-1] == "medsam2: interrupted; no file was left half-written."
    assert "Traceback" not in err
    assert not out
    assert not list(tmp_path.iterdir())


def test_ctrl_c_while_writing_keeps_the_old_file(a_scan: Path, an_untrained_model: Path, tmp_path: Path) -> None:
    mask = tmp_path / "mask.nrrd"
    mask.write_text("old")
    slow_to_write = (
        "import os, time\n"
        "import MedSAM2Lib.atomic as atomic\n"
        "def flush(path):\n"
        "    assert path.stat().st_size > 0\n"
        "    print('flushing', file=__import__('sys').stderr, flush=True)\n"
        "    time.sleep(60)\n"
        "atomic.flush_to_disk = flush\n"
    )
    with started("segment", a_scan, "-o", mask, "--model", an_untrained_model, "--box", BOX, before=slow_to_write) as process:
        wait_for(process, "flushing")
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=_PATIENCE_S)
    assert process.returncode == 130
    assert [path.name for path in tmp_path.iterdir()] == ["mask.nrrd"]
    assert mask.read_text() == "old"


def _limited_to(size: int) -> str:
    """Python that lets no file grow beyond so many bytes: what a full disk does to a writer, without one."""
    return (
        "import resource, signal\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        f"resource.setrlimit(resource.RLIMIT_FSIZE, ({size}, {size}))\n"
    )


@pytest.mark.parametrize("name", ["mask.seg.nrrd", "mask.nrrd", "mask.nii.gz", "mask.mha"])
def test_a_disk_that_takes_no_more_is_told_and_nothing_is_left(
    a_scan: Path, an_untrained_model: Path, tmp_path: Path, name: str
) -> None:
    arguments = ["segment", a_scan, "-o", tmp_path / name, "--model", an_untrained_model, "--box", BOX]
    with started(*arguments, before=_limited_to(64)) as process:
        out, err = process.communicate(timeout=_PATIENCE_S)
    assert process.returncode == 1
    assert err.splitlines()[-1].startswith("medsam2: error: ")
    assert "unexpected" not in err
    assert "Traceback" not in err
    assert not out
    assert not list(tmp_path.iterdir())


@pytest.mark.skipif(
    not hasattr(os, "geteuid") or os.geteuid() != 0 or sys.platform != "linux", reason="mounting a tiny disk needs root"
)
def test_a_full_disk_is_told_and_nothing_is_left(
    medsam2_process: Command, a_long_scan: Path, an_untrained_model: Path, tmp_path: Path
) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8k", "tmpfs", str(disk)], capture_output=True, check=False)
    if mounted.returncode:
        pytest.skip("this machine lets nobody mount")
    try:
        box = ["--box", "organ:200:12,11,36,29", "--range", "195:205"]
        outputs = ["-o", disk / "mask.nrrd", "--preview", disk / "p.png"]
        ended = medsam2_process("segment", a_long_scan, *outputs, "--model", an_untrained_model, *box)
        left = [path.name for path in disk.iterdir()]
    finally:
        subprocess.run(["umount", str(disk)], check=True)
    assert ended.status == 1
    assert "No space left on device" in ended.err.splitlines()[-1]
    assert "Traceback" not in ended.err
    assert left in ([], ["mask.nrrd"])  # the mask may have been written whole before the picture found no room
