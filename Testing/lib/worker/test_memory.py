"""Memory runs out: the engine makes room, says so, and goes on where it was."""

from __future__ import annotations

import io
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from MedSAM2Lib.errors import EngineError
from MedSAM2Lib.inference.embeddings import Embeddings
from MedSAM2Lib.network.sam2 import SAM2
from MedSAM2Lib.results import SliceResult
from MedSAM2Lib.worker.channel import Channel
from MedSAM2Lib.worker.client import Progress, SliceReady
from MedSAM2Lib.worker.engine import Engine
from MedSAM2Lib.worker.protocol import Message, read_message
from MedSAM2Lib.worker.relief import relieved
from MedSAM2Lib.worker.values import pack, unpack
from Testing.lib.worker.support import BOX, EVERY_SLICE, Client, a_volume, events_of, masks


class Spoken:
    """An engine in this process, spoken to in messages."""

    def __init__(self, model: Path) -> None:
        self._pipe = io.BytesIO()
        self._engine = Engine(Channel(self._pipe))
        self._asked = 0
        self.texts: list[str] = []  # told to the user
        self.slices: list[SliceResult] = []
        self.ask("start", "", model=str(model), device="cpu", threads=1)

    def ask(self, method: str, volume_id: str = "ct", **arguments: Any) -> Any:
        """The value of a request; what it said on the way is added to `texts` and `slices`."""
        arrays: list[Any] = []
        self._asked += 1
        header = {"type": "request", "id": self._asked, "method": method, "volume": volume_id}
        self._engine.handle(Message({**header, "arguments": pack(arguments, arrays)}, arrays))
        answer = self._answer()
        if answer.header["type"] == "failed":
            raise EngineError(answer.header["message"])
        return unpack(answer.header["value"], answer.arrays)

    def _answer(self) -> Message:
        self._pipe.seek(0)
        messages = list(iter(lambda: read_message(self._pipe), None))
        self._pipe.seek(0)
        self._pipe.truncate()
        for message in messages:
            if message.header["type"] == "progress":
                self.texts.append(message.header["text"])
            elif message.header["type"] == "slice":
                self.slices.append(unpack(message.header["result"], message.arrays))
        return messages[-1]


@pytest.fixture
def an_engine_here(an_untrained_model: Path) -> Spoken:
    threads = torch.get_num_threads()
    engine = Spoken(an_untrained_model)
    torch.set_num_threads(threads)
    return engine


def follow(engine: Spoken, **options: Any) -> list[SliceResult]:
    engine.ask("set_volume", volume=a_volume(20), options={**EVERY_SLICE, **options})
    engine.ask("add_prompt", name="organ", prompt=BOX)
    engine.slices.clear()
    engine.texts.clear()
    assert engine.ask("propagate") == 19
    return list(engine.slices)


def same(one: Sequence[SliceResult], other: Sequence[SliceResult]) -> bool:
    return [two.slice_index for two in one] == [two.slice_index for two in other] and all(
        np.array_equal(first.mask, second.mask) for first, second in zip(one, other, strict=True)
    )


def small_memory(monkeypatch: pytest.MonkeyPatch, batch: int, kept: float) -> None:
    """A GPU on which no more slices than `batch` can be encoded at once, and no more bytes than `kept` be kept."""
    encode: Callable[..., None] = Embeddings._encode

    def on_a_small_gpu(self: Embeddings, keys: Sequence[Any]) -> None:
        if len(keys) > batch or self.kept_bytes > kept:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB.")
        encode(self, keys)

    monkeypatch.setattr(Embeddings, "_encode", on_a_small_gpu)


def test_slices_are_encoded_in_smaller_batches(an_engine_here: Spoken, monkeypatch: pytest.MonkeyPatch) -> None:
    one_by_one = follow(an_engine_here)
    small_memory(monkeypatch, batch=1, kept=float("inf"))
    assert same(follow(an_engine_here, encoder_batch=8), one_by_one)
    assert [text.split(": ")[1] for text in an_engine_here.texts] == [
        f"slices are now encoded {count} at a time." for count in (4, 2, 1)
    ]


def test_fewer_features_are_kept(an_engine_here: Spoken, monkeypatch: pytest.MonkeyPatch) -> None:
    with_room = follow(an_engine_here)
    small_memory(monkeypatch, batch=1, kept=1.5e6)
    assert same(follow(an_engine_here), with_room)
    assert an_engine_here.texts
    assert all("features of fewer slices" in text for text in an_engine_here.texts)


def test_other_volumes_make_room_first(an_engine_here: Spoken, monkeypatch: pytest.MonkeyPatch) -> None:
    an_engine_here.ask("set_volume", "other", volume=a_volume(5, seed=2), options=EVERY_SLICE)
    an_engine_here.ask("add_prompt", "other", name="organ", prompt=BOX)
    small_memory(monkeypatch, batch=1, kept=float("inf"))
    follow(an_engine_here, encoder_batch=2)
    assert ["of other volumes" in text for text in an_engine_here.texts] == [True, False]


