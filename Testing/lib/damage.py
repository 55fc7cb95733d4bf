"""Ways to damage bytes and JSON at random, for the tests of what is read."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

__all__ = ["DAMAGES", "Damage", "append", "blank", "changed", "cut_out", "flip", "repeat", "truncate"]

Damage = Callable[[bytearray, random.Random], bytes]


def flip(content: bytearray, chance: random.Random, first: int = 0) -> bytes:
    """Some bytes from `first` on become others."""
    for _ in range(chance.randrange(1, 20)):
        content[chance.randrange(first, len(content))] ^= chance.randrange(1, 256)
    return bytes(content)


def truncate(content: bytearray, chance: random.Random) -> bytes:
    return bytes(content[: chance.randrange(len(content))])


def cut_out(content: bytearray, chance: random.Random) -> bytes:
    first, end = _part(content, chance)
    return bytes(content[:first] + content[end:])


def blank(content: bytearray, chance: random.Random) -> bytes:
    first, end = _part(content, chance)
    content[first:end] = bytes(end - first)
    return bytes(content)


def repeat(content: bytearray, chance: random.Random) -> bytes:
    first, end = _part(content, chance)
    return bytes(content[:end] + content[first:])


def append(content: bytearray, chance: random.Random) -> bytes:
    return bytes(content) + chance.randbytes(chance.randrange(1, 2000))


DAMAGES: tuple[Damage, ...] = (flip, truncate, cut_out, blank, repeat, append)


def _part(content: bytearray, chance: random.Random) -> tuple[int, int]:
    """The first byte of a part that is not empty, and the one after it."""
    first, last = sorted(chance.sample(range(len(content) + 1), 2))
    return first, last


def changed(value: Any, chance: random.Random) -> Any:
    """JSON with some of its parts replaced by nonsense."""
    if chance.random() < 0.12:
        return chance.choice([None, -1, 2**70, 0.5, "", "$record", [], {}, [[]], {"$mask": 0}, True])
    if isinstance(value, list):
        return [changed(one, chance) for one in value]
    if isinstance(value, dict):
        return {key: changed(one, chance) for key, one in value.items()}
    return value
