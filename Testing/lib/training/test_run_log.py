from __future__ import annotations

from pathlib import Path
from unittest import mock

import pytest

from MedSAM2Lib.training.run_log import RunLog


def a_log(folder: Path, first_step: int = 0, *, tensorboard: bool = False, lines: list[str] | None = None) -> RunLog:
    return RunLog(folder, first_step, tensorboard=tensorboard, report=(lines if lines is not None else []).append)


def test_what_was_logged_after_the_saved_state_is_taken_back(tmp_path: Path) -> None:
    log = a_log(tmp_path)
    for step in (2, 4, 6):
        log.add({"step": step, "loss": step / 10})
    a_log(tmp_path, 4).add({"step": 6, "loss": 0.5, "tracked_dice": 0.7})
    lines = (tmp_path / "log.csv").read_text().splitlines()
    assert [line.split(",")[:2] for line in lines] == [["step", "loss"], ["2", "0.2"], ["4", "0.4"], ["6", "0.5"]]


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of tensorboard's own imports
def test_tensorboard_reads_the_same_figures(tmp_path: Path) -> None:
    accumulators = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    log = a_log(tmp_path, tensorboard=True)
    for step in (1, 2):
        log.add({"step": step, "loss": 1 / step})
    log.close()
    resumed = a_log(tmp_path, 1, tensorboard=True)  # the second step is done once more
    resumed.add({"step": 2, "loss": 0.25})
    resumed.close()
    events = accumulators.EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    assert [(event.step, event.value) for event in events.Scalars("loss")] == [(1, 1.0), (2, 0.25)]


def test_without_the_package_the_table_goes_on_alone(tmp_path: Path) -> None:
    lines: list[str] = []
    with mock.patch.dict("sys.modules", {"torch.utils.tensorboard": None}):
        log = a_log(tmp_path, tensorboard=True, lines=lines)
    log.add({"step": 1, "loss": 1.0})
    assert "pip install tensorboard" in lines[0]
    assert len((tmp_path / "log.csv").read_text().splitlines()) == 2
