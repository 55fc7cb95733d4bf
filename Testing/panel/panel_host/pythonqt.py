"""Qt's classes with PythonQt's habits: a property is an attribute, and `connect` takes a signature.

PythonQt (github.com/MeVisLab/pythonqt, src/PythonQtClassInfo.cpp, PythonQtSignal.cpp) finds a name among an object's Qt
properties first, so `button.text` is the text and `button.text()` fails; setters, slots and signals are there as in C++.
A slot gets as many of the signal's arguments as it takes. One that raises prints its traceback and the program goes on.
"""

from __future__ import annotations

import inspect
import re
import sys
import traceback
from collections.abc import Callable
from functools import cache
from types import ModuleType
from typing import Any

from PySide6 import QtCore, QtGui, QtWidgets

from panel_host.table import members, table

# Exceptions that slots raised since the list was emptied last. A test that ends with one in it fails.
raised: list[BaseException] = []


def read(widget: QtCore.QObject, name: str) -> Any:
    """A property's value, past the list of members."""
    return QtCore.QObject.property(widget, name)


class _Property:
    """A Qt property as PythonQt shows it; on the class, the function of the same name (`QTimer.singleShot`)."""

    def __init__(self, name: str, function: Any) -> None:
        self.name, self.function = name, function

    def __get__(self, instance: Any, owner: type) -> Any:
        return self.function if instance is None else QtCore.QObject.property(instance, self.name)

    def __set__(self, instance: Any, value: Any) -> None:
        meta = QtCore.QObject.metaObject(instance)
        if not meta.property(meta.indexOfProperty(self.name)).isWritable():
            raise AttributeError(f"{self.name} is read-only")
        QtCore.QObject.setProperty(instance, self.name, value)


def _call(slot: Callable[..., object], arguments: tuple[object, ...]) -> None:
    try:
        slot(*arguments[: _positional(slot, len(arguments))])
    except Exception as error:
        raised.append(error)
        traceback.print_exc(file=sys.stderr)


def _positional(slot: Callable[..., object], given: int) -> int:
    """How many of the given arguments a slot takes."""
    try:
        parameters = inspect.signature(slot).parameters.values()
    except (TypeError, ValueError):
        return given
    if any(parameter.kind is parameter.VAR_POSITIONAL for parameter in parameters):
        return given
    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    return min(given, sum(parameter.kind in kinds for parameter in parameters))


def connect(self: Any, *arguments: Any) -> Any:
    """`object.connect("clicked(bool)", slot)`, as in PythonQt."""
    if len(arguments) != 2:  # PySide's own, which connects a signal by way of its object
        return QtCore.QObject.connect(*arguments)
    signature, slot = arguments
    match = re.fullmatch(r"(\w+)\((.*)\)", signature)
    if match is None:
        raise ValueError(f"A signal is written with its parentheses, as in 'clicked()', but {signature!r} came")
    name, types = match[1], [each for each in match[2].split(",") if each]
    meta = QtCore.QObject.metaObject(self)
    plain = signature.replace("vtkMRMLNode*", "PyObject").replace("QAction*", "QAction*")
    normal = bytes(QtCore.QMetaObject.normalizedSignature(plain).data()).decode()
    if meta.indexOfSignal(normal) < 0:
        raise AttributeError(f"{meta.className()} has no signal {signature}")
    signal = object.__getattribute__(self, name)
    overloads = [
        method
        for index in range(meta.methodCount())
        if bytes((method := meta.method(index)).name().data()).decode() == name
        and method.methodType() == QtCore.QMetaMethod.MethodType.Signal
    ]
    if len({method.parameterCount() for method in overloads}) < len(overloads):  # same name, other types
        signal = signal[tuple(_TYPES[each] for each in types)] if len(types) > 1 else signal[_TYPES[types[0]]]
    signal.connect(lambda *values: _call(slot, values[: len(types)]))
    return True


_TYPES: dict[str, Any] = {"int": int, "bool": bool, "QString": str, "double": float}


@cache
def stand_in(name: str, base: type, *bases: str) -> type:
    """A class that behaves as PythonQt's wrapping of `base`, as far as the members go that the table lists.

    bases   dotted names whose members it has too
    """
    allowed = members(name, *bases)

    namespace: dict[str, Any] = {}
    if issubclass(base, QtCore.QObject):
        namespace["connect"] = connect
        meta = base.staticMetaObject
        for index in range(meta.propertyCount()):
            property_name = meta.property(index).name()
            # One that a stand-in defines itself is an attribute already.
            if property_name in allowed and not isinstance(getattr(base, property_name, None), QtCore.Property):
                namespace[property_name] = _Property(property_name, getattr(base, property_name, None))
    made = type(base.__name__, (base,), namespace)
    made.__module__ = name.partition(".")[0]
    missing = sorted(each for each in allowed if not hasattr(made, each))
    if missing:
        raise AttributeError(f"The host's table lists for {name} what it has not: {', '.join(missing)}")
    return made


def _find(name: str) -> Any:
    for module in (QtCore, QtGui, QtWidgets):
        if hasattr(module, name):
            return getattr(module, name)
    raise AttributeError(f"Qt has no {name}")


# Which rows of the table a class shares.
_WIDGET = ("qt.QObject", "qt.QWidget")
_BUTTON = (*_WIDGET, "qt.QAbstractButton")


def _bases(kind: type) -> tuple[str, ...]:
    rows = ["qt.QObject"] if issubclass(kind, QtCore.QObject) else []
    for parent in (
        QtWidgets.QWidget,
        QtWidgets.QAbstractButton,
        QtWidgets.QAbstractSpinBox,
        QtWidgets.QFrame,
        QtWidgets.QAbstractItemView,
        QtWidgets.QLayout,
        QtWidgets.QBoxLayout,
    ):
        if issubclass(kind, parent):
            rows.append(f"qt.{parent.__name__}")
    return tuple(rows)


def rows_of(kind: type) -> tuple[str, ...]:
    return _bases(kind)


@cache  # PySide remembers classes by their address, so those of a host that is gone must not make room for others
def build_qt() -> ModuleType:
    """The module `qt`: one flat namespace with the classes of the table."""
    module = ModuleType("qt")
    for name in table():
        package, _, short = name.partition(".")
        if package != "qt":
            continue
        found = _find(short)
        widgets_and_objects = inspect.isclass(found) and issubclass(found, (QtCore.QObject, QtWidgets.QLayout))
        setattr(module, short, stand_in(name, found, *_bases(found)) if widgets_and_objects else found)
    return module
