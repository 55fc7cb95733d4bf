"""A strip for every object: where it exists, where a person spoke, what is locked, how sure the network is."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import qt
from slicer.i18n import tr as _

__all__ = ["WidgetTimeline", "confidenceColor"]

_NAME_WIDTH = 84  # pixels of the object's name, left of its strip
_STRIP_HEIGHT = 34
_GAP = 6
_FOOT, _REACH = 6, 16  # height of a bar: the least there is, and what confidence adds
_LEAST_CONFIDENT, _MOST_CONFIDENT = 0.4, 1.0  # ends of the colour scale; below, a mask is as good as a guess


def confidenceColor(confidence: float | None) -> tuple[int, int, int]:
    """Red over yellow to green for an expected IoU; grey where the network was not asked."""
    if confidence is None:
        return 150, 150, 150
    share = min(max((confidence - _LEAST_CONFIDENT) / (_MOST_CONFIDENT - _LEAST_CONFIDENT), 0.0), 1.0)
    stops = ((214, 69, 52), (242, 190, 70), (46, 160, 92))
    low, high, part = (stops[0], stops[1], 2 * share) if share < 0.5 else (stops[1], stops[2], 2 * share - 1)
    red, green, blue = (round(a + part * (b - a)) for a, b in zip(low, high, strict=True))
    return red, green, blue


class WidgetTimeline(qt.QWidget):
    """Painted from `setRows`; a click calls `onJump(name, sliceIndex)`."""

    def __init__(self, onJump: Callable[[str, int], object]) -> None:
        qt.QWidget.__init__(self)
        self._onJump = onJump
        self._rows: list[tuple[str, tuple[float, float, float], Sequence[Any], int | None]] = []
        self._current: str | None = None
        self.setMouseTracking(True)
        self.setFixedHeight(_STRIP_HEIGHT)

    def setRows(
        self, rows: Sequence[tuple[str, tuple[float, float, float], Sequence[Any], int | None]], current: str | None
    ) -> None:
        """(name, colour, marks, slice shown) of each object; `current` is drawn in bold."""
        rows = list(rows)
        if rows == self._rows and current == self._current:
            return
        self._rows, self._current = rows, current
        self.setFixedHeight(max(len(rows), 1) * (_STRIP_HEIGHT + _GAP))
        self.update()

    # ── painting ──

    def paintEvent(self, event: Any) -> None:
        painter = qt.QPainter(self)
        for index, (name, color, marks, shown) in enumerate(self._rows):
            self._paintRow(painter, index * (_STRIP_HEIGHT + _GAP), name, color, marks, shown)
        painter.end()

    def _paintRow(
        self, painter: Any, top: int, name: str, color: tuple[float, float, float], marks: Sequence[Any], shown: int | None
    ) -> None:
        text = self.palette.color(qt.QPalette.WindowText)
        painter.fillRect(0, top + 2, 5, _STRIP_HEIGHT - 4, qt.QColor.fromRgbF(*color))
        font = qt.QFont(self.font)
        font.setBold(name == self._current)
        painter.setFont(font)
        painter.setPen(qt.QPen(text))
        label = name if len(name) <= 11 else name[:10] + "…"
        painter.drawText(10, top + _STRIP_HEIGHT // 2 + 5, label)

        left, width = _NAME_WIDTH, self.width - _NAME_WIDTH - 2
        painter.fillRect(left, top, width, _STRIP_HEIGHT, self.palette.color(qt.QPalette.Base))
        if not marks:
            painter.drawText(left + 6, top + _STRIP_HEIGHT // 2 + 5, _("no prompt yet"))
            return
        count = len(marks)
        for mark in marks:
            x = left + mark.index * width // count
            cell = max(left + (mark.index + 1) * width // count - x, 1)
            self._paintCell(painter, x, top, cell, mark)
        self._paintAgreement(painter, top, left, width, marks, text)
        if shown is not None:
            x = left + (2 * shown + 1) * width // (2 * count)
            painter.fillRect(x - 1, top, 2, _STRIP_HEIGHT, text)

    @staticmethod
    def _paintCell(painter: Any, x: int, top: int, cell: int, mark: Any) -> None:
        """Height and colour of the bar tell the confidence, so that it also reads without colours."""
        ground = top + _STRIP_HEIGHT - 6
        if mark.present:
            height = _FOOT + round(_REACH * min(max(mark.confidence if mark.confidence is not None else 1.0, 0.0), 1.0))
            painter.fillRect(
                x, ground - height, max(cell - (cell > 3), 1), height, qt.QColor(*confidenceColor(mark.confidence))
            )
        if mark.locked:
            painter.fillRect(x, ground + 1, cell, 4, qt.QColor(70, 120, 200))
        if mark.prompted:
            painter.fillRect(x + cell // 2 - 3, top, 6, 5, qt.QColor(240, 140, 20))
            painter.fillRect(x + cell // 2 - 1, top + 5, 2, 3, qt.QColor(240, 140, 20))

    @staticmethod
    def _paintAgreement(painter: Any, top: int, left: int, width: int, marks: Sequence[Any], color: Any) -> None:
        """A line over the bars, at a bar's full height where all directions have the same mask."""
        ground, last = top + _STRIP_HEIGHT - 6, None
        for mark in marks:
            if mark.agreement is None:
                last = None
                continue
            x, next_ = (left + index * width // len(marks) for index in (mark.index, mark.index + 1))
            y = ground - round((_FOOT + _REACH) * mark.agreement)
            painter.fillRect(x, y - 1, max(next_ - x, 1), 2, color)
            if last is not None:
                painter.fillRect(x, min(y, last), 1, abs(y - last), color)
            last = y

    # ── the mouse ──

    def mousePressEvent(self, event: Any) -> None:
        found = self._under(event.pos())
        if found is not None:
            self._onJump(found[0], found[1].index)

    def mouseMoveEvent(self, event: Any) -> None:
        found = self._under(event.pos())
        self.toolTip = "" if found is None else _describe(found[0], found[1])

    def _under(self, position: Any) -> tuple[str, Any] | None:
        index = position.y() // (_STRIP_HEIGHT + _GAP)
        if not 0 <= index < len(self._rows) or position.x() < _NAME_WIDTH:
            return None
        name, _color, marks, _shown = self._rows[index]
        width = self.width - _NAME_WIDTH - 2
        place = (position.x() - _NAME_WIDTH) * len(marks) // width
        return (name, marks[place]) if 0 <= place < len(marks) else None


def _describe(name: str, mark: Any) -> str:
    parts = [_("{name}, slice {slice}").format(name=name, slice=mark.index)]
    if not mark.present:
        parts.append(_("not there"))
    elif mark.confidence is not None:
        parts.append(_("confidence {percent:.0f} %").format(percent=100 * mark.confidence))
    if mark.agreement is not None:
        parts.append(_("agreement {percent:.0f} %").format(percent=100 * mark.agreement))
    if mark.prompted:
        parts.append(_("prompt"))
    if mark.locked:
        parts.append(_("locked"))
    return " · ".join(parts)
