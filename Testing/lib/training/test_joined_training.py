"""Two processes train one network as one process would train it on their clips together."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from MedSAM2Lib.training.clip_training import train
from MedSAM2Lib.training.processes import joined_processes
from Testing.lib.cli.support import ROOT, environment
from Testing.lib.training.joined import PLAN, a_network, joined_clips


@pytest.fixture(scope="module")
def a_joined_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run of `joined` in two processes."""
    folder = tmp_path_factory.mktemp("joined")
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    command = [*torchrun, "-m", "Testing.lib.training.joined", str(folder)]
    ended = subprocess.run(command, cwd=ROOT, env=environment(), capture_output=True, text=True, check=False, timeout=120)
    assert ended.returncode == 0, ended.stderr[-3000:]
    return folder


def test_gradients_are_those_of_one_process_with_the_joined_batch(a_joined_run: Path, tmp_path: Path) -> None:
    network = a_network()
    train(network, joined_clips, PLAN, tmp_path)
    joined = torch.load(a_joined_run / "gradients.pt", weights_only=True)
    own = {name: parameter.grad for name, parameter in network.named_parameters() if parameter.grad is not None}
    assert joined.keys() == own.keys()
    for name, gradient in own.items():
        torch.testing.assert_close(joined[name], gradient, rtol=1e-4, atol=1e-6, msg=name)


def test_only_the_first_writes_and_each_step_is_logged_once(a_joined_run: Path) -> None:
    assert {path.name for path in (a_joined_run / "halves").iterdir()} == {"state.pt", "log.csv"}
    steps = [line.split(",")[0] for line in (a_joined_run / "halves" / "log.csv").read_text().splitlines()]
    assert steps == ["step", "2", "4"]


def test_a_loss_that_is_not_finite_in_one_process_ends_all(a_joined_run: Path) -> None:
    assert (a_joined_run / "ended0").exists()
    assert (a_joined_run / "ended1").exists()


def test_a_process_that_torchrun_did_not_start_trains_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RANK", raising=False)
    with joined_processes(torch.device("cpu")) as (processes, device):
        assert (processes.rank, processes.count, device.type) == (0, 1, "cpu")
