"""What a checkpoint would build, found out without building it: names, shapes, and whether it is tensors alone.

A pickle is a program for a small stack machine. This one runs it on descriptions: a tensor stays a shape and the key of
its record, and every function that the program names must be one of the few that plain weights need. So a file that
would run code, whose tensors reach beyond its records, or whose shapes are absurd is refused before a number of it is
read; PyTorch then opens it with `weights_only=True`, which is a second such check. No torch here.

Source of the operations: the standard library's `pickletools`; of the functions, PyTorch's `torch/_utils.py`.
"""

from __future__ import annotations

import io
import math
import pickletools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, BinaryIO

from MedSAM2Lib.checkpoints.archive import MOST_PICKLE_BYTES, check_size, read_archive
from MedSAM2Lib.errors import CheckpointError

__all__ = ["Outline", "read_outline"]

_MOST_ELEMENTS = 1 << 30  # of a tensor; the largest of any network here has 4 million
_MOST_DIMENSIONS = 8
_MOST_OPERATIONS = 1_000_000  # of a pickle: seconds; the largest network's has 28,000
_LONGEST_KEY = 300  # characters; the longest here has 80

_ITEM_BYTES = {
    "DoubleStorage": 8, "FloatStorage": 4, "HalfStorage": 2, "BFloat16Storage": 2, "LongStorage": 8, "IntStorage": 4,
    "ShortStorage": 2, "CharStorage": 1, "ByteStorage": 1, "BoolStorage": 1, "ComplexFloatStorage": 8,
    "ComplexDoubleStorage": 16,
}  # fmt: skip
_STORAGES = {f"torch.{name}": size for name, size in _ITEM_BYTES.items()}
_DTYPES = ("float16", "bfloat16", "float32", "float64", "int8", "uint8", "int16", "int32", "int64", "bool")
# Beside the weights, training leaves these in a checkpoint; they stay undescribed.
_HARMLESS = {"torch.Size", "torch.device", *(f"torch.{dtype}" for dtype in _DTYPES)}
# A file of PyTorch before 1.6 (or saved as by one) is five pickles, beginning with these two, and then the numbers.
_OLD_MAGIC, _OLD_PROTOCOL = 0x1950A86A20F9469CFC6C, 1001
_OLD_LENGTH_BYTES = 8
_ORDERED_DICT = "collections.OrderedDict"
_TENSOR = "torch._utils._rebuild_tensor_v2"
_PARAMETER = "torch._utils._rebuild_parameter"
_CONSTANTS = ("BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT", "BINUNICODE", "SHORT_BINUNICODE", "SHORT_BINSTRING")
_KNOWN = {_ORDERED_DICT, _TENSOR, _PARAMETER, *_STORAGES, *_HARMLESS}


@dataclass(frozen=True)
class Outline:
    """A dictionary of weights: the shape of every tensor, and the network that the file says it is for."""

    shapes: Mapping[str, tuple[int, ...]]
    network: str | None


def read_outline(stream: BinaryIO, name: str) -> Outline:
    """The outline of an open checkpoint file; `name` is what messages call it.

    Raises CheckpointError for a file that is no whole checkpoint, would run code, or holds other things than tensors.
    """
    size = check_size(stream, name)
    try:
        content = _old_content(stream, size) if stream.read(1) == b"\x80" else _content(stream, name)
    except _ForeignError as error:
        raise CheckpointError(
            f"{name} is not a plain file of weights: it {error}. It was not opened; get the file again from its publisher."
        ) from error
    except (ValueError, LookupError, TypeError, AttributeError, OverflowError) as error:
        raise CheckpointError(f"{name} is not a whole checkpoint ({_in_one_line(error)}); get the file again.") from error
    network = content.get("network") if isinstance(content, dict) else None
    state = content.get("model", content) if isinstance(content, dict) else content
    if not isinstance(state, dict) or not state or not all(isinstance(value, _Tensor) for value in state.values()):
        raise CheckpointError(f"{name} must hold a dictionary of tensors (or one under 'model'), but it holds something else.")
    if odd := [ascii(key)[:80] for key in state if not _is_name(key)]:
        raise CheckpointError(f"{name} has a tensor under {odd[0]}, which is no name; get the file again.")
    shapes = {key: value.shape for key, value in state.items()}
    return Outline(shapes, network if isinstance(network, str) else None)


def _content(stream: BinaryIO, name: str) -> Any:
    archive = read_archive(stream, name)
    return _Machine(archive.records).run(io.BytesIO(archive.pickle))


