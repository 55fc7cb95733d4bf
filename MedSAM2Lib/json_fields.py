"""Reading JSON that people write: what is wrong is said together with where it stands."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

__all__ = ["MistakeError", "fields_of", "numbers", "text", "whole_number", "whole_numbers"]


class MistakeError(ValueError):
    """Where the content of a file is not what it should be; the message has no path and no full stop yet."""


def fields_of(content: Any, where: str, required: set[str], optional: Iterable[str] = ()) -> Mapping[str, Any]:
    """The content as a dictionary that has what it must have and nothing unknown: a misspelt key is not passed over."""
    if not isinstance(content, dict):
        raise MistakeError(f"{where}: expected {{...}} with {_listed(required)}")
    if missing := required - content.keys():
        raise MistakeError(f"{where} lacks {_listed(missing)}")
    if unknown := content.keys() - required - set(optional):
        raise MistakeError(f"{where} has {_listed(unknown)}, but only {_listed(required | set(optional))} mean something there")
    return content


def _listed(keys: Iterable[str]) -> str:
    return ", ".join(f'"{key}"' for key in sorted(keys))


def text(value: Any, where: str, key: str) -> str:
    if not (isinstance(value, str) and value.strip()):
        raise MistakeError(f'{where}: expected "{key}" to be a text, but it is {json.dumps(value)}')
    return value


def numbers(values: Any, count: int | None, where: str) -> list[float]:
    well_formed = isinstance(values, list) and all(
        isinstance(value, (int, float)) and not isinstance(value, bool) for value in values
    )
    if not well_formed or count not in (None, len(values)):
        raise MistakeError(f"{where}: expected {'a list of' if count is None else count} numbers, but it is {json.dumps(values)}")
    try:
        return [float(value) for value in values]
    except OverflowError as error:
        raise MistakeError(f"{where}: expected numbers, but one is too large") from error


def whole_numbers(values: Any, count: int | None, where: str) -> list[int]:
    read = numbers(values, count, where)
    if not all(number.is_integer() for number in read):
        raise MistakeError(f"{where}: expected whole numbers, but it is {json.dumps(values)}")
    return [int(number) for number in read]


def whole_number(value: Any, where: str) -> int:
    return whole_numbers([value], 1, where)[0]
