from __future__ import annotations

from pathlib import Path
from unittest import mock

import pytest

from MedSAM2Lib.errors import OptionError, OutputError
from MedSAM2Lib.evaluation.manifest import Case
from MedSAM2Lib.evaluation.rows import Row
from MedSAM2Lib.evaluation.store import CaseResult, ResultStore

ASKED = {"model": "nano", "prompt": "box"}


def a_case(name: str = "one", digest: str = "abc") -> Case:
    return Case(name, Path("i"), Path("l"), "CT", "block", None, {}, (), frozenset(), digest)


def a_result(name: str = "one", problems: tuple[str, ...] = ()) -> CaseResult:
    row = Row(0.75, 0.5, 0.4, 0.3, None, -1.5, -0.2, name, "ball", "CT", "block", "model", 0, 1, (4,), 2.5, 0.1)
    return CaseResult(name, "abc", (row,), problems)


def test_what_was_added_is_there_when_the_run_goes_on(tmp_path: Path) -> None:
    ResultStore(tmp_path / "new" / "folder", ASKED).add(a_result())
    again = ResultStore(tmp_path / "new" / "folder", ASKED)
    assert again.finished(a_case()) == a_result()
    assert again.finished(a_case("other")) is None


def test_a_case_that_changed_or_had_problems_is_done_again(tmp_path: Path) -> None:
    store = ResultStore(tmp_path, ASKED)
    store.add(a_result())
    store.add(a_result("broken", ("no label",)))
    assert store.finished(a_case(digest="other")) is None
    assert store.finished(a_case("broken")) is None
    assert [result.case for result in store.results([a_case("broken"), a_case()])] == ["broken", "one"]


def test_a_case_done_again_counts_as_it_was_last(tmp_path: Path) -> None:
    ResultStore(tmp_path, ASKED).add(a_result(problems=("no label",)))
    ResultStore(tmp_path, ASKED).add(a_result())
    assert ResultStore(tmp_path, ASKED).finished(a_case()) == a_result()


def test_a_half_written_line_is_cut_off(tmp_path: Path) -> None:
    store = ResultStore(tmp_path, ASKED)
    store.add(a_result("one"))
    store.add(a_result("two"))
    path = tmp_path / "results.jsonl"
    path.write_bytes(path.read_bytes()[:-20])
    store = ResultStore(tmp_path, ASKED)
    assert [result.case for result in store.results([a_case("one"), a_case("two")])] == ["one"]
    store.add(a_result("two"))
    assert len(path.read_text().splitlines()) == 2


def test_results_of_something_else_are_not_mixed(tmp_path: Path) -> None:
    ResultStore(tmp_path, ASKED)
    with pytest.raises(OptionError, match=r"prompt was 'box', now 'point'.*choose another folder"):
        ResultStore(tmp_path, {**ASKED, "prompt": "point"})


@pytest.mark.parametrize("name", ["run.json", "results.jsonl"])
def test_a_damaged_file_is_refused_by_name(tmp_path: Path, name: str) -> None:
    ResultStore(tmp_path, ASKED)
    (tmp_path / name).write_text("nonsense\n")
    with pytest.raises(OptionError, match=name):
        ResultStore(tmp_path, ASKED)


def test_results_without_the_question_are_refused(tmp_path: Path) -> None:
    (tmp_path / "results.jsonl").touch()
    with pytest.raises(OptionError, match=r"no run\.json"):
        ResultStore(tmp_path, ASKED)


def test_a_file_in_the_folders_place_is_told(tmp_path: Path) -> None:
    (tmp_path / "scores").touch()
    with pytest.raises(OutputError, match="scores"):
        ResultStore(tmp_path / "scores", ASKED)


def test_a_full_disk_keeps_what_was_finished(tmp_path: Path) -> None:
    store = ResultStore(tmp_path, ASKED)
    store.add(a_result("one"))
    with (
        mock.patch("os.fsync", side_effect=OSError(28, "No space left on device")),
        pytest.raises(OutputError, match=r"No space left.*1 cases finished so far are kept"),
    ):
        store.add(a_result("two"))
    assert ResultStore(tmp_path, ASKED).finished(a_case("one")) == a_result("one")
