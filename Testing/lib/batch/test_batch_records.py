"""What is known of a case, whatever was killed, changed or damaged in between."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from MedSAM2Lib.batch.fingerprint import fingerprint
from MedSAM2Lib.batch.records import CaseResult, FoundObject, Records
from MedSAM2Lib.batch.summary import write_summary
from MedSAM2Lib.errors import OutputError

RESULT = CaseResult("p1", 1.5, (FoundObject("liver", 1432.125, 0.91),), ("look here",))


@pytest.fixture
def records(tmp_path: Path) -> Records:
    (tmp_path / "records").mkdir()
    return Records(tmp_path)


@pytest.fixture
def mask(tmp_path: Path) -> Path:
    return tmp_path / "p1.nrrd"


@pytest.fixture
def a_finished_case(records: Records, mask: Path) -> None:
    records.start("p1", "this")
    mask.write_text("a mask")
    records.finish(RESULT, "this", [mask])


@pytest.mark.usefixtures("a_finished_case")
def test_a_finished_case_is_known(records: Records, mask: Path) -> None:
    assert records.finished("p1", "this") == RESULT
    assert records.finished("p1", "something else") is None
    assert records.finished("p2", "this") is None
    records.check_free("p1", [mask])


@pytest.mark.usefixtures("a_finished_case")
def test_a_case_whose_file_is_gone_is_not_finished(records: Records, mask: Path) -> None:
    mask.unlink()
    assert records.finished("p1", "this") is None
    records.check_free("p1", [mask])


@pytest.mark.usefixtures("a_finished_case")
@pytest.mark.parametrize("content", ["a ma", "a mask, corrected by hand"])
def test_a_file_that_was_cut_off_or_corrected_counts_no_more_and_is_left_alone(
    records: Records, mask: Path, content: str
) -> None:
    mask.write_text(content)
    assert records.finished("p1", "this") is None
    with pytest.raises(OutputError, match=r"p1\.nrrd was changed or damaged after it was made.*move it elsewhere"):
        records.check_free("p1", [mask])


def test_a_case_that_was_begun_is_not_finished_and_its_files_are_replaced(records: Records, mask: Path) -> None:
    records.start("p1", "this")
    mask.write_text("half")
    assert records.finished("p1", "this") is None
    records.check_free("p1", [mask])


def test_a_file_of_somebody_else_is_left_alone(records: Records, mask: Path) -> None:
    mask.write_text("mine")
    with pytest.raises(OutputError, match="is there already, and not from this batch"):
        records.check_free("p1", [mask])


@pytest.mark.usefixtures("a_finished_case")
@pytest.mark.parametrize(
    "damage", ["", "{}", "[]", '{"format": "medsam2-batch-case/1"}', '{"format": "other/1", "asked": "this"}']
)
def test_a_damaged_record_is_none(records: Records, mask: Path, damage: str) -> None:
    (records.folder / "records" / "p1.json").write_text(damage)
    assert records.finished("p1", "this") is None
    with pytest.raises(OutputError, match="not from this batch"):
        records.check_free("p1", [mask])


def test_the_summary_has_a_line_per_object(tmp_path: Path) -> None:
    results = {
        "two": CaseResult("two", 2.0, (FoundObject("a", 0.5, 0.8), FoundObject("b, left", 1234.5678, 0.25))),
        "bad": CaseResult("bad", 0.0, (), (), "no such image;\n  correct it"),
    }
    write_summary(tmp_path / "summary.csv", ["two", "bad", "later"], results)
    assert (tmp_path / "summary.csv").read_text().splitlines() == [
        "case,status,seconds,object,volume_ml,confidence,message",
        "two,done,2.00,a,0.5,0.8000,",
        'two,done,2.00,"b, left",1234.57,0.2500,',
        "bad,failed,0.00,,,,no such image; correct it",
        "later,open,,,,,",
    ]


def test_a_file_that_changed_has_another_fingerprint(tmp_path: Path) -> None:
    path = tmp_path / "a.nrrd"
    path.write_text("123")
    before = fingerprint(path)
    assert fingerprint(path) == before
    os.utime(path, ns=(1, 1))
    assert fingerprint(path) != before


def test_a_folder_and_a_header_have_the_fingerprints_of_their_files(tmp_path: Path) -> None:
    for name in ("a.mhd", "a.raw", "b.raw"):
        (tmp_path / name).write_text(name)
    assert [name for name, *_ in fingerprint(tmp_path)] == ["a.mhd", "a.raw", "b.raw"]
    assert [name for name, *_ in fingerprint(tmp_path / "a.mhd")] == ["a.mhd", "a.raw"]
