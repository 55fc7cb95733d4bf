"""Small pieces that every section of the panel is made of."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import ctk
import qt

__all__ = ["Section", "aside", "button", "explain", "formLayout", "icon", "row", "toolButton"]


class Section:
    """A heading of the panel with what belongs to it; `refresh` brings its controls up to date."""

    def __init__(self, title: str, name: str, layout: Any) -> None:
        self.frame = ctk.ctkCollapsibleButton()
        self.frame.text = title
        self.frame.objectName = name
        layout.addWidget(self.frame)

    def refresh(self) -> None:
        """Reads the logic anew."""
        raise NotImplementedError


def explain(widget: Any, tip: str, why: str | None) -> None:
    """Enables a control, or disables it and says why. `why` is None where it can be used."""
    widget.enabled = why is None
    widget.toolTip = tip if why is None else f"{tip}\n\n{why}"


def button(text: str, slot: Callable[[], object], name: str) -> Any:
    made = qt.QPushButton(text)
    made.objectName = name
    made.connect("clicked()", slot)
    return made


def toolButton(text: str, picture: str | None, slot: Callable[[], object], name: str, checkable: bool = False) -> Any:
    """A button with its icon above its text; `picture` is a key of `icon`."""
    made = qt.QToolButton()
    made.text = text
    made.objectName = name
    made.checkable = checkable
    made.setSizePolicy(qt.QSizePolicy(qt.QSizePolicy.Expanding, qt.QSizePolicy.Fixed))
    if picture is not None:
        made.setIcon(icon(picture, made))
        made.setIconSize(qt.QSize(24, 24))
        made.setToolButtonStyle(qt.Qt.ToolButtonTextUnderIcon)
    if checkable:  # a style's own sign of what is on can hardly be seen on dark
        made.setStyleSheet("QToolButton:checked { background-color: palette(highlight); color: palette(highlighted-text) }")
    made.connect("clicked()", slot)
    return made


def row(*widgets: Any) -> Any:
    """Widgets side by side, as one."""
    line = qt.QWidget()
    layout = qt.QHBoxLayout(line)
    layout.setContentsMargins(0, 0, 0, 0)
    for widget in widgets:
        layout.addWidget(widget)
    return line


def aside(text: str = "") -> Any:
    """A remark: grey, which reads on light and on dark."""
    label = qt.QLabel(text)
    label.wordWrap = True
    label.setStyleSheet("color: #808080")
    return label


def formLayout(parent: Any) -> Any:
    layout = qt.QFormLayout(parent)
    layout.setContentsMargins(8, 6, 8, 8)
    return layout


def icon(picture: str, widget: Any) -> Any:
    """A small line drawing in the text colour of the widget's theme, so that it reads on light and on dark."""
    pixmap = qt.QPixmap(48, 48)
    pixmap.fill(qt.QColor(0, 0, 0, 0))
    painter = qt.QPainter()
    painter.begin(pixmap)
    painter.setRenderHint(qt.QPainter.Antialiasing, True)
    pen = qt.QPen(widget.palette.color(qt.QPalette.ButtonText))
    pen.setWidth(3)
    painter.setPen(pen)
    _DRAWINGS[picture](painter)
    painter.end()
    return qt.QIcon(pixmap)


def _box(painter: Any) -> None:
    painter.drawRect(8, 12, 32, 24)
    for x, y in ((8, 12), (40, 36)):
        painter.fillRect(x - 4, y - 4, 8, 8, qt.QColor(255, 160, 30))


def _point(painter: Any) -> None:
    painter.drawEllipse(14, 14, 20, 20)
    painter.drawLine(24, 4, 24, 16)
    painter.drawLine(24, 32, 24, 44)
    painter.drawLine(4, 24, 16, 24)
    painter.drawLine(32, 24, 44, 24)


def _line(painter: Any) -> None:
    painter.drawLine(8, 38, 40, 10)
    painter.drawLine(3, 33, 13, 43)
    painter.drawLine(35, 5, 45, 15)


def _outline(painter: Any) -> None:
    painter.drawEllipse(6, 10, 36, 28)
    for x, y in ((6, 24), (24, 10), (42, 24), (24, 38)):
        painter.fillRect(x - 3, y - 3, 6, 6, qt.QColor(255, 160, 30))


def _scribble(painter: Any) -> None:
    stops = ((5, 34), (13, 14), (21, 34), (29, 14), (37, 34), (44, 18))
    for (x0, y0), (x1, y1) in pairwise(stops):
        painter.drawLine(x0, y0, x1, y1)


def _box3d(painter: Any) -> None:
    painter.drawRect(6, 18, 24, 24)
    painter.drawRect(18, 6, 24, 24)
    painter.drawLine(6, 18, 18, 6)
    painter.drawLine(30, 42, 42, 30)


def _paint(painter: Any) -> None:
    painter.drawLine(42, 6, 24, 24)
    painter.drawLine(24, 24, 30, 30)
    painter.drawLine(42, 6, 30, 30)
    painter.setBrush(qt.QBrush(qt.QColor(47, 191, 113)))
    painter.drawEllipse(6, 24, 20, 18)


_DRAWINGS = {
    "box": _box,
    "point": _point,
    "line": _line,
    "outline": _outline,
    "scribble": _scribble,
    "box3d": _box3d,
    "paint": _paint,
}
