"""1,000 inputs damaged at random give 1,000 clear errors: images, prompts, saved sessions, messages, checkpoints.

Each is refused with one error of our own tree that says what is wrong and what to do about it, soon, with little memory;
no file appears, and what was there stays as it was. A damage that does no harm, or that nobody can tell (a spacing of 0.8
that became 0.9), does not count towards the thousand: then what is read must be whole.
"""

from __future__ import annotations

import copy
import io
import json
import random
import re
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK
import torch

from MedSAM2Lib.checkpoints.loading import load_any_model
from MedSAM2Lib.errors import CheckpointError, MedSAM2Error, ProtocolError, StateError, UsageError, VolumeError
from MedSAM2Lib.inference.session import Session
from MedSAM2Lib.prompt_files import read_prompts, resolve, to_json
from MedSAM2Lib.prompts import Box, Points
from MedSAM2Lib.volume_io.read import read_volume
from MedSAM2Lib.worker.protocol import Message, encode, read_message
from Testing.lib.checkpoints.support import a_checkpoint
from Testing.lib.damage import DAMAGES, Damage, changed, flip
from Testing.lib.dicom_support import ARRAY, SPACING, write_series
from Testing.lib.inference.support import SeesBright, ellipsoid, known, loaded, opened, signed, volume_of
from Testing.lib.worker.support import BOX, EVERY_SLICE, a_volume
from Testing.lib.worker.wire import Wire, sealed

COUNTS = {"images": 250, "prompts": 125, "sessions": 125, "messages": 125, "requests": 125, "checkpoints": 250}
IMAGES = ("plain.nrrd", "packed.nrrd", "plain.nii", "packed.nii.gz", "dicom")

_MOST_SECONDS = 5.0  # of the processor, for one input; most take a hundredth
_MOST_MEMORY = 2**29  # bytes of addresses on top of what the process has
# What to do about it, or what it should have been, as our messages put it: "...; copy it again", "counts from 0, but -1 came".
_ADVICE = re.compile(r"; \w+|, but ")


def test_the_counts_make_a_thousand() -> None:
    assert sum(COUNTS.values()) == 1000


def refused(count: int, attempt: Callable[[random.Random], None], kind: type[MedSAM2Error], seed: int = 0) -> list[str]:
    """What is said of damaged inputs, until `count` were refused; the others must have done no harm."""
    chance, said, tried = random.Random(seed), [], 0
    while len(said) < count:
        tried += 1
        began = time.process_time()
        try:
            attempt(chance)
        except kind as error:
            said.append(str(error))
        assert time.process_time() - began < _MOST_SECONDS
    assert len(said) > 0.3 * tried
    assert [message for message in said if not is_clear(message)] == []
    return said


def is_clear(message: str) -> bool:
    return len(message) < 1500 and "Traceback" not in message and bool(_ADVICE.search(message))


@pytest.fixture
def little_memory() -> Iterator[None]:
    """No damaged number may take all of the machine's memory, nor a lack of it end the process."""
    if sys.platform != "linux":
        yield
        return
    import resource

    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    before = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (used + _MOST_MEMORY, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_AS, before)