class PretendedGPU:
    """There is none here: the processor plays it, until the network is sent to the processor.

    A slice cannot be encoded on it once more than `slices` were, or while more than `kept` bytes of features are on it.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch, slices: float = float("inf"), kept: float = float("inf")) -> None:
        self.used, self.slices, self.kept, self.encoded = True, slices, kept, 0
        encode: Callable[..., None] = Embeddings._encode

        def encode_there(embeddings: Embeddings, keys: Sequence[Any]) -> None:
            there = 0 if embeddings._in_main_memory else embeddings.kept_bytes
            if self.used and (self.encoded > self.slices or there > self.kept):
                raise torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB.")
            self.encoded += len(keys)
            encode(embeddings, keys)

        def leave(network: SAM2, device: str) -> SAM2:
            assert device == "cpu"
            self.used = False
            return network

        monkeypatch.setattr(Embeddings, "_encode", encode_there)
        monkeypatch.setattr(Embeddings, "in_main_memory", property(lambda one: one._in_main_memory or not self.used))
        monkeypatch.setattr(SAM2, "to", leave)
        monkeypatch.setattr("MedSAM2Lib.worker.engine._is_on_gpu", lambda _: self.used)


def test_features_leave_the_gpu(an_engine_here: Spoken, monkeypatch: pytest.MonkeyPatch) -> None:
    with_room = follow(an_engine_here)
    PretendedGPU(monkeypatch, kept=1.5e6)
    assert same(follow(an_engine_here, encoder_batch=2), with_room)
    assert [text.split(": ")[1][:40] for text in an_engine_here.texts] == [
        "slices are now encoded 1 at a time.",
        "image features wait in the machine's own",
    ]


def test_the_work_goes_on_on_the_processor(an_engine_here: Spoken, monkeypatch: pytest.MonkeyPatch) -> None:
    on_one_device = follow(an_engine_here)
    gpu = PretendedGPU(monkeypatch, slices=6)
    assert same(follow(an_engine_here), on_one_device)
    assert "own memory" in an_engine_here.texts[0]
    assert "on the processor" in an_engine_here.texts[-1]
    assert not gpu.used
    assert an_engine_here.ask("undo_label") == "propagation"


def test_a_model_that_has_no_room_on_the_gpu_is_loaded_on_the_processor(
    an_engine_here: Spoken, an_untrained_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_room(self: SAM2, device: torch.device) -> SAM2:
        if device.type != "cpu":
            raise torch.cuda.OutOfMemoryError("CUDA out of memory.")
        return self

    monkeypatch.setattr(SAM2, "to", no_room)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    an_engine_here.texts.clear()
    facts = an_engine_here.ask("start", "", model=str(an_untrained_model), threads=1)
    assert facts["device"] == "cpu"
    assert "on the processor" in an_engine_here.texts[-1]


def test_a_model_that_has_no_room_anywhere_is_not_called_damaged(
    an_engine_here: Spoken, an_untrained_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_room(*_: object, **__: object) -> None:
        raise RuntimeError("[enforce fail at alloc_cpu.cpp:114] DefaultCPUAllocator: can't allocate memory: you tried ...")

    monkeypatch.setattr(torch, "load", no_room)
    with pytest.raises(EngineError, match="not enough memory"):
        an_engine_here.ask("start", "", model=str(an_untrained_model), device="cpu", threads=1)


def test_where_no_room_is_left_the_request_fails_and_the_engine_lives(
    an_engine_here: Spoken, monkeypatch: pytest.MonkeyPatch
) -> None:
    an_engine_here.ask("set_volume", volume=a_volume(20), options=EVERY_SLICE)
    with monkeypatch.context() as patch:
        small_memory(patch, batch=0, kept=0)
        with pytest.raises(EngineError, match="not enough memory"):
            an_engine_here.ask("add_prompt", name="organ", prompt=BOX)
    assert an_engine_here.ask("objects") == []
    an_engine_here.ask("add_prompt", name="organ", prompt=BOX)


def test_other_errors_are_not_taken_for_a_full_memory() -> None:
    def broken() -> None:
        raise RuntimeError("shapes differ")

    with pytest.raises(RuntimeError, match="shapes differ"):
        relieved(broken, [lambda: "room"], print)


@pytest.mark.skipif(sys.platform != "linux", reason="the limit is set on a running process, which only Linux allows")
def test_a_process_whose_memory_is_limited_goes_on(a_client: Client) -> None:
    """RLIMIT_AS on the real engine: its allocator refuses, in the middle of a propagation."""
    import resource

    # What is freed is given back at once, or the limit on addresses would count it still.
    the_engine = a_client(environment={"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_ARENA_MAX": "1"})
    # What is used for the first time takes code and buffers that stay; they are not what is to be given back here.
    the_engine.call("set_volume", "before", volume=a_volume(5), options={**EVERY_SLICE, "drafts": False})
    the_engine.call("add_prompt", "before", name="organ", prompt=BOX)
    events_of(the_engine, the_engine.request("propagate", "before"))
    # A draft takes 70 MB for a moment: so much room would hold all of a short volume.
    the_engine.call("set_volume", "ct", volume=a_volume(120), options={**EVERY_SLICE, "drafts": False})
    the_engine.call("add_prompt", "ct", name="organ", prompt=BOX)
    assert the_engine.pid is not None
    status = Path(f"/proc/{the_engine.pid}/status").read_text()
    used = next(int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith("VmSize"))
    limits = resource.prlimit(the_engine.pid, resource.RLIMIT_AS, (used + HEADROOM, resource.RLIM_INFINITY))
    run = the_engine.request("propagate", "ct")
    events = events_of(the_engine, run)
    resource.prlimit(the_engine.pid, resource.RLIMIT_AS, limits)
    texts = [event.text for event in events if isinstance(event, Progress) and event.text]
    slices = [event.result for event in events if isinstance(event, SliceReady)]
    assert any("Memory is full" in text for text in texts), texts
    assert sorted(one.slice_index for one in slices) == [index for index in range(120) if index != BOX.slice_index]
    mask = masks(the_engine)["organ"]
    assert all(np.array_equal(mask[one.slice_index], one.mask) for one in slices)


HEADROOM = 40 * 2**20  # bytes; 120 slices take about 55 MB, half of it their features
