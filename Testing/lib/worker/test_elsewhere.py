"""The engine in another Python, and at the other end of an ssh connection."""

from __future__ import annotations

import contextlib
import getpass
import os
import secrets
import shutil
import socket
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from MedSAM2Lib.worker.client import EngineClient, EngineDied
from Testing.lib.worker.support import BOX, Client, kill, masks, open_volume, until

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="paths and ssh of POSIX")

ROOT = Path(__file__).parents[3]


def survives(client: EngineClient) -> None:
    """Segments, is killed, segments the same."""
    open_volume(client)
    client.call("add_prompt", "ct", name="organ", prompt=BOX)
    client.call("propagate", "ct")
    before = masks(client)["organ"]
    kill(client)
    died = until(client, lambda event: isinstance(event, EngineDied))[-1]
    assert isinstance(died, EngineDied)
    assert np.array_equal(masks(client)["organ"], before)


def test_another_python_whatever_the_host_application_sets(
    a_client: Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A second virtual environment, started from within what looks like 3D Slicer."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", tmp_path / "venv"], check=True)
    python = tmp_path / "venv" / "bin" / "python"
    packages = subprocess.run(
        [python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"], check=True, capture_output=True, text=True
    ).stdout.strip()
    (Path(packages) / "borrowed.pth").write_text(sysconfig.get_path("purelib") + "\n")
    for name in ("PYTHONHOME", "PYTHONPATH", "LD_LIBRARY_PATH"):
        monkeypatch.setenv(name, str(tmp_path / "slicer"))
    survives(a_client([str(python), "-m", "MedSAM2Lib", "worker"]))


@contextlib.contextmanager
def ssh(folder: Path, user: str) -> Iterator[list[str]]:
    """The words that reach this machine as a user through a real sshd of our own; `folder` is one that the user can read."""
    sshd = shutil.which("sshd") or shutil.which("sshd", path="/usr/sbin")
    if sshd is None or shutil.which("ssh") is None:
        pytest.skip("there is no sshd on this machine (Debian's package openssh-server)")
    for key in ("host", "user"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", folder / key], check=True)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    settings = {
        "Port": port, "ListenAddress": "127.0.0.1", "HostKey": folder / "host", "AuthorizedKeysFile": folder / "user.pub",
        "StrictModes": "no", "UsePAM": "no", "PidFile": "none", "PermitRootLogin": "yes", "PasswordAuthentication": "no",
    }  # fmt: skip
    config = folder / "sshd_config"
    config.write_text("".join(f"{name} {value}\n" for name, value in settings.items()))
    Path("/run/sshd").mkdir(exist_ok=True) if getpass.getuser() == "root" else None
    with (folder / "sshd.log").open("w") as log:
        server = subprocess.Popen([sshd, "-D", "-e", "-f", config], stderr=log)
    try:
        wait_for(port)
        quiet = ["-o", "StrictHostKeyChecking=no", "-o", f"UserKnownHostsFile={folder / 'known'}", "-o", "BatchMode=yes"]
        yield ["ssh", "-p", str(port), "-i", str(folder / "user"), *quiet, f"{user}@127.0.0.1"]
    finally:
        server.terminate()
        server.wait()


def wait_for(port: int) -> None:
    for _ in range(100):
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.1)
    raise AssertionError("sshd does not listen")


def test_over_ssh(a_client: Client, tmp_path: Path) -> None:
    """The shell at the other end greets before the engine speaks."""
    remote = f"echo Welcome; cd / && OMP_NUM_THREADS=1 PYTHONPATH={ROOT} exec {sys.executable} -m MedSAM2Lib worker"
    with ssh(tmp_path, getpass.getuser()) as words:
        survives(a_client([*words, remote]))


@pytest.fixture
def readable() -> Iterator[Path]:
    """A folder that every user can read, which a test's own is not."""
    with tempfile.TemporaryDirectory(prefix="medsam2-") as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)


@pytest.fixture
def somebody_else() -> Iterator[str]:
    """A user of this machine for the length of a test."""
    if getpass.getuser() != "root" or shutil.which("useradd") is None:
        pytest.skip("only root can make another user")
    name = f"medsam2-{secrets.token_hex(4)}"
    nowhere = ["--no-create-home", "--home-dir", "/nonexistent", "--shell", "/bin/sh"]
    subprocess.run(["useradd", "--system", *nowhere, "--password", "*", name], check=True)  # no password, but not locked
    yield name
    while subprocess.run(["userdel", name], check=False).returncode == 8:  # still used by a process, which is ending
        time.sleep(0.1)


def test_over_ssh_as_another_user(readable: Path, somebody_else: str, a_client: Client) -> None:
    """The other user has a Python, packages and this library of its own where it may not read those of who runs the tests."""
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    base = Path(sys.base_prefix)
    lend(base / "lib" / version, readable / "lib" / version)
    packages, library = Path(sysconfig.get_path("purelib")), ROOT
    if not is_open(packages):
        packages = lend(packages, readable / "packages")
    if not is_open(ROOT):
        for part in ("MedSAM2Lib", "Resources"):
            library = lend(ROOT / part, readable / "app" / part).parent
    (readable / "bin").mkdir()
    shutil.copy2(base / "bin" / version, readable / "bin")
    paths = f"PYTHONPATH={library}:{packages}"
    remote = f"cd / && OMP_NUM_THREADS=1 {paths} exec {readable / 'bin' / version} -m MedSAM2Lib worker"
    with ssh(readable, somebody_else) as words:
        survives(a_client([*words, remote], model="nano"))
        assert owner_of_engine(readable) == somebody_else


def is_open(path: Path) -> bool:
    """Whether every user can get there."""
    return all(folder.stat().st_mode & 0o005 == 0o005 for folder in (path, *path.parents))


def lend(source: Path, target: Path) -> Path:
    """The same files at another place, without a second copy of them where the file system can do that."""

    def link(file: str, place: str) -> None:
        try:
            os.link(file, place)
        except OSError:
            shutil.copy2(file, place)

    shutil.copytree(source, target, copy_function=link, ignore=shutil.ignore_patterns("site-packages", "test", "tests"))
    return target


def owner_of_engine(folder: Path) -> str:
    """Who runs the process whose Python lies in a folder."""
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if str(folder) in os.readlink(process / "exe"):
                return process.owner()
    raise AssertionError("no engine runs there")