# ── images ────────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("name", IMAGES)
def test_damaged_images_are_refused(name: str, tmp_path: Path, little_memory: None) -> None:
    path = tmp_path / name
    files = written(path)
    whole = {file: file.read_bytes() for file in files}

    def attempt(chance: random.Random) -> None:
        damaged = chance.choice(files)
        damaged.write_bytes(header_damaged(whole[damaged], chance))
        try:
            volume = read_volume(path)
        finally:
            assert {file: file.read_bytes() for file in files if file != damaged} == {
                file: content for file, content in whole.items() if file != damaged
            }
            assert sorted(path.parent.rglob("*.*")) == files
            damaged.write_bytes(whole[damaged])
        assert np.isfinite(volume.array).all()
        assert volume.array.shape == volume.geometry.shape
        assert volume.array.size <= 2 * ARRAY.size

    refused(COUNTS["images"] // len(IMAGES), attempt, VolumeError, seed=IMAGES.index(name))


def written(path: Path) -> list[Path]:
    """The small image of the DICOM tests in a format; its files."""
    if path.name == "dicom":
        return sorted(write_series(path).iterdir())
    image = SimpleITK.GetImageFromArray(ARRAY)
    image.SetSpacing(SPACING)
    SimpleITK.WriteImage(image, str(path), useCompression="packed" in path.name)
    return [path]


def header_damaged(content: bytes, chance: random.Random) -> bytes:
    """Somewhere before the voxels, which nothing protects in most formats; or cut short anywhere."""
    voxels = ARRAY[0].nbytes if content[128:132] == b"DICM" else ARRAY.nbytes
    header = max(len(content) - voxels, min(len(content), 300))
    if chance.random() < 0.2:
        return content[: chance.randrange(len(content))]
    if chance.random() < 0.5:
        return numbers_changed(content[:header], chance) + content[header:]
    return chance.choice(DAMAGES)(bytearray(content[:header]), chance) + content[header:]


def numbers_changed(header: bytes, chance: random.Random) -> bytes:
    """Digits become others, or what belongs to no number; some four bytes the largest numbers there are."""
    content = bytearray(header)
    for place in [place for place, byte in enumerate(content) if chr(byte).isdigit()]:
        if chance.random() < 0.03:
            content[place : place + 1] = chance.choice([b"9999", b"0", b"-1", b"nan", b".", b"e"])
    if chance.random() < 0.3:
        place = chance.randrange(len(content))
        content[place : place + 4] = chance.choice([b"\xff\xff\xff\x7f", b"\xff\xff\xff\xff", b"\x00\x00\x80\x7f"])
    return bytes(content)


# ── prompts and saved sessions ────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture(scope="module")
def a_session() -> Session:
    """An object with a correction, a lock, and something to undo."""
    session = opened(loaded(SeesBright), volume_of(ellipsoid((8, 20, 24))))
    session.add_prompt("liver", Box(3, 5, 6, 14, 13))
    list(session.propagate())
    session.add_prompt("liver", Points(5, (9.0, 8.0), (9.0, 11.0), (True, False)))
    session.lock("liver", [2])
    return session


FILES: list[dict[str, Any]] = [
    {
        "format": "medsam2-prompts/1",
        "axis": "k",
        "range": [1, 6],
        "objects": [
            {"name": "cyst", "prompts": [{"type": "box", "slice": 2, "box": [4, 5, 15, 14]}]},
            {"name": "vein", "prompts": [{"type": "points", "slice": 2, "points": [[12, 9, "+"], [20, 7, "-"]]}]},
            {"name": "node", "prompts": [{"type": "recist", "slice": 4, "line": [10, 8, 12, 9]}]},
            {"name": "mass", "prompts": [{"type": "box3d", "slices": [3, 5], "box": [6, 9, 13, 12]}]},
        ],
    },
    {
        "format": "medsam2-prompts/1",
        "axis": "k",
        "window": [-160, 240],
        "steps": [
            {"do": "prompt", "object": "cyst", "prompt": {"type": "box", "slice": 4, "box": [8, 6, 21, 19]}},
            {"do": "propagate", "objects": ["cyst"], "range": [2, 6], "redo": False, "results": 3},
            {"do": "lock", "object": "cyst", "slices": [4, 5]},
            {"do": "rename object", "object": "cyst", "to": "node"},
            {"do": "undo"},
        ],
    },
]


def test_damaged_files_of_prompts_are_refused(a_session: Session, tmp_path: Path) -> None:
    path, before = tmp_path / "prompts.json", known(a_session)

    def attempt(chance: random.Random) -> None:
        whole = json.dumps(chance.choice(FILES)).encode()
        damage: Damage = chance.choice(DAMAGES)
        as_json = json.dumps(changed(json.loads(whole), chance)).encode()
        path.write_bytes(as_json if chance.random() < 0.5 else damage(bytearray(whole), chance))
        prompts = read_prompts(path)
        assert list(tmp_path.iterdir()) == [path]
        assert to_json(prompts, tmp_path)
        given(a_session, prompts.prompts)

    def given(session: Session, prompts: Any) -> None:
        """What was read is checked again at the session's door."""
        state = session.state()
        try:
            for named in prompts:
                for prompt in resolve(named.prompt, volume_of(ellipsoid((8, 20, 24))).geometry, 0):
                    now = known(session)
                    try:
                        assert session.add_prompt(named.name, prompt).mask.shape == session.slice_shape
                    except UsageError:
                        assert known(session) == now
                        raise
        finally:
            session.restore(state)

    refused(COUNTS["prompts"], attempt, UsageError)
    assert known(a_session) == before


def test_damaged_saved_sessions_are_refused(a_session: Session) -> None:
    """Half of them with a right checksum, as only somebody who means it would write it."""
    whole, before = a_session.state(), known(a_session)
    target = opened(a_session.model, volume_of(ellipsoid((8, 20, 24))))

    def attempt(chance: random.Random) -> None:
        damaged = copy.deepcopy(whole)
        for part in chance.choices(["setting", "objects", "records", "recording"], k=2):
            damaged[part] = changed(damaged[part], chance)
        at = known(target)
        try:
            target.restore(signed(damaged) if chance.random() < 0.5 else damaged)
        except StateError:
            assert known(target) == at
            raise
        target.state()

    refused(COUNTS["sessions"], attempt, StateError)
    target.restore(whole)
    assert known(target) == before


# ── messages ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_damaged_messages_are_refused() -> None:
    """Any change of a message's bytes is noticed."""
    whole = b"".join(encode(Message({"type": "request", "id": 3}, [np.arange(40, dtype=np.int16), np.ones(3)])))

    def attempt(chance: random.Random) -> None:
        damaged = chance.choice(DAMAGES)(bytearray(whole), chance)
        if not damaged or damaged.startswith(whole):
            return
        read_message(io.BytesIO(damaged))
        raise AssertionError("a damaged message was taken for a whole one")

    refused(COUNTS["messages"], attempt, ProtocolError)


def test_requests_with_something_wrong_are_refused(an_untrained_model: Path) -> None:
    """A real engine answers each of them, and its session is the same afterwards."""
    with Wire() as wire:
        wire.ask("start", model=str(an_untrained_model), device="cpu", threads=1)
        wire.ask("set_volume", volume=a_volume(), options=EVERY_SLICE)
        wire.ask("add_prompt", name="organ", prompt=BOX)
        before = wire.ask("state")

        def attempt(chance: random.Random) -> None:
            wire.send(nonsense(wire, chance))
            answer = wire.answer()
            assert answer is not None
            if answer.header["type"] != "done":
                assert "met an unexpected" not in answer.header["message"]
                raise MedSAM2Error(answer.header["message"])

        refused(COUNTS["requests"], attempt, MedSAM2Error)
        assert wire.ask("state") == before


def nonsense(wire: Wire, chance: random.Random) -> bytes:
    """A request with something wrong in it, sizes of header and payload apart."""
    mask = np.zeros((40, 48), dtype=bool)
    mask[5:20, 7:30] = True
    method, arguments = chance.choice(
        [("mask", {"name": "organ"}), ("slice_mask", {"name": "organ", "slice_index": 3}), ("plan", {"objects": ["organ"]})]
    )
    too_much = chance.choice([{}, {"mask": mask, "prompt": BOX}])
    header, arrays = wire.parts(method, **arguments, **too_much)
    payload = b"".join(encode(Message({"type": "x"}, arrays))[1:])
    listed = [["u1", list(array.shape)] for array in arrays]
    match chance.randrange(4):
        case 0:
            return sealed(json.dumps({**header, "arrays": changed(listed, chance)}).encode(), payload)
        case 1:
            parts = {key: one if key in ("type", "id") else changed(one, chance) for key, one in header.items()}
            return sealed(json.dumps({**parts, "arrays": listed}).encode(), payload)
        case 2:
            return sealed(chance.randbytes(chance.randrange(200)), chance.randbytes(8))
        case _:
            whole = bytearray(sealed(json.dumps({**header, "arrays": listed}).encode(), payload))
            whole[chance.randrange(28, len(whole))] ^= 1 << chance.randrange(8)
            return bytes(whole)


# ── checkpoints ───────────────────────────────────────────────────────────────────────────────────────────────────────


def flip_the_pickle(content: bytearray, chance: random.Random) -> bytes:
    content[content.index(b"\x80\x02") + chance.randrange(250)] = chance.randrange(256)
    return bytes(content)


def flip_the_directory(content: bytearray, chance: random.Random) -> bytes:
    return flip(content, chance, content.index(b"PK\x01\x02"))


def test_damaged_checkpoints_are_refused(tmp_path: Path) -> None:
    """Also where the damage leaves the file readable: one tensor is no network. A fifth of them as PyTorch wrote before 1.6."""
    path, old = tmp_path / "weights.pt", io.BytesIO()
    torch.save({"weights": torch.ones(3000)}, old, _use_new_zipfile_serialization=False)
    before = peak_kb()

    def attempt(chance: random.Random) -> None:
        if chance.random() < 0.2:
            content = chance.choice(DAMAGES)(bytearray(old.getvalue()), chance)
        else:
            content = chance.choice((*DAMAGES, flip_the_pickle, flip_the_directory))(bytearray(a_checkpoint()), chance)
        path.write_bytes(content)
        try:
            load_any_model(str(path), torch.device("cpu"), "nano")
        finally:
            assert list(tmp_path.iterdir()) == [path]
            assert path.read_bytes() == content
        raise AssertionError("no network has such weights")

    said = refused(COUNTS["checkpoints"], attempt, CheckpointError)
    assert all(message.startswith(str(path)) and message.isprintable() for message in said)
    assert peak_kb() - before < 150_000


def peak_kb() -> int:
    if sys.platform != "linux":
        return 0
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
