"""Downloads from a real server that drops, stalls, lies and changes its mind."""

from __future__ import annotations

import hashlib
import itertools
import logging
import os
import ssl
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import trustme
import urllib3

from MedSAM2Lib.checkpoints.download import download
from MedSAM2Lib.checkpoints.registry import Model
from MedSAM2Lib.checkpoints.store import expected_sha256, remove
from MedSAM2Lib.checkpoints.transfer import Connection
from MedSAM2Lib.errors import DownloadCancelledError, DownloadError, OptionError, OutputError
from Testing.lib.checkpoints.https_server import Answer, FileServer, proxying, serving
from Testing.lib.checkpoints.support import a_checkpoint


@pytest.fixture(autouse=True)
def _warnings_are_part_of_it(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)


def files(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()} - {"weights.pt.lock"}


def stop_after(received_bytes: int) -> tuple[Callable[[int, int | None], None], Callable[[], bool]]:
    """Progress and cancel for a download that somebody stops there."""
    here = [0]

    def progress(done: int, total: int | None) -> None:
        here[0] = done

    return progress, lambda: here[0] >= received_bytes


# ── whole ─────────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_file_arrives_whole_and_alone(a_model: Model, connection: Connection, store: Path, content: bytes) -> None:
    seen: list[tuple[int, int | None]] = []
    path = download(a_model, connection=connection, progress=lambda *step: seen.append(step))
    assert path == store / "weights.pt"
    assert path.read_bytes() == content
    assert files(store) == {"weights.pt"}
    assert seen[0] == (0, len(content))
    assert seen[-1] == (len(content), len(content))
    assert [done for done, _ in seen] == sorted(done for done, _ in seen)


def test_what_is_here_is_not_fetched_again(a_model: Model, connection: Connection, server: FileServer) -> None:
    download(a_model, connection=connection)
    download(a_model, connection=connection)
    assert len(server.asked) == 1


def test_what_is_here_but_damaged_is_fetched_again(
    a_model: Model, connection: Connection, store: Path, content: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    store.mkdir()
    (store / "weights.pt").write_bytes(content[:-1] + b"?")
    assert download(a_model, connection=connection).read_bytes() == content
    assert "is fetched again: The file of served should have the SHA-256" in caplog.text


def test_a_bundled_model_is_not_downloaded(a_model: Model, connection: Connection) -> None:
    with pytest.raises(OptionError, match="served is not downloaded: it is the test's server"):
        download(replace(a_model, addresses=()), connection=connection)


# ── broken off ────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_download_cut_at_50_random_points_arrives(
    a_model: Model, connection: Connection, server: FileServer, content: bytes
) -> None:
    cuts = np.sort(np.random.default_rng(1).choice(np.arange(1, len(content)), 50, replace=False))
    server.plan.extend(Answer(cut_after=int(length)) for length in np.diff(cuts, prepend=0))
    assert download(a_model, connection=connection).read_bytes() == content
    begun = [asked.first_byte or 0 for asked in server.asked]
    assert begun == sorted(begun)
    assert len(begun) == 51
    assert {asked.if_range for asked in server.asked if asked.first_byte} == {'"one"'}


