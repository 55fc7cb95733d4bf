"""What a session knows of its objects, as a dictionary that `json` can write, and back.

Memories are not written: each is made again when a slice first looks at it, from the logits of the slice it is of, which
are. That gives the same bits, because they were made of what is kept of the logits in the first place.
"""

from __future__ import annotations

import base64
import hashlib
import json
import math
import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from MedSAM2Lib.errors import MedSAM2Error, StateError
from MedSAM2Lib.frames import View
from MedSAM2Lib.inference.door import Door
from MedSAM2Lib.inference.history import Moment, Moments
from MedSAM2Lib.inference.kept_logits import KeptLogits
from MedSAM2Lib.inference.late_memory import LateMemory
from MedSAM2Lib.inference.objects import SegmentedObject, SliceRecord
from MedSAM2Lib.inference.segmenter import Segmenter
from MedSAM2Lib.packed_mask import PackedMask
from MedSAM2Lib.prompt_files import read_recording
from MedSAM2Lib.prompt_json import MaskFile, prompt_from_json, prompt_to_json
from MedSAM2Lib.prompts import Box, Points
from MedSAM2Lib.results import SliceConfidence
from MedSAM2Lib.session_steps import Painted, SessionStep, Spoken, said
from MedSAM2Lib.world_prompts import WorldPrompt

__all__ = ["Setting", "Written", "read_state", "written_state"]

_FORMAT = "medsam2-session-state/1"
_LARGEST_OBJECT = 2**26  # bytes of JSON, of one object in the history; a damaged one must not fill the memory
Written = dict[int, tuple[SliceRecord, dict[str, Any]]]  # by id of the record, which it keeps alive

# What reading something else than was written may raise, from wherever.
_DAMAGE = (KeyError, TypeError, ValueError, IndexError, AttributeError, OverflowError, zlib.error, MedSAM2Error)


@dataclass(frozen=True)
class Setting:
    """What a state belongs to."""

    shape: tuple[int, int, int]  # slices, rows, columns
    axis: str
    window: tuple[float, float]
    model: str
    sha256: str  # of the model's weights


# ── writing ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def written_state(
    objects: Mapping[str, SegmentedObject],
    setting: Setting,
    recording: Mapping[str, Any],
    written: Written,
    moments: Moments | None = None,
) -> dict[str, Any]:
    """written  the records of the last state with a history, which are not written again; replaced by those of this one
    moments  of the history, to be written too"""
    table = _Records()
    content: dict[str, Any] = {
        "format": _FORMAT,
        "setting": {**asdict(setting), "shape": list(setting.shape), "window": list(setting.window)},
        "objects": [_object_to_json(target, table) for target in objects.values()],
        "recording": dict(recording),
    }
    shown = len(table.records)
    if moments is not None:
        content["history"] = _history_to_json(objects, moments, table)
    now = {id(record): written.get(id(record)) or (record, _record_to_json(record)) for record in table.records}
    for record in table.records[shown:]:
        if id(record) not in written:
            record.kept.pack()  # which it was before it was looked at
    if moments is not None:
        written.clear()
        written.update(now)
    content["records"] = [dict(record) for _, record in now.values()]
    return {**content, "checksum": _checksum(content)}


def _history_to_json(objects: Mapping[str, SegmentedObject], moments: Moments, table: _Records) -> dict[str, Any]:
    """Each object once, in however many steps it was the same; those that are in the session stand before the others."""
    known = {id(target): place for place, target in enumerate(objects.values())}
    more: list[str] = []

    def place(target: SegmentedObject) -> int:
        if id(target) not in known:
            known[id(target)] = len(known)
            more.append(_packed_text(json.dumps(_object_to_json(target, table), separators=(",", ":")).encode()))
        return known[id(target)]

    past, future = ([[one.label, [place(each) for each in one.objects.values()]] for one in each_way] for each_way in moments)
    return {"objects": more, "past": past, "future": future}


class _Records:
    """Each record once, however many memories are made of it."""

    def __init__(self) -> None:
        self.records: list[SliceRecord] = []
        self._places: dict[int, int] = {}

    def place(self, record: SliceRecord) -> int:
        if id(record) not in self._places:
            self._places[id(record)] = len(self.records)
            self.records.append(record)
        return self._places[id(record)]


def _object_to_json(target: SegmentedObject, table: _Records) -> dict[str, Any]:
    bank = target.tracker.bank
    return {
        "name": target.name,
        "view": _view_to_json(target.view),
        "slices": [[index, table.place(record)] for index, record in target.records.items()],
        "prompts": [prompt_to_json(kept, Path()) for kept in target.spoken],
        "limits": None if target.limits is None else list(target.limits),
        "locked": sorted(target.locked),
        "unreached": sorted(target.unreached),
        "stale": sorted(target.stale),
        "directions": [[index, direction] for index, direction in target.tracker.tracked_direction.items()],
        "conditioning": [_memory_to_json(entry, table) for entry in bank.conditioning.values()],
        "tracked": [[way, shown, *_memory_to_json(entry, table)] for entry, way, shown in bank.tracked_entries()],
        "pending": [_memory_to_json(entry, table) for entry in target.tracker.pending.values()],
    }


