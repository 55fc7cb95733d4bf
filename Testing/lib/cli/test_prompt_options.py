from __future__ import annotations

from pathlib import Path

import pytest

from MedSAM2Lib.cli.main import _join_negative_values
from MedSAM2Lib.cli.prompt_options import in_order, parse_prompt, range_of
from MedSAM2Lib.errors import PromptError
from MedSAM2Lib.prompt_files import FilePrompt, MaskFile, NamedPrompt
from MedSAM2Lib.prompts import Box, Box3D, Points, RecistLine
from MedSAM2Lib.world_prompts import WorldPrompt


@pytest.mark.parametrize(
    ("option", "text", "name", "prompt"),
    [
        ("--box", "liver:42:80,60,210,190", "liver", Box(42, 80, 60, 210, 190)),
        ("--box", "liver: 42 : 80, 60.5, 210, 190", "liver", Box(42, 80, 60.5, 210, 190)),
        ("--box", "segment 4: caudal:7:1,2,3,4", "segment 4: caudal", Box(7, 1, 2, 3, 4)),
        ("--point", "liver:42:120,90:+", "liver", Points(42, (120,), (90,), (True,))),
        ("--point", "liver:42:120,90:-", "liver", Points(42, (120,), (90,), (False,))),
        ("--point", "liver:42:120,90", "liver", Points(42, (120,), (90,), (True,))),
        ("--point", "a:b:c:42:120,90:-", "a:b:c", Points(42, (120,), (90,), (False,))),
        ("--point", "a:b:c:42:120,90", "a:b:c", Points(42, (120,), (90,), (True,))),
        ("--recist", "lesion:3:5,6,9,2", "lesion", RecistLine(3, 5, 6, 9, 2)),
        ("--box3d", "a:b:30-55:1,2,3,4", "a:b", Box3D(30, 55, 1, 2, 3, 4)),
        ("--box", "a:b:ras:1,-2,3,4,5,6.5", "a:b", WorldPrompt("box", "ras", ((1, -2, 3), (4, 5, 6.5)))),
        ("--box3d", "liver:lps:1,2,3,4,5,6", "liver", WorldPrompt("box3d", "lps", ((1, 2, 3), (4, 5, 6)))),
        ("--recist", "lesion: ras :1,2,3,4,5,6", "lesion", WorldPrompt("recist", "ras", ((1, 2, 3), (4, 5, 6)))),
        ("--point", "liver:ras:1,2,3:-", "liver", WorldPrompt("points", "ras", ((1, 2, 3),), (False,))),
        ("--point", "liver:ras:1,2,3", "liver", WorldPrompt("points", "ras", ((1, 2, 3),), (True,))),
        ("--mask", "liver=painted.nrrd", "liver", MaskFile(Path("painted.nrrd"))),
        ("--mask", "liver=painted.nrrd:3", "liver", MaskFile(Path("painted.nrrd"), 3)),
        ("--mask", "liver=C:/run=2/painted.nrrd:3", "liver", MaskFile(Path("C:/run=2/painted.nrrd"), 3)),
        ("--mask", "a:b=C:/painted.nrrd", "a:b", MaskFile(Path("C:/painted.nrrd"))),
    ],
)
def test_a_prompt_is_what_its_text_says(option: str, text: str, name: str, prompt: FilePrompt) -> None:
    assert parse_prompt(option, text) == NamedPrompt(name, prompt)


@pytest.mark.parametrize(
    ("option", "text", "said"),
    [
        ("--box", "42:80,60,210,190", 'is written "NAME:SLICE:X0,Y0,X1,Y1"'),
        ("--box", "liver:42:80,60,210", 'is written "NAME:SLICE:X0,Y0,X1,Y1"'),
        ("--box", "liver:42.5:80,60,210,190", 'is written "NAME:SLICE'),
        ("--box", "liver:42:80;60;210;190", 'is written "NAME:SLICE'),
        ("--box", ":42:80,60,210,190", "name must be printable text, but ''"),
        ("--box", "a\nb:42:80,60,210,190", r"name must be printable text, but 'a\\nb'"),
        ("--box", "liver:42:210,60,80,190", "swap the corners"),
        ("--box", "liver:42:nan,60,80,190", "must be finite numbers"),
        ("--box", "liver:-1:80,60,210,190", "slice index counts from 0, but -1"),
        ("--box", "liver:ras:80,60,210,190", 'is written "NAME:SLICE:X0,Y0,X1,Y1"'),
        ("--box", "liver:ras:nan,2,3,4,5,6", "finite"),
        ("--point", "liver:RAS:1,2,3", 'is written "NAME:SLICE:X,Y:SIGN"'),
        ("--point", "liver:42:80", 'is written "NAME:SLICE:X,Y:SIGN"'),
        ("--point", "liver:42:80,60:*", 'is written "NAME:SLICE:X,Y:SIGN"'),
        ("--recist", "lesion:3:5,6,5,6", "two different ends"),
        ("--box3d", "liver:42:80,60,210,190", 'is written "NAME:FIRST-LAST'),
        ("--box3d", "liver:55-30:80,60,210,190", "from a first to a last slice"),
        ("--mask", "painted.nrrd", 'is written "NAME=FILE'),
        ("--mask", "liver=", 'is written "NAME=FILE'),
    ],
)
def test_a_text_that_is_no_prompt_says_how_to_write_one(option: str, text: str, said: str) -> None:
    with pytest.raises(PromptError, match=said.replace("(", r"\(")) as raised:
        parse_prompt(option, text)
    assert str(raised.value).startswith(option)


def clicks(index: int, x: float, positive: bool = True) -> Points:
    return Points(index, (x,), (0,), (positive,))


def test_clicks_come_after_the_box_of_their_object_and_count_together_per_slice() -> None:
    box = Box(3, 0, 0, 9, 9)
    given = [("a", clicks(3, 1)), ("b", clicks(3, 5)), ("a", box), ("a", clicks(3, 2, False)), ("a", clicks(4, 7))]
    assert [(one.name, one.prompt) for one in in_order(NamedPrompt(*one) for one in given)] == [
        ("a", box),
        ("a", Points(3, (1, 2), (0, 0), (True, False))),
        ("a", clicks(4, 7)),
        ("b", clicks(3, 5)),
    ]


def test_a_range_is_two_slices() -> None:
    assert range_of("20:60") == (20, 60)


@pytest.mark.parametrize("text", ["20", "20-60", "a:b", "1:2:3", ""])
def test_what_is_no_range_says_how_to_write_one(text: str) -> None:
    with pytest.raises(PromptError, match="FIRST:LAST"):
        range_of(text)


def test_a_value_may_begin_with_a_minus() -> None:
    assert _join_negative_values(["--window", "-160:240", "-o", "-1.nrrd", "--keep-all", "--zoom", "-.5"]) == [
        "--window=-160:240", "-o", "-1.nrrd", "--keep-all", "--zoom=-.5",
    ]  # fmt: skip
