"""Real processes that want the same file, are killed in the middle, or find no room."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path

import pytest

from MedSAM2Lib.checkpoints.download import download
from MedSAM2Lib.checkpoints.registry import Model
from MedSAM2Lib.checkpoints.transfer import Connection
from MedSAM2Lib.errors import OutputError
from MedSAM2Lib.lock import held
from Testing.lib.checkpoints.https_server import Answer, FileServer
from Testing.lib.cli.support import environment

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals and limits")

_PATIENCE_S = 30.0
_PROGRAM = """
import json, sys
from pathlib import Path
from MedSAM2Lib.checkpoints.download import Connection, download
from MedSAM2Lib.checkpoints.registry import Model
connection = Connection(ca_file=Path(sys.argv[2]), stall_timeout_s=float(sys.argv[4]), backoff_s=0.0)
print(download(Model(**json.loads(sys.argv[1])), Path(sys.argv[3]), connection))
"""

_COMMAND = """
import json, sys
from MedSAM2Lib.checkpoints.registry import MODELS, Model
from MedSAM2Lib.cli.main import main
MODELS["served"] = Model(**json.loads(sys.argv[1]))
sys.exit(main(["models", "download", "served", "--ca-file", sys.argv[2], "--store", sys.argv[3]]))
"""

Start = Callable[..., contextlib.AbstractContextManager[subprocess.Popen[str]]]


@pytest.fixture
def start(a_model: Model, ca_file: Path, store: Path) -> Start:
    """Starts a process that downloads the model; it does not outlive the test. `before` is Python that it runs first."""

    @contextlib.contextmanager
    def run(stall_timeout_s: float, before: str = "", program: str = _PROGRAM) -> Iterator[subprocess.Popen[str]]:
        arguments = [json.dumps(asdict(a_model)), str(ca_file), str(store), str(stall_timeout_s)]
        command = [sys.executable, "-c", before + program, *arguments]
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        with subprocess.Popen(command, **pipes, text=True, env=environment()) as process:
            try:
                yield process
            finally:
                process.kill()

    return run


def wait_until(is_so: Callable[[], bool]) -> None:
    deadline = time.monotonic() + _PATIENCE_S
    while not is_so():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_two_processes_fetch_a_file_once(start: Start, server: FileServer, store: Path, content: bytes) -> None:
    server.plan.append(Answer(stall_after=100_000))
    with start(stall_timeout_s=2.0) as first:
        wait_until(lambda: bool(server.asked))
        with start(stall_timeout_s=2.0) as second:
            ended = [process.communicate(timeout=_PATIENCE_S) for process in (first, second)]
    assert [process.returncode for process in (first, second)] == [0, 0]
    assert "another process is fetching weights.pt; waiting for it" in ended[1][1]
    assert [asked.first_byte for asked in server.asked] == [None, 100_000]
    assert {Path(out.strip()).read_bytes() for out, _ in ended} == {content}


def test_a_killed_download_leaves_the_old_file_and_a_part_that_is_continued(
    start: Start, a_model: Model, connection: Connection, server: FileServer, store: Path, content: bytes
) -> None:
    store.mkdir()
    (store / "weights.pt").write_bytes(b"old")
    server.plan.append(Answer(stall_after=120_000))
    part = store / "weights.pt.part"
    with start(stall_timeout_s=60.0) as process:
        wait_until(lambda: part.exists() and part.stat().st_size == 120_000)
        process.send_signal(signal.SIGKILL)
        process.communicate(timeout=_PATIENCE_S)
    assert (store / "weights.pt").read_bytes() == b"old"
    assert part.read_bytes() == content[:120_000]
    assert download(a_model, connection=connection).read_bytes() == content  # nor does the dead one's lock hold it up
    assert server.asked[-1].first_byte == 120_000


def test_ctrl_c_on_the_command_keeps_what_has_arrived(
    start: Start, a_model: Model, connection: Connection, server: FileServer, store: Path, content: bytes
) -> None:
    server.plan.append(Answer(stall_after=120_000))
    part = store / "weights.pt.part"
    with start(stall_timeout_s=0.0, program=_COMMAND) as process:
        wait_until(lambda: part.exists() and part.stat().st_size == 120_000)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=_PATIENCE_S)
    assert process.returncode == 130
    assert "Traceback" not in err
    assert not out
    assert not (store / "weights.pt").exists()
    assert download(a_model, connection=connection).read_bytes() == content
    assert server.asked[-1].first_byte == 120_000


def test_a_lock_is_held_against_other_threads_and_files_but_not_after(tmp_path: Path) -> None:
    waits: list[str] = []

    def give_up() -> None:
        raise TimeoutError

    with held(tmp_path / "lock"):
        with (
            pytest.raises(TimeoutError),
            held(tmp_path / "lock", check=give_up, on_wait=lambda: waits.append("once")),
        ):
            pass
        with held(tmp_path / "other"):
            pass
    with held(tmp_path / "lock"):
        assert waits == ["once"]


def test_a_disk_that_takes_no_more_is_told_and_what_arrived_is_kept(
    start: Start, a_model: Model, connection: Connection, server: FileServer, store: Path, content: bytes
) -> None:
    small_files = (
        "import resource, signal\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (150_000, 150_000))\n"
    )
    with start(stall_timeout_s=5.0, before=small_files) as process:
        _, err = process.communicate(timeout=_PATIENCE_S)
    assert process.returncode == 1
    assert "OutputError" in err.splitlines()[-1]
    assert "weights.pt.part cannot be written" in err.splitlines()[-1]
    assert (store / "weights.pt.part").read_bytes() == content[:150_000]
    assert download(a_model, connection=connection).read_bytes() == content
    assert server.asked[-1].first_byte == 150_000


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0 or sys.platform != "linux", reason="mounting needs root")
def test_too_small_a_disk_is_told_before_anything_is_fetched(a_model: Model, connection: Connection, store: Path) -> None:
    store.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(store)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("this machine lets nobody mount")
    try:
        with pytest.raises(OutputError, match=r"has 0 MB free, but 17 MB are needed"):
            download(a_model, connection=connection)
    finally:
        subprocess.run(["umount", str(store)], check=True)