def _memory_to_json(entry: object, table: _Records) -> list[Any]:
    assert isinstance(entry, LateMemory), "a session makes no other"
    assert entry.record is not None
    assert entry.view is not None
    return [entry.slice_index, table.place(entry.record), _view_to_json(entry.view), entry.prompted]


def _record_to_json(record: SliceRecord) -> dict[str, Any]:
    return {
        "mask": record.packed.to_json(),
        "logits": _tensor_to_text(record.logits),
        "view": _view_to_json(record.view),
        "direction": record.direction,
        "confidence": asdict(record.confidence),
        "pointer": _tensor_to_text(record.pointer),
        "scores": _tensor_to_text(torch.stack((record.iou, record.object_score))),
    }


def _view_to_json(view: View) -> list[int]:
    return [view.row, view.column, view.height, view.width]


def _tensor_to_text(tensor: Tensor) -> str:
    return _packed_text(tensor.cpu().numpy().tobytes())


def _packed_text(content: bytes) -> str:
    return base64.b64encode(zlib.compress(content, 1)).decode()


def _checksum(content: Mapping[str, Any]) -> str:
    text = json.dumps(content, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


# ── reading ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def read_state(
    state: Mapping[str, Any], setting: Setting, door: Door, segmenter: Segmenter
) -> tuple[dict[str, SegmentedObject], list[SessionStep], Moments]:
    """The objects of a saved state, the steps that led to them, and those to undo. Raises StateError; nothing is changed."""
    _check_whole(state)
    _check_setting(state, setting)
    try:
        records = [_record(content, segmenter) for content in state["records"]]
        targets = [_object(content, records, door, segmenter) for content in state["objects"]]
        steps = read_recording(state["recording"])
        history = _history(state["history"], targets, records, door, segmenter) if "history" in state else ([], [])
    except _DAMAGE as error:
        raise StateError(f"The saved session is damaged ({_in_words(error)}); segment anew, or take an older copy.") from error
    return {target.name: target for target in targets}, steps, history


def _history(
    content: Mapping[str, Any],
    targets: Sequence[SegmentedObject],
    records: Sequence[SliceRecord],
    door: Door,
    segmenter: Segmenter,
) -> Moments:
    unpacked = (json.loads(_unpacked(text, _LARGEST_OBJECT)) for text in content["objects"])
    known = [*targets, *(_object(one, records, door, segmenter) for one in unpacked)]

    def moment(label: str, places: Sequence[int]) -> Moment:
        there = {target.name: target for target in (known[_whole(place, 0)] for place in places)}
        return Moment(str(label), there)

    return [moment(*one) for one in content["past"]], [moment(*one) for one in content["future"]]


def _check_whole(state: Mapping[str, Any]) -> None:
    if not isinstance(state, Mapping) or state.get("format") != _FORMAT:
        came = state.get("format") if isinstance(state, Mapping) else type(state).__name__
        raise StateError(
            f"A saved session is a dictionary of format {_FORMAT!r}, but {came!r} came; it may be of a newer version."
        )
    try:
        checksum = _checksum({key: value for key, value in state.items() if key != "checksum"})
    except (TypeError, ValueError) as error:
        raise StateError(f"The saved session is damaged ({_in_words(error)}); segment anew, or take an older copy.") from error
    if state.get("checksum") != checksum:
        raise StateError("The saved session is damaged (its checksum does not fit it); segment anew, or take an older copy.")


def _check_setting(state: Mapping[str, Any], setting: Setting) -> None:
    expected = {**asdict(setting), "shape": list(setting.shape), "window": list(setting.window)}
    saved = state.get("setting")
    if not isinstance(saved, Mapping):
        raise StateError("The saved session does not say what it belongs to; segment anew, or take an older copy.")
    for key, value in expected.items():
        if saved.get(key) != value:
            raise StateError(
                f"The saved session belongs to the {key} {saved.get(key)}, but this one has {value}; open the volume and the "
                "model that it was made with."
            )