def _old_content(stream: BinaryIO, size: int) -> Any:
    stream.seek(0)
    pickles = io.BytesIO(stream.read(MOST_PICKLE_BYTES))
    magic, protocol = _Machine({}).run(pickles), _Machine({}).run(pickles)
    if (magic, protocol) != (_OLD_MAGIC, _OLD_PROTOCOL):
        raise ValueError("it is a pickle, but not PyTorch's")
    _Machine({}).run(pickles)  # of the computer that wrote it
    machine = _Machine(None)
    content = machine.run(pickles)
    _Machine({}).run(pickles)  # the order of the records, each of which its length precedes
    if pickles.tell() + sum(_OLD_LENGTH_BYTES + claimed for claimed in machine.claimed.values()) > size:
        raise ValueError("its tensors are larger than the file")
    return content


def _is_name(key: object) -> bool:
    return isinstance(key, str) and 0 < len(key) <= _LONGEST_KEY and key.isascii() and key.isprintable()


def _in_one_line(error: Exception) -> str:
    return ascii(str(error) or type(error).__name__)[1:121]


class _ForeignError(Exception):
    """The program does what plain weights do not need; the text completes "it ..."."""


@dataclass(frozen=True)
class _Function:
    name: str  # module.name


@dataclass(frozen=True)
class _Storage:
    items: int


@dataclass(frozen=True)
class _Tensor:
    shape: tuple[int, ...]


@dataclass(frozen=True)
class _Other:
    """Something harmless that nobody here asks about."""

    what: str


