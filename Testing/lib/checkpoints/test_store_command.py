"""`medsam2 models download | import | verify | remove`, from the terminal, with the real server."""

from __future__ import annotations

import hashlib
import io
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from MedSAM2Lib.checkpoints.registry import MODELS, Model
from MedSAM2Lib.cli.main import main
from Testing.lib.checkpoints.https_server import Answer, FileServer
from Testing.lib.checkpoints.support import a_checkpoint
from Testing.lib.cli.support import Ended

Run = Callable[..., Ended]


@pytest.fixture
def models(capsys: pytest.CaptureFixture[str], ca_file: Path) -> Run:
    """Runs `medsam2 models ...`; downloads trust the test's certificates."""

    def run(action: str, *arguments: object) -> Ended:
        options = ["--ca-file", str(ca_file)] if action == "download" else []
        status = main(["models", action, *map(str, arguments), *options])
        said = capsys.readouterr()
        return Ended(status, said.out, said.err)

    return run


@pytest.fixture
def served(a_model: Model, monkeypatch: pytest.MonkeyPatch) -> Model:
    monkeypatch.setitem(MODELS, "served", a_model)
    return a_model


@pytest.fixture
def unpublished(a_model: Model, server: FileServer, monkeypatch: pytest.MonkeyPatch) -> Model:
    server.files["weights.pt"] = a_checkpoint()
    monkeypatch.setitem(MODELS, "served", replace(a_model, bytes=None, sha256=None))
    return MODELS["served"]


def test_a_model_is_downloaded_listed_verified_and_removed(models: Run, served: Model, store: Path) -> None:
    ended = models("download", "served")
    assert ended.status == 0
    assert ended.out == f"{store / 'weights.pt'}  0.2 MB  SHA-256 {served.sha256}, as published\n"
    assert "served: none" in ended.err  # its licence
    assert "served: done, 1 MB in" in ended.err
    assert f"on this machine: {store / 'weights.pt'}" in models("list").out
    assert f"served  whole  as published  {store / 'weights.pt'}" in models("verify").out
    assert models("remove", "served").out == f"removed {store / 'weights.pt'}\n"
    assert models("remove", "served").out == "served is not on this machine\n"


def test_a_hash_that_nobody_published_is_said_to_be_pinned(models: Run, unpublished: Model) -> None:
    sha256 = hashlib.sha256(a_checkpoint()).hexdigest()
    assert f"SHA-256 {sha256}, not published: pinned now, later files must have the same" in models("download", "served").out
    assert f"SHA-256 {sha256}, as pinned before" in models("download", "served").out
    assert "served  whole  as pinned" in models("verify").out


def test_a_damaged_file_is_found_by_verify(models: Run, served: Model, store: Path) -> None:
    models("download", "served")
    (store / "weights.pt").write_bytes(b"?")
    ended = models("verify")
    assert ended.status == 1
    assert "served  WRONG  The file of served should have the SHA-256" in ended.out


def test_a_download_that_fails_is_one_line_and_status_1(models: Run, served: Model, server: FileServer) -> None:
    server.plan.append(Answer(status=404))
    ended = models("download", "served")
    assert ended.status == 1
    assert not ended.out
    assert ended.err.splitlines()[-1].startswith("medsam2: error: weights.pt could not be fetched: localhost answers 404")


def test_a_download_that_broke_off_is_listed_and_continued(
    models: Run, served: Model, server: FileServer, store: Path, content: bytes
) -> None:
    server.plan.extend([Answer(cut_after=100_000), Answer(status=404)])
    assert models("download", "served").status == 1
    assert "partly here (0.1 MB; 0 MB): medsam2 models download served continues" in models("list").out
    assert models("download", "served").status == 0
    assert (store / "weights.pt").read_bytes() == content


def test_a_bar_is_drawn_on_a_terminal(models: Run, served: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setenv("TERM", "xterm")
    models("download", "served")
    assert "\rserved [####" in terminal.getvalue()


def test_another_folder_and_mirrors_of_the_environment(
    models: Run, served: Model, server: FileServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MEDSAM2_MIRRORS", server.address("mirror"))
    server.files["mirror/weights.pt"] = server.files["weights.pt"]
    assert models("download", "served", "--store", tmp_path / "other").status == 0
    assert (tmp_path / "other" / "weights.pt").is_file()
    assert [asked.path for asked in server.asked] == ["mirror/weights.pt"]


def test_weights_come_from_a_stick(models: Run, served: Model, store: Path, tmp_path: Path, content: bytes) -> None:
    (tmp_path / "stick").mkdir()
    (tmp_path / "stick" / "weights.pt").write_bytes(content)
    ended = models("import", tmp_path / "stick")
    assert ended.status == 0
    assert ended.out == f"served  {store / 'weights.pt'}  SHA-256 {served.sha256}, as published  (none)\n"
    assert (store / "weights.pt").read_bytes() == content


@pytest.mark.parametrize(
    "arguments",
    [["download", "nothing"], ["download", "nano"], ["remove", "nano"], ["remove", "nothing"], ["import", "/nowhere/at all"],
     ["download", "served", "--mirror", "http://localhost"]],
)  # fmt: skip
def test_a_request_that_makes_no_sense_is_status_2(models: Run, served: Model, arguments: list[str]) -> None:
    ended = models(*arguments)
    assert ended.status == 2
    assert ended.err.splitlines()[-1].startswith("medsam2: error: ")