def test_a_download_stopped_at_50_random_points_arrives(
    a_model: Model, connection: Connection, server: FileServer, store: Path, content: bytes
) -> None:
    """Every attempt is a call of its own, as after a restart; a cut ends it where no cancelling looks."""
    once = replace(connection, attempts=1)
    for length in np.random.default_rng(2).integers(1, 2 * len(content) // 50, 50).tolist():
        server.plan.append(Answer(cut_after=length))
        before = (store / "weights.pt.part").stat().st_size if store.exists() and not (store / "weights.pt").exists() else 0
        progress, cancelled = stop_after(before + length)
        try:
            download(a_model, connection=once, progress=progress, cancelled=cancelled)
        except DownloadCancelledError:
            assert (store / "weights.pt.part").stat().st_size <= before + length
    server.plan.clear()
    assert download(a_model, connection=connection).read_bytes() == content


def test_stopping_keeps_what_has_arrived(
    a_model: Model, connection: Connection, server: FileServer, store: Path, content: bytes
) -> None:
    progress, cancelled = stop_after(60_000)
    with pytest.raises(DownloadCancelledError, match="served was stopped; what has arrived is kept"):
        download(a_model, connection=connection, progress=progress, cancelled=cancelled)
    kept = (store / "weights.pt.part").read_bytes()
    assert kept == content[: len(kept)]
    assert len(kept) >= 60_000
    assert download(a_model, connection=connection).read_bytes() == content
    assert server.asked[-1].first_byte == len(kept)


def test_a_stall_is_noticed_and_the_download_goes_on(
    a_model: Model, connection: Connection, server: FileServer, content: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    server.plan.append(Answer(stall_after=100_000))
    assert download(a_model, connection=connection).read_bytes() == content
    assert "localhost stalled; trying again" in caplog.text


def test_a_server_that_never_goes_on_is_given_up(a_model: Model, connection: Connection, server: FileServer, store: Path) -> None:
    server.plan.extend(Answer(stall_after=size) for size in (70_000, 0, 0, 0))
    with pytest.raises(DownloadError, match=r"localhost stalled\. 0\.1 of 0\.2 MB are kept: the same command goes on from there"):
        download(a_model, connection=connection)
    assert (store / "weights.pt.part").stat().st_size > 0
    assert not (store / "weights.pt").exists()


@pytest.mark.skipif(not hasattr(urllib3.HTTPResponse, "read1"), reason="urllib3 before 2.2 waits for a whole chunk")
def test_a_server_that_hardly_sends_anything_is_given_up(
    a_model: Model, connection: Connection, server: FileServer, caplog: pytest.LogCaptureFixture
) -> None:
    server.plan.append(Answer(drip=True, chunked=True))  # each chunk arrives by itself, so that no read times out
    download(a_model, connection=connection)
    assert "localhost hardly sends anything" in caplog.text


def test_a_busy_server_is_asked_again(a_model: Model, connection: Connection, server: FileServer, content: bytes) -> None:
    server.plan.extend([Answer(status=503, headers={"Retry-After": "0"}), Answer(status=429)])
    assert download(a_model, connection=connection).read_bytes() == content


def test_a_server_that_is_not_there_is_named(a_model: Model, connection: Connection) -> None:
    nowhere = replace(a_model, addresses=("https://localhost:9/weights.pt",))
    with pytest.raises(
        DownloadError, match=r"localhost cannot be reached \(Connection refused\).*get it from the test's server elsewhere"
    ):
        download(nowhere, connection=connection)


# ── lies ──────────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("stated", [199_999, 200_001, 10**13])
def test_a_length_that_is_not_the_published_one_is_refused(
    a_model: Model, connection: Connection, server: FileServer, store: Path, stated: int
) -> None:
    server.plan.append(Answer(stated_bytes=stated, cut_after=0))
    with pytest.raises(DownloadError, match=rf"localhost offers {stated:,} bytes, but the published file has 200,000"):
        download(a_model, connection=connection)
    assert not files(store)


def test_a_body_shorter_than_announced_is_continued_and_then_given_up(
    a_model: Model, connection: Connection, server: FileServer, content: bytes
) -> None:
    server.files["weights.pt"] = content[:150_000]
    server.plan.extend(itertools.repeat(Answer(stated_bytes=200_000, cut_after=200_000), 9))
    with pytest.raises(DownloadError, match=r"weights\.pt could not be fetched: localhost"):
        download(a_model, connection=connection)


def test_a_body_that_goes_on_for_ever_is_refused(
    a_model: Model, connection: Connection, server: FileServer, store: Path, content: bytes
) -> None:
    server.plan.append(Answer(chunked=True, endless=True))
    with pytest.raises(DownloadError, match="sends more than the 200,000 bytes"):
        download(a_model, connection=connection)
    assert server.sent_bytes < 100 * len(content)
    assert not files(store)


def test_wrong_bytes_of_the_right_length_are_dropped(
    a_model: Model, connection: Connection, server: FileServer, store: Path, content: bytes
) -> None:
    server.plan.append(Answer(content=content[::-1]))
    with pytest.raises(DownloadError, match=r"localhost sends something else\. .* should have the SHA-256"):
        download(a_model, connection=connection)
    assert not files(store)


def test_a_part_of_something_else_is_begun_anew(
    a_model: Model, connection: Connection, server: FileServer, content: bytes
) -> None:
    """The server denies that the file changed: only the hash tells."""
    server.plan.extend([Answer(content=content[::-1], cut_after=90_000), Answer(knows_if_range=False)])
    assert download(a_model, connection=connection).read_bytes() == content


def test_a_server_that_knows_no_ranges_begins_anew(
    a_model: Model, connection: Connection, server: FileServer, content: bytes
) -> None:
    server.plan.extend([Answer(cut_after=120_000), Answer(knows_ranges=False)])
    assert download(a_model, connection=connection).read_bytes() == content


@pytest.mark.parametrize("knows_if_range", [True, False])
def test_a_file_that_changes_between_parts_begins_anew(
    a_model: Model, connection: Connection, server: FileServer, content: bytes, knows_if_range: bool
) -> None:
    server.files["weights.pt"], server.etags["weights.pt"] = content[::-1], '"old"'
    progress, cancelled = stop_after(60_000)
    with pytest.raises(DownloadCancelledError):
        download(a_model, connection=connection, progress=progress, cancelled=cancelled)
    server.files["weights.pt"], server.etags["weights.pt"] = content, '"new"'
    server.plan.append(Answer(knows_if_range=knows_if_range))
    assert download(a_model, connection=connection).read_bytes() == content


def test_a_continuation_from_another_place_is_refused(
    a_model: Model, connection: Connection, server: FileServer, content: bytes
) -> None:
    server.plan.extend([Answer(cut_after=50_000), Answer(shift=1)])
    assert download(a_model, connection=connection).read_bytes() == content


@pytest.mark.parametrize("kept", [b"", b"x" * 200_000, b"x" * 300_000])
@pytest.mark.parametrize("record", [None, "{", "[]", '{"address": 1}'])
def test_whatever_lies_where_the_part_should_be_the_file_arrives(
    a_model: Model, connection: Connection, store: Path, content: bytes, kept: bytes, record: str | None
) -> None:
    store.mkdir()
    (store / "weights.pt.part").write_bytes(kept)
    if record is not None:
        (store / "weights.pt.part.json").write_text(record)
    assert download(a_model, connection=connection).read_bytes() == content
    assert files(store) == {"weights.pt"}


@pytest.mark.skipif(not hasattr(os, "O_NOFOLLOW"), reason="links that may not be followed are of POSIX")
def test_a_link_where_the_part_should_be_is_not_written_through(
    a_model: Model, connection: Connection, store: Path, content: bytes, tmp_path: Path
) -> None:
    store.mkdir()
    (tmp_path / "precious.txt").write_text("mine")
    (store / "weights.pt.part").symlink_to(tmp_path / "precious.txt")
    assert download(a_model, connection=connection).read_bytes() == content
    assert (tmp_path / "precious.txt").read_text() == "mine"


# ── addresses, certificates, proxies ──────────────────────────────────────────────────────────────────────────────────


def test_a_redirection_to_http_is_refused_unasked(
    a_model: Model, connection: Connection, server: FileServer, content: bytes
) -> None:
    with serving(None) as plain:
        plain.files["weights.pt"] = content
        server.plan.append(Answer(status=302, headers={"Location": plain.address("weights.pt")}))
        with pytest.raises(DownloadError, match="localhost redirects to an address that is not https, which is refused"):
            download(a_model, connection=connection)
        assert not plain.asked


@pytest.mark.parametrize("location", ["file:///etc/passwd", "ftp://localhost/weights.pt", "https://["])
def test_other_redirections_are_refused(
    a_model: Model, connection: Connection, server: FileServer, store: Path, location: str
) -> None:
    server.plan.extend(itertools.repeat(Answer(status=302, headers={"Location": location}), 3))
    with pytest.raises(DownloadError, match=r"localhost (redirects|is, or redirects)"):
        download(a_model, connection=connection)
    assert not files(store)


def test_a_redirection_to_https_is_followed(a_model: Model, connection: Connection, server: FileServer, content: bytes) -> None:
    server.files["elsewhere.pt"] = content
    server.plan.append(Answer(status=302, headers={"Location": server.address("elsewhere.pt")}))
    assert download(a_model, connection=connection).read_bytes() == content


def test_endless_redirections_are_refused(a_model: Model, connection: Connection, server: FileServer) -> None:
    server.plan.extend(itertools.repeat(Answer(status=302, headers={"Location": a_model.addresses[0]}), 40))
    with pytest.raises(DownloadError, match="redirects without end"):
        download(a_model, connection=connection)


@pytest.mark.parametrize("status", [401, 403, 404, 410])
def test_an_address_without_the_file_is_named_and_the_next_is_asked(
    a_model: Model, connection: Connection, server: FileServer, content: bytes, status: int
) -> None:
    server.plan.append(Answer(status=status))
    with pytest.raises(DownloadError, match=f"localhost answers {status} "):
        download(a_model, connection=connection)
    server.plan.append(Answer(status=status))
    twice = replace(a_model, addresses=a_model.addresses * 2)
    assert download(twice, connection=connection).read_bytes() == content


def test_a_mirror_is_asked_first_and_continued_elsewhere(
    a_model: Model, connection: Connection, server: FileServer, server_context: ssl.SSLContext, content: bytes
) -> None:
    with serving(server_context) as mirror:
        mirror.files["weights.pt"] = content
        mirror.plan.extend([Answer(cut_after=130_000), *itertools.repeat(Answer(status=404), 3)])
        mirrored = replace(connection, mirrors=(mirror.address(""),))
        assert download(a_model, connection=mirrored).read_bytes() == content
    assert 0 < (server.asked[0].first_byte or 0) <= 130_000


@pytest.mark.parametrize("mirror", ["http://localhost/models", "ftp://localhost", "models", "https://"])
def test_a_mirror_that_is_not_https_is_a_usage_error(a_model: Model, connection: Connection, mirror: str) -> None:
    with pytest.raises(OptionError, match="fetched by https only"):
        download(a_model, connection=replace(connection, mirrors=(mirror,)))


def test_a_certificate_that_nobody_signed_is_refused_at_once(
    a_model: Model, connection: Connection, server: FileServer, tmp_path: Path
) -> None:
    trustme.CA().cert_pem.write_to_path(str(tmp_path / "other.pem"))
    for ca_file in (None, tmp_path / "other.pem"):
        with pytest.raises(DownloadError, match="localhost shows a certificate that this computer does not trust"):
            download(a_model, connection=replace(connection, ca_file=ca_file))
    assert not server.asked


def test_certificates_of_the_environment_are_trusted(
    a_model: Model, connection: Connection, ca_file: Path, content: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(ca_file))
    assert download(a_model, connection=replace(connection, ca_file=None)).read_bytes() == content


def test_certificates_that_do_not_exist_are_a_usage_error(a_model: Model, connection: Connection, tmp_path: Path) -> None:
    with pytest.raises(OptionError, match="should be a PEM file, but there is none"):
        download(a_model, connection=replace(connection, ca_file=tmp_path / "none.pem"))


@pytest.mark.parametrize("way", ["option", "environment"])
def test_a_proxy_is_gone_through(
    a_model: Model, connection: Connection, server: FileServer, content: bytes, way: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with proxying() as proxy:
        if way == "environment":
            monkeypatch.setenv("HTTPS_PROXY", proxy.address)
        through = replace(connection, proxy=proxy.address if way == "option" else None)
        assert download(a_model, connection=through).read_bytes() == content
    assert proxy.tunnels == [f"localhost:{server.server_port}"]


def test_a_proxy_that_is_not_there_is_named(a_model: Model, connection: Connection) -> None:
    with pytest.raises(DownloadError, match="localhost cannot be reached through the proxy"):
        download(a_model, connection=replace(connection, proxy="http://127.0.0.1:9"))


# ── hashes that nobody published ──────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def an_unpublished(a_model: Model, server: FileServer) -> Model:
    """A model of which only the size is known."""
    server.files["weights.pt"] = a_checkpoint()
    return replace(a_model, bytes=len(a_checkpoint()), sha256=None)


def test_a_hash_that_nobody_published_is_pinned(
    an_unpublished: Model, connection: Connection, server: FileServer, store: Path
) -> None:
    path = download(an_unpublished, connection=connection)
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    assert (store / "weights.pt.sha256").read_text() == f"{sha256}  weights.pt\n"
    assert expected_sha256(an_unpublished) == sha256
    remove(an_unpublished)
    server.files["weights.pt"] = a_checkpoint(2.0)
    with pytest.raises(DownloadError, match=r"as the first one that came \(pinned in .*weights\.pt\.sha256\)"):
        download(an_unpublished, connection=connection)


def test_what_is_no_checkpoint_is_not_pinned(
    an_unpublished: Model, connection: Connection, server: FileServer, store: Path
) -> None:
    server.files["weights.pt"] = b"<html>sign in</html>".ljust(len(a_checkpoint()))
    with pytest.raises(DownloadError, match=r"sends something else\. weights\.pt is not a whole checkpoint"):
        download(an_unpublished, connection=connection)
    assert not files(store)


def test_without_a_hash_a_part_is_continued_only_by_the_servers_word(
    an_unpublished: Model, connection: Connection, server: FileServer
) -> None:
    del server.etags["weights.pt"]
    server.plan.append(Answer(cut_after=40_000))
    download(an_unpublished, connection=connection)
    assert [asked.first_byte for asked in server.asked] == [None, None]


def test_without_a_hash_a_length_is_asked_for(an_unpublished: Model, connection: Connection, server: FileServer) -> None:
    server.plan.append(Answer(chunked=True))
    with pytest.raises(DownloadError, match="does not say how long the file is"):
        download(an_unpublished, connection=connection)


def test_a_hash_that_the_server_announces_must_be_the_files(
    an_unpublished: Model, connection: Connection, server: FileServer, store: Path
) -> None:
    sha256 = hashlib.sha256(a_checkpoint()).hexdigest()
    server.files["cdn.pt"] = a_checkpoint()
    for announced in ("0" * 64, sha256):
        redirect = {"Location": server.address("cdn.pt"), "X-Linked-Etag": f'"{announced}"'}
        server.plan.append(Answer(status=302, headers=redirect))
        if announced != sha256:
            with pytest.raises(DownloadError, match=r"announced the SHA-256 0000000000000000\.\.\."):
                download(an_unpublished, connection=connection)
            assert not files(store)
    assert download(an_unpublished, connection=connection).read_bytes() == a_checkpoint()


# ── the disk ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_store_that_cannot_be_made_is_told(a_model: Model, connection: Connection, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match=r"folder of models .* cannot be made: .*--store or MEDSAM2_MODELS"):
        download(a_model, tmp_path / "file" / "store", connection=connection)


@pytest.mark.skipif(sys.platform == "win32", reason="modes of POSIX")
@pytest.mark.skipif(not Path("/proc/version").is_file(), reason="needs a folder that nobody can write to, as Linux's /proc")
def test_a_store_that_cannot_be_written_is_told(a_model: Model, connection: Connection) -> None:
    with pytest.raises(OutputError, match=r"cannot be made"):
        download(a_model, Path("/proc/self"), connection=connection)
