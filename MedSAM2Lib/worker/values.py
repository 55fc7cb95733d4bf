"""What a message says, as JSON and arrays: numbers, texts, lists, dictionaries, arrays, and the library's own records.

    {"$array": 0}                                          the first array of the message
    {"$mask": 0, "shape": [12, 40, 48], "crop": [[3, 9], [10, 22], [8, 31]]}
                                                           booleans: those within the crop, packed into bits, rest false
    {"$text": 0}                                           a long text, as an array of u1 that holds its UTF-8
    {"$pairs": [[7, "a"], [8, "b"]]}                       a dictionary whose keys are not texts
    {"$record": "Box", "slice_index": 7, "x0": 1, ...}     a record of RECORDS, checked as its class checks it

No pickle, no import by name: what is not listed here cannot be sent.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any, get_args

import numpy as np
import numpy.typing as npt

from MedSAM2Lib.depth_prior import DepthPrior
from MedSAM2Lib.errors import MedSAM2Error, ProtocolError
from MedSAM2Lib.geometry import Geometry
from MedSAM2Lib.inference.options import SessionOptions
from MedSAM2Lib.intensity import Window
from MedSAM2Lib.masks import bounding_box
from MedSAM2Lib.memory.options import SelfSorting
from MedSAM2Lib.packed_mask import PackedMask
from MedSAM2Lib.prompts import Box, Box3D, MaskPrompt, Points, RecistLine
from MedSAM2Lib.results import PropagationReport, SliceConfidence, SliceResult
from MedSAM2Lib.session_steps import Painted, SessionStep
from MedSAM2Lib.volume import Volume

__all__ = ["RECORDS", "pack", "unpack"]

RECORDS: dict[str, type] = {
    record.__name__: record
    for record in (
        Box, Box3D, MaskPrompt, Points, RecistLine,
        Geometry, Volume, Window,
        DepthPrior, SelfSorting, SessionOptions,
        PropagationReport, SliceConfidence, SliceResult,
        PackedMask, Painted, *get_args(SessionStep),
    )
}  # fmt: skip

_LONG_TEXT = 1000  # characters; longer ones do not belong in a header
_LARGEST_MASK = 2**34  # voxels; a lie about a mask's size must not take the machine's memory


def pack(value: Any, arrays: list[npt.NDArray[Any]]) -> Any:
    """JSON for a value; its arrays are appended to `arrays`. Raises ProtocolError for what cannot be sent."""
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, str) and len(value) > _LONG_TEXT:
        return {"$text": _added(np.frombuffer(value.encode(), dtype=np.uint8), arrays)}
    if value is None or isinstance(value, (bool, int, str)):
        return value
    if isinstance(value, float):
        return _pack_float(value)
    if isinstance(value, np.ndarray):
        return _pack_mask(value, arrays) if value.dtype == bool else {"$array": _added(value, arrays)}
    if isinstance(value, Mapping):
        return _pack_mapping(value, arrays)
    if isinstance(value, (list, tuple)):
        return [pack(one, arrays) for one in value]
    if isinstance(value, PackedMask):
        return {"$record": "PackedMask", **pack(value.to_json(), arrays)}
    if dataclasses.is_dataclass(value) and RECORDS.get(type(value).__name__) is type(value):
        fields = {one.name: pack(getattr(value, one.name), arrays) for one in dataclasses.fields(value)}
        return {"$record": type(value).__name__, **fields}
    raise ProtocolError(f"A {type(value).__name__} cannot be sent to the engine or back; worker/values.py lists what can.")


def unpack(packed: Any, arrays: Sequence[npt.NDArray[Any]]) -> Any:
    """The value of JSON that `pack` made: sequences come as lists, in records as tuples. Arrays are read-only.

    Raises ProtocolError for what `pack` does not make, and what a record's own check raises.
    """
    if isinstance(packed, list):
        return [unpack(one, arrays) for one in packed]
    if not isinstance(packed, dict):
        return packed
    marks = [key for key in packed if key.startswith("$")]
    if not marks:
        return {key: unpack(one, arrays) for key, one in packed.items()}
    mark = marks[0]
    if len(marks) > 1 or mark not in _UNPACKERS:
        raise ProtocolError(f"Expected one of {', '.join(_UNPACKERS)} in a message, but {', '.join(marks)!r:.80} came.")
    return _UNPACKERS[mark](packed, arrays)


# ── numbers and dictionaries ──────────────────────────────────────────────────────────────────────────────────────


def _pack_float(value: float) -> float:
    if not math.isfinite(value):
        raise ProtocolError(f"Numbers that are sent must be finite, but {value} came.")
    return value


def _pack_mapping(value: Mapping[Any, Any], arrays: list[npt.NDArray[Any]]) -> dict[str, Any]:
    if all(isinstance(key, str) and not key.startswith("$") for key in value):
        return {key: pack(one, arrays) for key, one in value.items()}
    return {"$pairs": [[pack(key, arrays), pack(one, arrays)] for key, one in value.items()]}


def _unpack_pairs(packed: dict[str, Any], arrays: Sequence[npt.NDArray[Any]]) -> dict[Any, Any]:
    pairs = packed["$pairs"]
    if not isinstance(pairs, list) or not all(
        isinstance(pair, list) and len(pair) == 2 and isinstance(pair[0], (str, int)) for pair in pairs
    ):
        raise ProtocolError("Expected $pairs to be a list of [key, value], keys texts or whole numbers.")
    return {key: unpack(one, arrays) for key, one in pairs}


# ── arrays ────────────────────────────────────────────────────────────────────────────────────────────────────────


def _added(array: npt.NDArray[Any], arrays: list[npt.NDArray[Any]]) -> int:
    arrays.append(array)
    return len(arrays) - 1


def _pack_mask(mask: npt.NDArray[np.bool_], arrays: list[npt.NDArray[Any]]) -> dict[str, Any]:
    box = bounding_box(mask)
    crop = [[0, 0]] * mask.ndim if box is None else [[side.start, side.stop] for side in box]
    bits = np.packbits(mask[tuple(slice(*side) for side in crop)])
    return {"$mask": _added(bits, arrays), "shape": list(mask.shape), "crop": crop}


def _array(packed: dict[str, Any], mark: str, arrays: Sequence[npt.NDArray[Any]]) -> npt.NDArray[Any]:
    place = packed[mark]
    if type(place) is not int or not 0 <= place < len(arrays):
        raise ProtocolError(f"Expected {mark} to be the place of one of the {len(arrays)} arrays, but {place!r:.80} came.")
    return arrays[place]


def _unpack_array(packed: dict[str, Any], arrays: Sequence[npt.NDArray[Any]]) -> npt.NDArray[Any]:
    return _array(packed, "$array", arrays)


def _unpack_text(packed: dict[str, Any], arrays: Sequence[npt.NDArray[Any]]) -> str:
    try:
        return _array(packed, "$text", arrays).tobytes().decode()
    except UnicodeDecodeError as error:
        raise ProtocolError(f"Expected a text in UTF-8 ({error}).") from error


def _unpack_mask(packed: dict[str, Any], arrays: Sequence[npt.NDArray[Any]]) -> npt.NDArray[np.bool_]:
    bits, shape, crop = _array(packed, "$mask", arrays), packed.get("shape"), packed.get("crop")
    if not (isinstance(shape, list) and isinstance(crop, list) and _is_crop(crop, shape) and math.prod(shape) <= _LARGEST_MASK):
        raise ProtocolError(
            f"Expected a mask's shape, and its crop within that as [first, end] along each axis, but {shape!r:.80} and "
            f"{crop!r:.80} came."
        )
    inside = tuple(end - first for first, end in crop)
    voxels = math.prod(inside)
    if bits.dtype != np.uint8 or bits.ndim != 1 or bits.size != -(-voxels // 8):
        raise ProtocolError(f"Expected the {voxels} voxels of a mask's crop as bits, but {bits.nbytes} bytes came.")
    mask: npt.NDArray[np.bool_] = np.zeros(tuple(shape), dtype=np.bool_)
    mask[tuple(slice(*side) for side in crop)] = np.unpackbits(bits, count=voxels).reshape(inside)
    return mask


def _is_crop(crop: list[Any], shape: list[Any]) -> bool:
    if not _whole(shape) or len(crop) != len(shape):
        return False
    return all(_whole(side) and len(side) == 2 and side[0] <= side[1] <= size for side, size in zip(crop, shape, strict=True))


def _whole(numbers: Any) -> bool:
    return isinstance(numbers, list) and all(type(number) is int and number >= 0 for number in numbers)


# ── records ───────────────────────────────────────────────────────────────────────────────────────────────────────


def _unpack_record(packed: dict[str, Any], arrays: Sequence[npt.NDArray[Any]]) -> Any:
    name = packed["$record"]
    kind = RECORDS.get(name) if isinstance(name, str) else None
    if kind is None:
        raise ProtocolError(f"Expected a record of {', '.join(sorted(RECORDS))}, but {name!r:.80} came.")
    fields = {key: _tuples(unpack(one, arrays)) for key, one in packed.items() if key != "$record"}
    try:
        return PackedMask.from_json(fields) if kind is PackedMask else kind(**fields)
    except MedSAM2Error:
        raise
    except (TypeError, ValueError, KeyError, AttributeError, OverflowError) as error:  # a field of another type, or unknown
        raise ProtocolError(f"Expected the fields of a {name}, but none can be made of what came ({error}).") from error


def _tuples(value: Any) -> Any:
    """Records are compared and hashed: their sequences are tuples."""
    return tuple(_tuples(one) for one in value) if isinstance(value, list) else value


_UNPACKERS = {
    "$array": _unpack_array,
    "$mask": _unpack_mask,
    "$text": _unpack_text,
    "$pairs": _unpack_pairs,
    "$record": _unpack_record,
}
