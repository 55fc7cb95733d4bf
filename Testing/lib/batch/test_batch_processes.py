"""Real processes that work, die, and are told to leave."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from MedSAM2Lib.batch.processes import run_on_processes
from MedSAM2Lib.batch.shares import processor_count, shares
from MedSAM2Lib.errors import EngineError
from Testing.lib.batch import support
from Testing.lib.cli.support import environment
from Testing.lib.worker.support import vanishes

posix = pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals")


def test_every_task_is_done_by_processes_that_stay() -> None:
    results = dict(run_on_processes(support.double, range(20), [{}, {}]))
    assert results == {number: 2 * number for number in range(20)}
    (pid, *others) = {result for _, result in run_on_processes(support.process_id, range(5), [{}])}
    assert not others
    assert pid != os.getpid()


def test_each_process_is_told_its_share_before_it_loads_anything() -> None:
    told = [{"MEDSAM2_SHARE": "one"}, {"MEDSAM2_SHARE": "two"}]
    got = {result for _, result in run_on_processes(support.environment_of, ["MEDSAM2_SHARE"] * 4, told)}
    assert got == {"one", "two"}


def test_no_task_needs_no_process() -> None:
    assert not list(run_on_processes(support.double, [], [{}]))


@posix
def test_a_task_whose_process_is_killed_gets_another(tmp_path: Path) -> None:
    assert list(run_on_processes(support.die_once, [tmp_path / "marker"], [{}])) == [(tmp_path / "marker", "done")]


@posix
def test_a_task_that_kills_its_process_twice_is_given_up_and_the_others_are_done() -> None:
    results = dict(run_on_processes(support.die_on_odd_numbers, range(4), [{}, {}]))
    assert (results[0], results[2]) == (0, 2)
    for number in (1, 3):
        assert isinstance(results[number], EngineError)
        assert "died (SIGKILL), and another one before" in str(results[number])


@posix
def test_whoever_leaves_early_ends_the_processes_which_clean_up(tmp_path: Path) -> None:
    running = run_on_processes(support.work_until_told, [tmp_path], [{}])
    with pytest.raises(KeyboardInterrupt):
        _interrupted_when_begun(running, tmp_path / "begun")
    assert (tmp_path / "cleaned-up").exists()
    assert vanishes(int((tmp_path / "begun").read_text()))


def _interrupted_when_begun(running: Any, begun: Path) -> None:
    """Ctrl-C in this process, as soon as the file is there."""
    program = (
        "import os, signal, sys, time\n"
        "while not (os.path.exists(sys.argv[1]) and os.path.getsize(sys.argv[1])):\n    time.sleep(0.05)\n"
        "os.kill(int(sys.argv[2]), signal.SIGINT)\n"
    )
    with subprocess.Popen([sys.executable, "-c", program, str(begun), str(os.getpid())]):
        next(running)


@posix
def test_processes_end_when_their_parent_was_killed(tmp_path: Path) -> None:
    program = (
        "import time\n"
        "from MedSAM2Lib.batch.processes import run_on_processes\n"
        "from Testing.lib.batch import support\n"
        "running = run_on_processes(support.process_id, [1, 2], [{}])\n"
        "print(next(running)[1], flush=True)\n"
        "time.sleep(60)\n"
    )
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True, env=environment()) as parent:
        assert parent.stdout is not None
        child = int(parent.stdout.readline())
        parent.send_signal(signal.SIGKILL)
        assert vanishes(child)


def test_cores_and_gpus_are_shared_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.delenv("ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS", raising=False)
    three = shares(3, 8, ["0", "4"])
    assert (
        [one["OMP_NUM_THREADS"] for one in three] == [one["ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS"] for one in three] == ["2"] * 3
    )
    assert [one["CUDA_VISIBLE_DEVICES"] for one in three] == ["0", "4", "0"]
    assert shares(4, 2, []) == [{"OMP_NUM_THREADS": "1", "ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS": "1"}] * 4
    assert processor_count() >= 1


def test_threads_that_a_person_has_set_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    assert "OMP_NUM_THREADS" not in shares(2, 8, [])[0]
