"""`medsam2 batch --scheduler` on a real Dask cluster of this machine: a scheduler and two workers, one of which is killed."""

from __future__ import annotations

import csv
import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import NamedTuple

import pytest
import SimpleITK

from Testing.lib.cli.support import Command, environment

pytest.importorskip("distributed", reason="needs Dask: pip install dask[distributed]")
pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals")

_PATIENCE_S = 90.0
CASES = 6


class Cluster(NamedTuple):
    address: str
    scheduler: subprocess.Popen[bytes]
    workers: list[subprocess.Popen[bytes]]


@pytest.fixture
def a_cluster(tmp_path: Path) -> Iterator[Cluster]:
    file, local = tmp_path / "scheduler.json", tmp_path / "dask"
    common = ["--scheduler-file", str(file), "--no-dashboard"]
    with ExitStack() as stack:

        def start(*arguments: str) -> subprocess.Popen[bytes]:
            command = [sys.executable, "-m", "dask", *arguments, *common]
            process = stack.enter_context(subprocess.Popen(command, env=environment(), stderr=subprocess.DEVNULL))
            stack.callback(process.kill)
            return process

        scheduler = start("scheduler", "--host", "127.0.0.1", "--port", "0")
        worker = ["worker", "--no-nanny", "--nthreads", "1", "--host", "127.0.0.1", "--local-directory", str(local)]
        workers = [start(*worker), start(*worker)]  # they wait for the scheduler's file
        wait_for(lambda: file.exists() and file.stat().st_size)
        yield Cluster(json.loads(file.read_text())["address"], scheduler, workers)


@pytest.fixture
def a_table(a_scan: Path, tmp_path: Path) -> Path:
    """Cases that each take a while: every slice of the scan five times."""
    image = SimpleITK.Expand(SimpleITK.ReadImage(str(a_scan)), [1, 1, 5])
    SimpleITK.WriteImage(image, str(tmp_path / "scan.nrrd"))
    with (tmp_path / "cases.csv").open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(["case", "image", "box"])
        writer.writerows([f"case {number}", "scan.nrrd", box(number)] for number in range(CASES))
    return tmp_path / "cases.csv"


def box(number: int) -> str:
    return f"organ:{12 + number}:12,11,36,29"


def wait_for(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + _PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def identities_of_finished_masks(folder: Path) -> dict[str, int]:
    """By case. A file that is written again is another one, though its content is the same."""
    records = {path.stem: json.loads(path.read_text()) for path in (folder / "records").glob("case*.json")}
    return {case: (folder / f"{case}.seg.nrrd").stat().st_ino for case, record in records.items() if "outputs" in record}


@contextmanager
def started(*arguments: object) -> Iterator[subprocess.Popen[str]]:
    """`medsam2 batch` as a process, which does not outlive the test."""
    command = [sys.executable, "-m", "MedSAM2Lib", "batch", *map(str, arguments)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment()) as process:
        try:
            yield process
        finally:
            process.kill()


@pytest.fixture
def options(an_untrained_model: Path) -> list[str]:
    return ["--model", str(an_untrained_model), "--device", "cpu", "--stop-after", "0"]


def test_a_worker_is_killed_and_every_case_is_done_once(
    a_cluster: Cluster, a_table: Path, options: list[str], medsam2: Command, tmp_path: Path
) -> None:
    folder = tmp_path / "masks"
    with started(a_table, "-o", folder, *options, "--scheduler", a_cluster.address) as batch:
        wait_for(lambda: identities_of_finished_masks(folder))
        before = identities_of_finished_masks(folder)
        a_cluster.workers[0].send_signal(signal.SIGKILL)
        out, err = batch.communicate(timeout=_PATIENCE_S)
    assert batch.returncode == 0, err
    assert 1 <= len(before) < CASES
    assert f"{CASES} of {CASES} cases done, 0 failed" in out
    assert statuses(folder) == [(f"case {number}", "done") for number in range(CASES)]
    assert identities_of_finished_masks(folder).items() >= before.items()
    alone = tmp_path / "alone.seg.nrrd"
    assert medsam2("segment", tmp_path / "scan.nrrd", "-o", alone, *options, "--box", box(CASES - 1)).status == 0
    assert (folder / f"case {CASES - 1}.seg.nrrd").read_bytes() == alone.read_bytes()


def test_a_scheduler_that_dies_is_told(a_cluster: Cluster, a_table: Path, options: list[str], tmp_path: Path) -> None:
    folder = tmp_path / "masks"
    with started(a_table, "-o", folder, *options, "--scheduler", a_cluster.address) as batch:
        assert batch.stderr is not None
        wait_for(lambda: "segmenting: " in batch.stderr.readline())
        a_cluster.scheduler.send_signal(signal.SIGKILL)
        out, _ = batch.communicate(timeout=_PATIENCE_S)
    assert batch.returncode == 1
    assert {status for _, status in statuses(folder)} == {"done", "failed"}
    assert len(statuses(folder)) == CASES
    assert f"wrote {folder / 'summary.csv'}" in out


def statuses(folder: Path) -> list[tuple[str, str]]:
    with (folder / "summary.csv").open(newline="") as stream:
        return [(row["case"], row["status"]) for row in csv.DictReader(stream)]