class _Machine:
    """Runs a pickle on descriptions.

    records  the bytes of each storage in the container, by its key; None: what the pickle says is collected in `claimed`
    """

    def __init__(self, records: Mapping[str, int] | None) -> None:
        self._records = records
        self.claimed: dict[str, int] = {}
        self._stack: list[Any] = []
        self._marks: list[int] = []
        self._memo: dict[int, Any] = {}
        self._steps: dict[str, Callable[[Any], None]] = {
            "PROTO": lambda _: None,
            "FRAME": lambda _: None,
            "MARK": lambda _: self._marks.append(len(self._stack)),
            "NONE": lambda _: self._stack.append(None),
            "NEWTRUE": lambda _: self._stack.append(True),
            "NEWFALSE": lambda _: self._stack.append(False),
            "EMPTY_DICT": lambda _: self._stack.append({}),
            "EMPTY_LIST": lambda _: self._stack.append([]),
            "EMPTY_TUPLE": lambda _: self._stack.append(()),
            "TUPLE": lambda _: self._stack.append(tuple(self._pop_to_mark())),
            "TUPLE1": lambda _: self._stack.append(self._pop(1)),
            "TUPLE2": lambda _: self._stack.append(self._pop(2)),
            "TUPLE3": lambda _: self._stack.append(self._pop(3)),
            "APPEND": lambda _: self._append(list(self._pop(1))),
            "APPENDS": lambda _: self._append(self._pop_to_mark()),
            "SETITEM": lambda _: self._set_items(list(self._pop(2))),
            "SETITEMS": lambda _: self._set_items(self._pop_to_mark()),
            "BINPUT": self._remember,
            "LONG_BINPUT": self._remember,
            "MEMOIZE": lambda _: self._remember(len(self._memo)),
            "BINGET": lambda index: self._stack.append(self._memo[index]),
            "LONG_BINGET": lambda index: self._stack.append(self._memo[index]),
            "GLOBAL": lambda names: self._name_function(names.replace(" ", ".", 1)),
            "STACK_GLOBAL": lambda _: self._name_function(".".join(map(str, self._pop(2)))),
            "BINPERSID": lambda _: self._stack.append(self._storage(*self._pop(1))),
            "REDUCE": lambda _: self._stack.append(self._call(*self._pop(2))),
            "BUILD": lambda _: self._build(*self._pop(1)),
        }
        self._steps |= dict.fromkeys(_CONSTANTS, self._stack.append)

    def run(self, program: BinaryIO) -> Any:
        """Runs up to the pickle's end; `program` is left right behind it."""
        for count, (operation, argument, _) in enumerate(pickletools.genops(program)):
            if operation.name == "STOP":
                return self._stack[-1]
            if count > _MOST_OPERATIONS:
                raise _ForeignError("has a pickle of more operations than any checkpoint")
            step = self._steps.get(operation.name)
            if step is None:
                raise _ForeignError(f"uses the pickle operation {operation.name}, which plain weights do not need")
            step(argument)
        raise ValueError("its pickle has no end")

    def _pop(self, count: int) -> tuple[Any, ...]:
        floor = self._marks[-1] if self._marks else 0
        if len(self._stack) - floor < count:
            raise ValueError("its pickle takes more than it made")
        taken = tuple(self._stack[-count:])
        del self._stack[-count:]
        return taken

    def _pop_to_mark(self) -> list[Any]:
        mark = self._marks.pop()
        taken = self._stack[mark:]
        del self._stack[mark:]
        return taken

    def _remember(self, index: int) -> None:
        self._memo[index] = self._stack[-1]

    def _append(self, items: list[Any]) -> None:
        target = self._stack[-1]
        if not isinstance(target, list):
            raise ValueError("its pickle appends to what is no list")
        target.extend(items)

    def _set_items(self, items: list[Any]) -> None:
        target, keys = self._stack[-1], items[::2]
        if not isinstance(target, dict) or len(items) % 2:
            raise ValueError("its pickle sets items of what is no dictionary")
        # Nested tuples as keys could be made to take longer to hash than anybody waits.
        if not all(isinstance(key, (str, int)) for key in keys):
            raise _ForeignError("has dictionary keys that are neither text nor whole numbers")
        target.update(zip(keys, items[1::2], strict=True))

    def _name_function(self, name: str) -> None:
        if name not in _KNOWN:
            raise _ForeignError(f"would run code when opened: {ascii(name)[1:-1][:120]}")
        self._stack.append(_Function(name))

    def _storage(self, reference: Any) -> _Storage:
        """The record that ("storage", type, key, device, items) means; old files add a view, which newer ones leave empty."""
        if not isinstance(reference, tuple) or len(reference) not in (5, 6) or any(reference[5:]):
            raise ValueError("it refers to a record in an unknown way")
        _, kind, key, _, items = reference[:5]
        if not isinstance(kind, _Function) or kind.name not in _STORAGES or not isinstance(key, str) or not _is_count(items):
            raise ValueError("it refers to a record in an unknown way")
        stated = items * _STORAGES[kind.name]
        if self._records is None:
            self.claimed[key] = max(stated, self.claimed.get(key, 0))
        elif (held := self._records.get(key)) is None:
            raise ValueError(f"the record {ascii(key)[:40]} is missing")
        elif held != stated:
            raise ValueError(f"the record {ascii(key)[:40]} has {held:,} bytes, not {stated:,}")
        return _Storage(items)

    def _call(self, function: Any, arguments: Any) -> Any:
        if not isinstance(function, _Function) or not isinstance(arguments, tuple):
            raise _ForeignError("calls what is no function")
        if function.name == _ORDERED_DICT and not arguments:
            return {}
        if function.name == _TENSOR:
            return _tensor(*arguments[:4])
        if function.name == _PARAMETER and isinstance(arguments[0], _Tensor):
            return arguments[0]
        if function.name in _HARMLESS:
            return _Other(function.name)
        raise _ForeignError(f"calls {function.name} in a way that plain weights do not need")

    def _build(self, _state: Any) -> None:
        """A dictionary may carry attributes (a state dictionary's versions of its parts); a tensor may not."""
        if not isinstance(self._stack[-1], dict):
            raise _ForeignError("sets attributes of what is no dictionary")


def _tensor(storage: Any, offset: Any, shape: Any, strides: Any) -> _Tensor:
    """The tensor that a view of a storage is. Raises ValueError where it reaches beyond the storage."""
    if not isinstance(storage, _Storage) or not _is_count(offset) or not _are_counts(shape) or not _are_counts(strides):
        raise ValueError("it describes a tensor in an unknown way")
    if len(shape) != len(strides) or len(shape) > _MOST_DIMENSIONS or math.prod(shape) > _MOST_ELEMENTS:
        raise ValueError(f"it describes a tensor of the shape {str(shape)[:80]}")
    last = offset + sum((length - 1) * stride for length, stride in zip(shape, strides, strict=True))
    if math.prod(shape) and last >= storage.items:
        raise ValueError(f"a tensor of the shape {shape} reaches beyond its record of {storage.items:,} numbers")
    return _Tensor(shape)


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 1 << 40


def _are_counts(values: Any) -> bool:
    return isinstance(values, tuple) and all(map(_is_count, values))
