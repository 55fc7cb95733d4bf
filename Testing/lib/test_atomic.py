from __future__ import annotations

import os
import random
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest

from MedSAM2Lib.atomic import atomic_path, check_output, check_writable
from MedSAM2Lib.errors import OptionError, OutputError

posix_only = pytest.mark.skipif(sys.platform == "win32", reason="links and modes are those of POSIX")


def test_the_file_appears_when_the_block_ends(tmp_path: Path) -> None:
    target = tmp_path / "report.json"
    with atomic_path(target) as temporary:
        temporary.write_text("new")
        assert not target.exists()
    assert target.read_text() == "new"


def test_the_temporary_file_is_beside_the_target_and_ends_alike(tmp_path: Path) -> None:
    with atomic_path(tmp_path / "mask.v2.seg.nrrd") as temporary:
        temporary.touch()
        assert temporary.parent == tmp_path
        assert temporary.name.endswith("mask.v2.seg.nrrd")


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt, MemoryError])
def test_a_failure_leaves_the_old_file_and_nothing_else(tmp_path: Path, error: type[BaseException]) -> None:
    target = tmp_path / "mask.nrrd"
    target.write_text("old")

    def write_half() -> None:
        with atomic_path(target) as temporary:
            temporary.write_text("half")
            raise error

    with pytest.raises(error):
        write_half()
    assert target.read_text() == "old"
    assert os.listdir(tmp_path) == ["mask.nrrd"]


def test_what_the_system_refuses_is_an_output_error(tmp_path: Path) -> None:
    target = tmp_path / "mask.nrrd"
    with pytest.raises(OutputError, match=r"mask\.nrrd cannot be written: No space left on device"), atomic_path(target):
        raise OSError(28, "No space left on device")


def test_a_block_that_writes_nothing_is_an_output_error(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="cannot be written"), atomic_path(tmp_path / "mask.nrrd"):
        pass


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    with (
        pytest.raises(OutputError, match=r"nowhere does not; create it first"),
        atomic_path(tmp_path / "nowhere" / "a.json"),
    ):
        pass


def test_a_folder_is_no_output_file(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="is a folder; add a file name"):
        check_writable(tmp_path)


def test_a_very_long_name_still_works(tmp_path: Path) -> None:
    target = tmp_path / ("x" * 240 + ".nii.gz")
    with atomic_path(target) as temporary:
        temporary.write_text("new")
    assert target.read_text() == "new"


@posix_only
def test_a_link_stays_a_link(tmp_path: Path) -> None:
    (tmp_path / "real.json").write_text("old")
    (tmp_path / "link.json").symlink_to(tmp_path / "real.json")
    with atomic_path(tmp_path / "link.json") as temporary:
        temporary.write_text("new")
    assert (tmp_path / "link.json").is_symlink()
    assert (tmp_path / "real.json").read_text() == "new"


@posix_only
def test_the_rights_of_a_replaced_file_stay(tmp_path: Path) -> None:
    target = tmp_path / "mask.nrrd"
    target.touch(mode=0o640)
    target.chmod(0o640)
    with atomic_path(target) as temporary:
        temporary.touch()
    assert target.stat().st_mode & 0o777 == 0o640


def test_the_check_leaves_nothing_behind(tmp_path: Path) -> None:
    (tmp_path / "mask.nrrd").write_text("old")
    check_writable(tmp_path / "mask.nrrd")
    assert os.listdir(tmp_path) == ["mask.nrrd"]
    assert (tmp_path / "mask.nrrd").read_text() == "old"