def _object(content: Mapping[str, Any], records: Sequence[SliceRecord], door: Door, segmenter: Segmenter) -> SegmentedObject:
    tracker = segmenter.new_tracker()
    count = segmenter.slice_count

    def memory(index: int, place: int, view: Sequence[int], prompted: bool) -> LateMemory:
        return segmenter.memory(_slice(index, count), records[_whole(place, 0)], _view(view), bool(prompted))

    for one in content["conditioning"]:
        tracker.bank.add_conditioning(memory(*one))
    for direction, shown, *one in content["tracked"]:
        tracker.bank.put_back(memory(*one), _direction(direction), bool(shown))
    for one in content["pending"]:
        tracker.expect(memory(*one))
    tracker.tracked_direction = {_slice(index, count): _direction(way) for index, way in content["directions"]}
    spoken = tuple(_spoken(one) for one in content["prompts"])
    low_high = content["limits"]
    name = content["name"]
    if not (isinstance(name, str) and name):
        raise ValueError("an object has no name")
    return SegmentedObject(
        name=name,
        tracker=tracker,
        view=_view(content["view"]),
        records={_slice(index, count): records[_whole(place, 0)] for index, place in content["slices"]},
        spoken=spoken,
        boxes=_boxes(spoken, door),
        clicks=_clicks(spoken, door),
        limits=None if low_high is None else (_slice(low_high[0], count), _slice(low_high[1], count)),
        locked=frozenset(_slices(content["locked"], count)),
        unreached=_slices(content["unreached"], count),
        stale=_slices(content["stale"], count),
    )


def _spoken(content: Any) -> Spoken:
    prompt = prompt_from_json(content, "a prompt", Path())
    if isinstance(prompt, (MaskFile, WorldPrompt)):
        raise ValueError("a saved session names no files, and places as voxels")
    return prompt


def _boxes(spoken: Iterable[Spoken], door: Door) -> dict[int, Box]:
    simple = [door.checked(said(kept)) for kept in spoken if not isinstance(kept, (Points, Painted))]
    return {box.slice_index: box for box in simple if isinstance(box, Box)}


def _clicks(spoken: Iterable[Spoken], door: Door) -> dict[int, tuple[Points, ...]]:
    clicks: dict[int, tuple[Points, ...]] = {}
    for kept in spoken:
        if isinstance(kept, Points):
            door.checked(kept)
            clicks[kept.slice_index] = (*clicks.get(kept.slice_index, ()), kept)
    return clicks


def _record(content: Mapping[str, Any], segmenter: Segmenter) -> SliceRecord:
    config, device = segmenter.network.config, segmenter.network.device
    side = config.logits_size
    packed = PackedMask.from_json(content["mask"])
    if packed.shape != segmenter.slice_shape:
        raise ValueError(f"a mask of {packed.shape} came for slices of {segmenter.slice_shape}")
    confidence = content["confidence"]
    iou, object_score = _tensor(content["scores"], (2, 1), np.float32).to(device)
    return SliceRecord(
        packed=packed,
        kept=KeptLogits(_tensor(content["logits"], (1, 1, side, side), np.float16), math.prod(packed.shape)),
        view=_view(content["view"]),
        direction=_direction(content["direction"]),
        confidence=SliceConfidence(_finite(confidence["iou"]), _finite(confidence["presence"]), bool(confidence["prompted"])),
        pointer=_tensor(content["pointer"], (1, config.hidden_dim), np.float32).to(device),
        iou=iou,
        object_score=object_score,
    )


def _tensor(text: str, shape: tuple[int, ...], kind: type[np.floating[Any]]) -> Tensor:
    wanted = math.prod(shape) * np.dtype(kind).itemsize
    array = np.frombuffer(_unpacked(text, wanted), dtype=kind).reshape(shape).copy()
    if not np.isfinite(array).all():
        raise ValueError("a number is not finite")
    return torch.from_numpy(array)


def _unpacked(text: str, most: int) -> bytes:
    content = zlib.decompressobj().decompress(base64.b64decode(text, validate=True), most + 1)
    if len(content) > most:
        raise ValueError(f"more than {most} bytes came")
    return content


def _view(content: Sequence[int]) -> View:
    row, column, height, width = (_whole(side) for side in content)
    if height < 1 or width < 1:
        raise ValueError(f"a view cannot be {height} x {width} pixels large")
    return View(row, column, height, width)


def _direction(value: int) -> int:
    if value not in (1, -1):
        raise ValueError(f"a direction is 1 or -1, but {value!r} came")
    return value


def _slices(values: Iterable[int], count: int) -> set[int]:
    return {_slice(value, count) for value in values}


def _slice(value: int, count: int) -> int:
    if _whole(value, 0) >= count:
        raise ValueError(f"there is no slice {value} of {count}")
    return value


def _whole(value: int, least: int | None = None) -> int:
    if type(value) is not int or (least is not None and value < least):
        raise ValueError(f"expected a whole number, but {value!r} came")
    return value


def _finite(value: float) -> float:
    if not isinstance(value, (int, float)) or not math.isfinite(value):
        raise ValueError(f"expected a finite number, but {value!r} came")
    return float(value)


def _in_words(error: BaseException) -> str:
    return str(error) or type(error).__name__
