"""The table of cases as people write it, and as they should not."""

from __future__ import annotations

from pathlib import Path

import pytest

from MedSAM2Lib.batch.table import CaseLine, read_table
from MedSAM2Lib.errors import OptionError, UsageError
from Testing.lib.cli.support import ROOT


def table(folder: Path, content: str | bytes) -> Path:
    path = folder / "cases.csv"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def test_a_line_is_a_case_and_its_paths_are_relative_to_the_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "lists").mkdir()
    table(
        tmp_path / "lists",
        'case,image,prompts,box,series\np 1,../scans/a.nrrd,,"liver:4:1,2,3,4; spleen:5:1,2,3,4",\np2,b,p.json,,1.2.3\n',
    )
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "lists"
    assert read_table(Path("lists/cases.csv")) == [
        CaseLine("p 1", folder / "../scans/a.nrrd", None, ("liver:4:1,2,3,4", "spleen:5:1,2,3,4"), None),
        CaseLine("p2", folder / "b", folder / "p.json", (), "1.2.3"),
    ]


def test_columns_may_stand_in_any_order_and_be_left_out(tmp_path: Path) -> None:
    (case,) = read_table(table(tmp_path, "box, image ,case\nliver:1:2, a.nrrd , p1 \n"))
    assert case == CaseLine("p1", tmp_path / "a.nrrd", None, ("liver:1:2",), None)


def test_a_table_as_spreadsheets_save_it(tmp_path: Path) -> None:
    saved = '\ufeffcase,image,prompts\r\nMüller,"a, b.nrrd",p.json\r\n,,\r\n\r\n'
    assert [case.name for case in read_table(table(tmp_path, saved))] == ["Müller"]


def test_what_is_blank_or_cut_short_is_left_to_the_case(tmp_path: Path) -> None:
    assert read_table(table(tmp_path, "case,image,prompts\np1\np2,a.nrrd,p.json,,\n"))[0] == CaseLine("p1", None, None, (), None)


def test_the_example_of_the_documentation_is_a_table(tmp_path: Path) -> None:
    example = (ROOT / "docs/batch.md").read_text(encoding="utf-8").split("```")[3]
    assert [(case.name, len(case.boxes)) for case in read_table(table(tmp_path, example))] == [("p01", 1), ("p02", 2), ("p03", 0)]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("", "is empty; its first line names the columns"),
        ("\n ,\n", "is empty"),
        ("case,image,prompts\n", "has no case; write a line for each"),
        ("image,prompts\na,b\n", "has no column 'case'"),
        ("case,prompts\na,b\n", "has no column 'image'"),
        ("case,image,label\na,b,c\n", "unknown column 'label': columns are case, image, prompts, box, series"),
        ("case;image;box\na;b;c\n", "unknown column 'case;image;box'.*with commas"),
        ("case,image,image\na,b,c\n", "each column may be there once"),
        ("case,image,box\na,b,liver:4:1,2,3,4\n", "line 2: expected 3 values, but 6 came; a value that holds commas"),
        ('case,image,box\na,b,"liver:4\n', "cannot be read as CSV"),
        (b"case,image\n\xff\xfea,b\n", "cannot be read as CSV in UTF-8"),
        ("case,image\na,x\nb,y\na,z\n", "must differ, but 'a' and 'a' do not"),
        ("case,image\nliver,x\nLiver,y\n", "must differ, but 'liver' and 'Liver' do not"),
        ("case,image\n,x\n", "line 2: the case has no name"),
        *[
            (f'case,image\nok,x\n"{name}",x\n', "line 3: a case's name becomes the name of its files")
            for name in ("../x", "a/b", "a\\b", "..", ".hidden", "C:x", "a.", "tab\tbed", "a*", "x" * 121)
        ],
    ],
)
def test_a_table_that_is_not_one_is_refused(tmp_path: Path, content: str | bytes, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        read_table(table(tmp_path, content))


def test_a_table_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(OptionError, match=r"none\.csv does not exist; give a CSV file with the columns case, image"):
        read_table(tmp_path / "none.csv")
