"""Checkpoints that are damaged or meant ill: one clear error each, no code run, no memory taken, no file made."""

from __future__ import annotations

import io
import pickle
import random
import struct
import sys
import time
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from MedSAM2Lib.checkpoints.loading import load_any_model
from MedSAM2Lib.errors import CheckpointError
from Testing.lib.checkpoints.support import a_checkpoint
from Testing.lib.damage import flip

_MOST_SECONDS = 5.0  # of the processor, for one file; most take a hundredth


@pytest.fixture(scope="module", autouse=True)
def _the_layout_is_known(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Building it loads parts of torch, which takes seconds, once a process."""
    path = tmp_path_factory.mktemp("weights") / "weights.pt"
    path.write_bytes(a_checkpoint())
    with pytest.raises(CheckpointError):
        load_any_model(str(path), torch.device("cpu"), "nano")


@pytest.fixture
def refused(tmp_path: Path) -> Callable[[bytes], str]:
    """What is said of a file with this content: one line that names it."""
    path = tmp_path / "weights.pt"

    def said_of(content: bytes) -> str:
        path.write_bytes(content)
        began = time.process_time()
        with pytest.raises(CheckpointError) as error:
            load_any_model(str(path), torch.device("cpu"), "nano")
        assert time.process_time() - began < _MOST_SECONDS
        message = str(error.value)
        assert message.startswith(str(path))
        assert message.isprintable()
        assert len(message) < 1000
        assert list(tmp_path.iterdir()) == [path]
        return message

    return said_of


def test_a_whole_network_with_a_changed_number_is_refused(an_untrained_model: Path, tmp_path: Path) -> None:
    whole, chance = an_untrained_model.read_bytes(), random.Random(3)
    for first in (0, whole.index(b"PK\x01\x02")) * 5:  # anywhere, or in the table of contents
        (tmp_path / "weights.pt").write_bytes(flip(bytearray(whole), chance, first))
        with pytest.raises(CheckpointError, match=r"damaged|not a whole checkpoint") as refused:
            load_any_model(str(tmp_path / "weights.pt"), torch.device("cpu"))
        assert str(refused.value).isprintable()


def test_a_checkpoint_without_checksums_loads(an_untrained_model: Path, tmp_path: Path) -> None:
    """As PyTorch writes it when told to."""
    content = bytearray(an_untrained_model.read_bytes())
    at = content.index(b"PK\x01\x02")
    while content[at : at + 4] == b"PK\x01\x02":
        content[at + 16 : at + 20] = b"\xba\xad\xf0\x0d"
        at += 46 + sum(struct.unpack_from("<3H", content, at + 28))
    (tmp_path / "weights.pt").write_bytes(content)
    assert load_any_model(str(tmp_path / "weights.pt"), torch.device("cpu")).name == "weights.pt"


# ── meant ill ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def an_archive(pickled: bytes, records: dict[str, bytes] | None = None, method: int = zipfile.ZIP_STORED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as container:
        container.writestr("archive/data.pkl", pickled)
        container.writestr("archive/version", b"3\n")
        for name, content in (records or {}).items():
            container.writestr(f"archive/{name}", content)
    return buffer.getvalue()


def a_text(text: str) -> bytes:
    return b"X" + struct.pack("<I", len(text.encode())) + text.encode()


def a_number(number: int) -> bytes:
    return b"\x8a\x08" + struct.pack("<q", number)


def a_tensor(shape: tuple[int, ...], strides: tuple[int, ...], offset: int = 0, items: int = 1, key: str = "0") -> bytes:
    """The pickle of a dictionary with one tensor, as torch writes it."""
    storage = b"(" + a_text("storage") + b"ctorch\nFloatStorage\n" + a_text(key) + a_text("cpu") + a_number(items) + b"tQ"
    sizes = b"(" + b"".join(map(a_number, shape)) + b"t(" + b"".join(map(a_number, strides)) + b"t"
    hooks = b"ccollections\nOrderedDict\n)R"
    arguments = b"(" + storage + a_number(offset) + sizes + b"\x89" + hooks + b"t"
    return b"\x80\x02}" + a_text("weights") + b"ctorch._utils\n_rebuild_tensor_v2\n" + arguments + b"Rs."


def test_the_tensor_that_the_next_tests_spoil_is_a_good_one(refused: Callable[[bytes], str]) -> None:
    said = refused(an_archive(a_tensor((1,), (1,)), {"data/0": bytes(4)}))
    assert "has in excess weights" in said
    assert "is not for nano" in said


@pytest.mark.parametrize(
    ("pickled", "why"),
    [
        (a_tensor((2,), (1,)), "reaches beyond its record of 1 numbers"),
        (a_tensor((1,), (1,), offset=1), "reaches beyond its record"),
        (a_tensor((1 << 20, 1 << 20), (0, 0)), "tensor of the shape"),
        (a_tensor((1 << 39,) * 8, (0,) * 8), "tensor of the shape"),
        (a_tensor((1,) * 9, (1,) * 9), "tensor of the shape"),
        (a_tensor((1 << 30,), (0,)), "is not for nano"),  # 4 GB, if anybody made it
        (a_tensor((-1,), (1,)), "in an unknown way"),
        (a_tensor((1,), (-1,)), "in an unknown way"),
        (a_tensor((1,), (1,), items=1 << 62), "in an unknown way"),
        (a_tensor((1,), (1,), items=1 << 35), "has 4 bytes, not 137,438,953,472"),
        (a_tensor((1,), (1,), key="1"), "the record '1' is missing"),
        (a_tensor((1,), (1,), key="../version"), "the record '../version' is missing"),
        (a_tensor((1,), (1,), key="/etc/passwd"), "the record '/etc/passwd' is missing"),
    ],
)
def test_a_tensor_that_is_not_in_the_file_is_refused(pickled: bytes, why: str, refused: Callable[[bytes], str]) -> None:
    assert why in refused(an_archive(pickled, {"data/0": bytes(4)}))


def touched(load: Callable[[], object]) -> set[str]:
    """The files that are opened, made, moved or removed meanwhile, and the programs and connections that are begun."""
    seen: list[tuple[str, object]] = []
    watching = [True]

    def watch(event: str, arguments: tuple[object, ...]) -> None:
        if watching[0] and event.startswith(("open", "os.", "shutil.", "socket.", "subprocess.", "tempfile.", "ctypes.dlopen")):
            seen.append((event, arguments[0] if arguments else ""))

    sys.addaudithook(watch)  # which cannot be taken away again
    try:
        load()
    finally:
        watching[0] = False
    return {str(one) for _, one in seen}


@pytest.mark.parametrize("key", ["../version", "/etc/passwd", "..\\..\\version", "file:///etc/passwd", "archive/version"])
def test_nothing_but_the_file_itself_is_touched(key: str, tmp_path: Path) -> None:
    """Whatever a checkpoint calls its parts: nothing is read or written elsewhere."""
    path = tmp_path / "weights.pt"
    path.write_bytes(an_archive(a_tensor((1,), (1,), key=key), {key: bytes(4), "data/0": bytes(4)}))

    def load() -> None:
        with pytest.raises(CheckpointError):
            load_any_model(str(path), torch.device("cpu"), "nano")

    assert touched(load) == {str(path)}
    assert list(tmp_path.iterdir()) == [path]


def test_a_good_checkpoint_touches_nothing_else_either(an_untrained_model: Path) -> None:
    load_any_model(str(an_untrained_model), torch.device("cpu"))  # what is imported on the way is there then
    assert touched(lambda: load_any_model(str(an_untrained_model), torch.device("cpu"))) == {str(an_untrained_model)}


@pytest.mark.parametrize(
    ("pickled", "why"),
    [
        (pickle.dumps({"a": print}, protocol=2), "would run code when opened: __builtin__.print"),
        (pickle.dumps({"a": print}, protocol=5), "would run code when opened: builtins.print"),
        (b"\x80\x02cos\nsystem\n" + a_text("true") + b"\x85R.", "would run code when opened: os.system"),
        (b"\x80\x02(ios\nsystem\n.", "the pickle operation INST"),
        (b"\x80\x02\x82\x01.", "the pickle operation EXT1"),
        (b"\x80\x02ctorch\nload\n)R.", "would run code when opened: torch.load"),
        (b"\x80\x02ctorch.hub\nload\n)R.", "would run code when opened: torch.hub.load"),
        (b"\x80\x02c\x1b[2J\nx\n.", "would run code when opened"),  # and clears no terminal
        (b"\x80\x02}" + a_text("a") + b"\x8b\xff\xff\xff\x00", "is not a whole checkpoint"),
        (b"\x80\x02ccollections\nOrderedDict\n](" + b"K\x01K\x01\x86tR.", "calls what is no function"),
        (b"\x80\x02ccollections\nOrderedDict\n](K\x01K\x01\x86e\x85R.", "calls collections.OrderedDict in a way"),
        (b"\x80\x02ctorch\nSize\n(K\x01t\x81.", "the pickle operation NEWOBJ"),
        (b"\x80\x02ctorch\nFloatStorage\n}b.", "sets attributes of what is no dictionary"),
        (b"\x80\x02K\x01.", "must hold a dictionary of tensors"),
        (b"\x80\x02}.", "must hold a dictionary of tensors"),
        (b"\x80\x02" + b"(" * 100_000 + b"t" * 100_000 + b".", "must hold a dictionary of tensors"),
        (b"\x80\x02" + b"]" * 100_000 + b"a" * 99_999 + b".", "must hold a dictionary of tensors"),
        (b"\x80\x020.", "is not a plain file of weights"),
        (b"\x80\x02t.", "is not a whole checkpoint"),
        (b"\x80\x02)", "is not a whole checkpoint"),
        (b"", "is not a whole checkpoint"),
        (b"\x80\x02h\x05.", "is not a whole checkpoint"),
        (b"\x80\x02r\xff\xff\xff\xff.", "is not a whole checkpoint"),
        (b"garbage", "is not a"),
    ],
)  # fmt: skip
def test_a_pickle_that_is_no_weights_is_refused_by_name(pickled: bytes, why: str, refused: Callable[[bytes], str]) -> None:
    assert why in refused(an_archive(pickled))


def test_a_key_that_would_take_for_ever_to_hash_is_refused(refused: Callable[[bytes], str]) -> None:
    """A tuple of twice the same tuple of twice the same ..., 60 deep: 2^60 hashes."""
    nested = b")" + b"".join(b"q\x00h\x00\x86" for _ in range(60))
    assert "keys that are neither text nor whole numbers" in refused(an_archive(b"\x80\x02}" + nested + b"K\x01s."))


@pytest.mark.parametrize("key", ["", "a\nb", "\x1b[2J", "ä", "x" * 301])
def test_a_key_that_is_no_name_is_refused_and_not_printed(key: str, refused: Callable[[bytes], str]) -> None:
    buffer = io.BytesIO()
    torch.save({key: torch.zeros(1)}, buffer)
    assert "which is no name" in refused(buffer.getvalue())


def test_a_network_name_without_end_is_shown_in_part(tmp_path: Path) -> None:
    torch.save({"model": {"a": torch.zeros(1)}, "network": "x" * 100_000}, tmp_path / "weights.pt")
    with pytest.raises(CheckpointError, match=r"a network 'x{40}' that this version does not know"):
        load_any_model(str(tmp_path / "weights.pt"), torch.device("cpu"))


# ── containers ────────────────────────────────────────────────────────────────────────────────────────────────────────

GOOD = a_tensor((1,), (1,))


def test_a_zip_bomb_is_refused(refused: Callable[[bytes], str]) -> None:
    """10 kB that would become 10 MB; a real one has a thousand times that."""
    assert "has compressed or encrypted records" in refused(
        an_archive(GOOD, {"data/0": bytes(10_000_000)}, zipfile.ZIP_DEFLATED)
    )


def test_records_that_overlap_are_refused(refused: Callable[[bytes], str]) -> None:
    """One megabyte, stated a hundred times."""
    container = an_archive(GOOD, {"data/0": bytes(1_000_000)})
    directory, end = container.index(b"PK\x01\x02"), container.index(b"PK\x05\x06")
    entries = container[directory:end]
    last = entries[entries.rindex(b"PK\x01\x02") :]
    copies = b"".join(last.replace(b"data/0", b"data/%c" % (48 + number)) for number in range(1, 100))
    fields = list(struct.unpack("<4s4H2LH", container[end:]))
    fields[3] = fields[4] = fields[4] + 99
    fields[5] += len(copies)
    assert "together are larger than the file" in refused(container[:end] + copies + struct.pack("<4s4H2LH", *fields))


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_two_records_of_one_name_are_refused(refused: Callable[[bytes], str]) -> None:
    assert "two records of one name" in refused(an_archive(GOOD, {"data.pkl": GOOD}))


def test_a_program_is_refused(refused: Callable[[bytes], str]) -> None:
    assert "is a program (TorchScript)" in refused(an_archive(GOOD, {"constants.pkl": b"\x80\x02)."}))


def test_a_table_of_contents_without_end_is_refused(refused: Callable[[bytes], str]) -> None:
    container = an_archive(GOOD)
    end = container.index(b"PK\x05\x06")
    fields = list(struct.unpack("<4s4H2LH", container[end:]))
    fields[5] = 0xFFFFFFF0
    assert "longer table of contents than any" in refused(container[:end] + struct.pack("<4s4H2LH", *fields))


def test_20001_records_are_refused(refused: Callable[[bytes], str]) -> None:
    assert "20,003 records, more than any checkpoint" in refused(an_archive(GOOD, {f"data/{n}": b"" for n in range(20_001)}))


def test_a_pickle_without_end_is_refused(refused: Callable[[bytes], str]) -> None:
    assert "has a pickle of 5,000,000 bytes" in refused(an_archive(bytes(5_000_000)))


def test_a_pickle_that_works_without_end_is_refused(refused: Callable[[bytes], str]) -> None:
    assert "a pickle of more operations than any checkpoint" in refused(an_archive(b"\x80\x02" + b"N" * 2_000_000 + b"."))


def test_a_file_larger_than_any_is_refused_unread(tmp_path: Path) -> None:
    path = tmp_path / "weights.pt"
    with path.open("wb") as stream:
        stream.truncate((4 << 30) + 1)  # sparse: takes no room
    with pytest.raises(CheckpointError, match="4,294,967,297 bytes, more than any"):
        load_any_model(str(path), torch.device("cpu"))


# ── files as PyTorch before 1.6 wrote them ────────────────────────────────────────────────────────────────────────────


def test_an_old_file_whose_tensors_are_larger_than_it_is_refused(refused: Callable[[bytes], str]) -> None:
    buffer = io.BytesIO()
    torch.save({"weights": torch.ones(3000)}, buffer, _use_new_zipfile_serialization=False)
    claimed = buffer.getvalue().replace(b"M\xb8\x0b", b"J\x00\x00\x00\x7f", 1)  # 3000 as 2,130,706,432 numbers
    assert "its tensors are larger than the file" in refused(claimed)
