"""The engine in another Python, and at the other end of an ssh connection."""

from __future__ import annotations

import getpass
import shutil
import socket
import subprocess
import sys
import sysconfig
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from MedSAM2Lib.worker.client import EngineClient, EngineDied
from Testing.lib.worker.support import BOX, Client, kill, masks, open_volume, until

pytestmark = [pytest.mark.slow, pytest.mark.skipif(sys.platform == "win32", reason="paths and ssh of POSIX")]

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


@pytest.fixture
def ssh(tmp_path: Path) -> Iterator[list[str]]:
    """The words that reach this machine through a real sshd of our own."""
    sshd = shutil.which("sshd") or shutil.which("sshd", path="/usr/sbin")
    if sshd is None or shutil.which("ssh") is None:
        pytest.skip("there is no sshd on this machine (Debian's package openssh-server)")
    for key in ("host", "user"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", tmp_path / key], check=True)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    settings = {
        "Port": port, "ListenAddress": "127.0.0.1", "HostKey": tmp_path / "host", "AuthorizedKeysFile": tmp_path / "user.pub",
        "StrictModes": "no", "UsePAM": "no", "PidFile": "none", "PermitRootLogin": "yes", "PasswordAuthentication": "no",
    }  # fmt: skip
    config = tmp_path / "sshd_config"
    config.write_text("".join(f"{name} {value}\n" for name, value in settings.items()))
    Path("/run/sshd").mkdir(exist_ok=True) if getpass.getuser() == "root" else None
    with (tmp_path / "sshd.log").open("w") as log:
        server = subprocess.Popen([sshd, "-D", "-e", "-f", config], stderr=log)
    try:
        wait_for(port)
        quiet = ["-o", "StrictHostKeyChecking=no", "-o", f"UserKnownHostsFile={tmp_path / 'known'}", "-o", "BatchMode=yes"]
        yield ["ssh", "-p", str(port), "-i", str(tmp_path / "user"), *quiet, f"{getpass.getuser()}@127.0.0.1"]
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


def test_over_ssh(a_client: Client, ssh: list[str]) -> None:
    """The shell at the other end greets before the engine speaks."""
    remote = f"echo Welcome; cd / && OMP_NUM_THREADS=1 PYTHONPATH={ROOT} exec {sys.executable} -m MedSAM2Lib worker"
    survives(a_client([*ssh, remote]))
