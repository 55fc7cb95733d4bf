"""A store of one's own, and a server whose certificate the tests alone trust."""

from __future__ import annotations

import hashlib
import ssl
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import trustme

from MedSAM2Lib.checkpoints.registry import Model
from MedSAM2Lib.checkpoints.transfer import Connection
from Testing.lib.checkpoints.https_server import FileServer, serving


@pytest.fixture(autouse=True)
def _no_settings_of_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy", "NO_PROXY", "no_proxy", "REQUESTS_CA_BUNDLE",
                 "CURL_CA_BUNDLE"):  # fmt: skip
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(scope="session")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture(scope="session")
def ca_file(authority: trustme.CA, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("certificates") / "authority.pem"
    authority.cert_pem.write_to_path(str(path))
    return path


@pytest.fixture(scope="session")
def server_context(authority: trustme.CA) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost").configure_cert(context)
    return context


@pytest.fixture
def server(server_context: ssl.SSLContext) -> Iterator[FileServer]:
    with serving(server_context) as running:
        yield running


@pytest.fixture
def connection(ca_file: Path) -> Connection:
    """As impatient as a test should be."""
    return Connection(ca_file=ca_file, connect_timeout_s=5.0, stall_timeout_s=0.25, attempts=3, backoff_s=0.0)


@pytest.fixture
def store(tmp_path: Path) -> Path:
    return tmp_path / "store"


@pytest.fixture
def content() -> bytes:
    """What the server has: larger than what is received at a time."""
    return np.random.default_rng(0).bytes(200_000)


@pytest.fixture
def a_model(server: FileServer, content: bytes) -> Model:
    """A model whose file the server has, and whose size and hash are published."""
    server.files["weights.pt"] = content
    server.etags["weights.pt"] = '"one"'
    return Model(
        id="served",
        title="a model",
        purpose="tests",
        network="nano",
        file_name="weights.pt",
        source="the test's server",
        licence="none",
        paper="none",
        addresses=(server.address("weights.pt"),),
        bytes=len(content),
        sha256=hashlib.sha256(content).hexdigest(),
    )