@posix_only
@pytest.mark.skipif(hasattr(os, "geteuid") and os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_without_the_right_to_write_is_told_before_the_work(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    try:
        with pytest.raises(OutputError, match="Permission denied"):
            check_writable(tmp_path / "mask.nrrd")
    finally:
        tmp_path.chmod(0o700)


@pytest.mark.skipif(not Path("/proc/version").is_file(), reason="needs a folder that nobody can write to, as Linux's /proc")
def test_a_folder_that_nobody_can_write_to_is_told_before_the_work() -> None:
    with pytest.raises(OutputError, match=r"/proc/mask\.nrrd cannot be written"):
        check_writable("/proc/mask.nrrd")


def test_a_file_marked_read_only_is_not_replaced(tmp_path: Path) -> None:
    target = tmp_path / "mask.nrrd"
    target.write_text("old")
    target.chmod(0o444)
    try:
        with pytest.raises(OutputError, match=r"mask\.nrrd is marked read-only"), atomic_path(target) as temporary:
            temporary.write_text("new")
    finally:
        target.chmod(0o644)
    assert target.read_text() == "old"
    assert os.listdir(tmp_path) == ["mask.nrrd"]


def test_file_and_folder_are_flushed_before_anybody_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In this order: the content, the renaming, the folder that holds the name."""
    done: list[str] = []
    fsync, replace = os.fsync, os.replace

    def flush(descriptor: int) -> None:
        fsync(descriptor)
        done.append("folder" if stat.S_ISDIR(os.fstat(descriptor).st_mode) else "file")

    def rename(source: Path, target: Path) -> None:
        replace(source, target)
        done.append("rename")

    monkeypatch.setattr(os, "fsync", flush)
    monkeypatch.setattr(os, "replace", rename)
    with atomic_path(tmp_path / "mask.nrrd") as temporary:
        temporary.write_text("new")
    assert done == (["file", "rename"] if sys.platform == "win32" else ["file", "rename", "folder"])


# ── real processes ────────────────────────────────────────────────────────────────────────────────────────────────────

# Writes a file of one letter over and over, in pieces, always another letter.
_WRITER = """
import itertools, sys
from MedSAM2Lib.atomic import atomic_path
print("begun", flush=True)
for letter in itertools.cycle("abcdefgh"):
    with atomic_path(sys.argv[1]) as temporary, temporary.open("w") as stream:
        for _ in range(64):
            stream.write(letter * 4096)
            stream.flush()
"""


def a_writer(target: Path, before: str = "", program: str = _WRITER) -> subprocess.Popen[str]:
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    command = [sys.executable, "-c", before + program, str(target)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)


@posix_only
def test_a_writer_killed_at_20_random_moments_leaves_a_whole_file(tmp_path: Path) -> None:
    target = tmp_path / "mask.nrrd"
    target.write_text("old")
    moments = random.Random(0)
    for _ in range(20):
        with a_writer(target) as process:
            assert process.stdout is not None
            process.stdout.readline()
            time.sleep(moments.uniform(0, 0.03))
            process.send_signal(signal.SIGKILL)
            process.communicate(timeout=30)
        content = target.read_text()
        assert content == "old" or content == content[0] * 64 * 4096
        assert {path.name for path in tmp_path.iterdir() if not path.name.startswith(".")} == {"mask.nrrd"}


@posix_only
def test_a_disk_that_takes_no_more_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    target = tmp_path / "mask.nrrd"
    target.write_text("old")
    small_files = (
        "import resource, signal\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))\n"
    )
    with a_writer(target, before=small_files) as process:
        _, err = process.communicate(timeout=30)
    assert process.returncode == 1
    assert "OutputError" in err.splitlines()[-1]
    assert "mask.nrrd cannot be written: File too large" in err.splitlines()[-1]
    assert target.read_text() == "old"
    assert os.listdir(tmp_path) == ["mask.nrrd"]


def test_a_name_must_end_as_what_is_written_in_it(tmp_path: Path) -> None:
    check_output(tmp_path / "preview.PNG", "A preview", ".png")
    with pytest.raises(OptionError, match=r"A preview is written as \.png, but .*preview\.jpg ends otherwise; change"):
        check_output(tmp_path / "preview.jpg", "A preview", ".png")
    with pytest.raises(OutputError, match="folder must exist"):
        check_output(tmp_path / "none" / "preview.png", "A preview", ".png")
    assert not list(tmp_path.iterdir())
