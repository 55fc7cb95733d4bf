from __future__ import annotations

import io
import logging

import pytest

from MedSAM2Lib.cli.console import Progress, duration, silenced, tell, warn


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def shown_by(stream: io.StringIO, total: int = 200) -> str:
    with Progress("propagating", total, "slices", stream) as progress:
        for position in range(1, total + 1):
            progress.update(position, position)
    return stream.getvalue()


def test_elsewhere_than_on_a_terminal_there_are_ten_plain_lines() -> None:
    lines = shown_by(io.StringIO()).splitlines()
    assert [line.split(",")[0] for line in lines] == [
        *(f"propagating: {percent}%" for percent in range(10, 100, 10)),
        "propagating: done",
    ]
    assert "20 slices" in lines[0]
    assert "left" in lines[0]


def test_a_terminal_gets_one_line_that_is_drawn_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    shown = shown_by(Terminal())
    assert shown.count("\n") == 1
    last = shown.split("\r")[-1]
    assert last.startswith("propagating [#")
    assert "100% 200 slices" in last
    assert "-]" not in last


def test_a_dumb_terminal_gets_plain_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "dumb")
    assert "\r" not in shown_by(Terminal())


def test_skipped_work_moves_the_position_and_not_the_count() -> None:
    stream = io.StringIO()
    with Progress("propagating", 100, "slices", stream) as progress:
        progress.update(1, 1)
        progress.update(90, 2)
    assert stream.getvalue().startswith("propagating: 90%, 2 slices")


def test_an_error_ends_the_bars_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    stream = Terminal()
    progress = Progress("propagating", 10, "slices", stream)
    progress.update(1, 1)
    progress.__exit__(ZeroDivisionError, ZeroDivisionError(), None)
    assert stream.getvalue().endswith("\n")


def test_no_work_says_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    for stream in (Terminal(), io.StringIO()):
        with Progress("propagating", 0, "slices", stream):
            pass
        assert not stream.getvalue()


@pytest.mark.parametrize(
    ("seconds", "said"), [(0.04, "0.0 s"), (9.94, "9.9 s"), (9.96, "10 s"), (59.6, "1 min 0 s"), (200, "3 min 20 s")]
)
def test_a_duration_is_said_as_a_person_would(seconds: float, said: str) -> None:
    assert duration(seconds) == said


def test_in_silence_nothing_is_shown_and_warnings_are_kept(capfd: pytest.CaptureFixture[str]) -> None:
    library = logging.getLogger("MedSAM2Lib.volume_io")
    with silenced() as warnings:
        tell("reading")
        warn("look here")
        library.warning("%s was rounded", "the spacing")
        with Progress("propagating", 2, "slices") as progress:
            progress.update(1, 1)
    assert warnings == ["look here", "the spacing was rounded"]
    assert capfd.readouterr().err == ""
    tell("reading")
    assert capfd.readouterr().err == "reading\n"
    assert len(warnings) == 2
