from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from MedSAM2Lib.atomic import atomic_path, check_writable
from MedSAM2Lib.errors import OutputError

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
