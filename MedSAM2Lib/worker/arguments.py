"""Whether what came in a request is what a method takes: names and types, before anything is called."""

from __future__ import annotations

import collections.abc
import inspect
import re
import types
import typing
from collections.abc import Callable, Mapping
from typing import Any

from MedSAM2Lib.errors import OptionError

__all__ = ["check_arguments"]


def check_arguments(function: Callable[..., Any], arguments: Mapping[str, Any]) -> None:
    """Raises OptionError where a function does not take these keyword arguments, by its signature and annotations."""
    name = function.__name__.lstrip("_")
    try:
        inspect.signature(function).bind(**arguments)
    except TypeError as error:
        taken = ", ".join(inspect.signature(function).parameters) or "none"
        raise OptionError(f"{name} does not take these arguments ({error}); it takes: {taken}.") from error
    expected = typing.get_type_hints(function)
    for key, value in arguments.items():
        if key in expected and not _fits(value, expected[key]):
            said = re.sub(r"[\w.]+\.", "", inspect.formatannotation(expected[key]))
            raise OptionError(f"{name} expects {key} to be of type {said}, but {value!r:.80} came.")


def _fits(value: Any, kind: Any) -> bool:
    """Whether a value is of an annotated type; what cannot be told is let through, and left to the method's own checks."""
    origin, inner = typing.get_origin(kind), typing.get_args(kind)
    if origin in (typing.Union, types.UnionType):
        return any(_fits(value, one) for one in inner)
    if origin is not None and isinstance(origin, type) and issubclass(origin, collections.abc.Mapping):
        return isinstance(value, Mapping)
    if origin is tuple:
        return isinstance(value, (list, tuple)) and (not inner or Ellipsis in inner or len(value) == len(inner))
    if isinstance(origin, type) and issubclass(origin, collections.abc.Iterable) and inner:
        plural = isinstance(value, (list, tuple))
        return plural and all(_fits(one, inner[0]) for one in value)
    if not isinstance(kind, type):
        return True
    if isinstance(value, bool):  # a bool is an int to Python, but not to the person who sent one
        return kind in (bool, object)
    return isinstance(value, (int, float)) if kind is float else isinstance(value, kind)
