"""CTK's widgets that the panel uses, made of plain Qt ones, under CTK's names."""

from __future__ import annotations

from functools import cache
from types import ModuleType

from PySide6 import QtCore, QtGui, QtWidgets

from panel_host.pythonqt import rows_of, stand_in
from panel_host.table import table


class ctkCollapsibleButton(QtWidgets.QAbstractButton):  # noqa: N801
    """A heading that shows and hides what is laid out in it."""

    contentsCollapsed = QtCore.Signal(bool)  # noqa: N815
    _HEADER = 26

    def __init__(self, *arguments: object) -> None:
        text = arguments[0] if arguments and isinstance(arguments[0], str) else ""
        parent = next((each for each in arguments if isinstance(each, QtWidgets.QWidget)), None)
        super().__init__(parent)
        self._is_collapsed = False
        QtWidgets.QAbstractButton.setText(self, text)
        QtWidgets.QWidget.setContentsMargins(self, 0, self._HEADER, 0, 0)
        policy = QtWidgets.QSizePolicy(QtWidgets.QSizePolicy.Policy.Preferred, QtWidgets.QSizePolicy.Policy.Maximum)
        QtWidgets.QWidget.setSizePolicy(self, policy)
        QtWidgets.QAbstractButton.__getattribute__(self, "clicked").connect(lambda: self._set_collapsed(not self._is_collapsed))

    def _get_collapsed(self) -> bool:
        return self._is_collapsed

    def _set_collapsed(self, value: bool) -> None:
        if value == self._is_collapsed:
            return
        self._is_collapsed = value
        for child in QtCore.QObject.children(self):
            if isinstance(child, QtWidgets.QWidget):
                QtWidgets.QWidget.setVisible(child, not value)
        QtWidgets.QWidget.setMaximumHeight(self, self._HEADER if value else 16777215)
        QtWidgets.QWidget.updateGeometry(self)
        QtWidgets.QAbstractButton.__getattribute__(self, "contentsCollapsed").emit(value)

    collapsed = QtCore.Property(bool, _get_collapsed, _set_collapsed, notify=contentsCollapsed)

    def hitButton(self, position: QtCore.QPoint) -> bool:  # noqa: N802
        return position.y() < self._HEADER

    def sizeHint(self) -> QtCore.QSize:  # noqa: N802
        layout = QtWidgets.QWidget.layout(self)
        hint = layout.totalSizeHint() if layout is not None else QtCore.QSize(100, self._HEADER)
        return QtCore.QSize(hint.width(), self._HEADER if self._is_collapsed else hint.height())

    def minimumSizeHint(self) -> QtCore.QSize:  # noqa: N802
        layout = QtWidgets.QWidget.layout(self)
        if layout is None or self._is_collapsed:
            return QtCore.QSize(80, self._HEADER)
        return layout.totalMinimumSize()

    def paintEvent(self, event: QtGui.QPaintEvent) -> None:  # noqa: N802
        painter = QtGui.QPainter(self)
        palette = QtWidgets.QWidget.palette(self)
        header = QtCore.QRect(0, 1, QtWidgets.QWidget.width(self), self._HEADER - 3)
        painter.fillRect(header, palette.color(QtGui.QPalette.ColorRole.Button))
        painter.setPen(palette.color(QtGui.QPalette.ColorRole.ButtonText))
        font = QtGui.QFont(QtWidgets.QWidget.font(self))
        font.setBold(True)
        painter.setFont(font)
        mark = "▸" if self._is_collapsed else "▾"
        text = f"{mark}  {QtWidgets.QAbstractButton.text(self)}"
        painter.drawText(header.adjusted(8, 0, 0, 0), QtCore.Qt.AlignmentFlag.AlignVCenter, text)
        painter.end()


class ctkPathLineEdit(QtWidgets.QWidget):  # noqa: N801
    """A path, and a button to choose it."""

    Files, Writable, Dirs, Executable, Readable = 0x002, 0x020, 0x001, 0x040, 0x010
    currentPathChanged = QtCore.Signal(str)  # noqa: N815

    def __init__(self, parent: QtWidgets.QWidget | None = None) -> None:
        super().__init__(parent)
        self._line = QtWidgets.QLineEdit()
        button = QtWidgets.QToolButton()
        button.setText("…")
        layout = QtWidgets.QHBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(self._line)
        layout.addWidget(button)
        self._filters, self._name_filters = 0, []
        self._line.textChanged.connect(QtWidgets.QWidget.__getattribute__(self, "currentPathChanged").emit)

    currentPath = QtCore.Property(str, lambda self: self._line.text(), lambda self, path: self._line.setText(path))  # noqa: N815
    filters = QtCore.Property(int, lambda self: self._filters, lambda self, value: setattr(self, "_filters", value))
    nameFilters = QtCore.Property(  # noqa: N815
        list, lambda self: self._name_filters, lambda self, value: setattr(self, "_name_filters", list(value))
    )


class ctkColorPickerButton(QtWidgets.QPushButton):  # noqa: N801
    """A button in a colour; a press asks for another one."""

    colorChanged = QtCore.Signal(QtGui.QColor)  # noqa: N815

    def __init__(self, parent: QtWidgets.QWidget | None = None) -> None:
        super().__init__(parent)
        self._color, self._name_shown = QtGui.QColor("black"), True

    def _set_color(self, color: QtGui.QColor) -> None:
        if color != self._color:
            self._color = QtGui.QColor(color)
            pixmap = QtGui.QPixmap(18, 14)
            pixmap.fill(self._color)
            QtWidgets.QPushButton.setIcon(self, QtGui.QIcon(pixmap))
            QtWidgets.QWidget.__getattribute__(self, "colorChanged").emit(self._color)

    color = QtCore.Property(QtGui.QColor, lambda self: self._color, _set_color, notify=colorChanged)
    displayColorName = QtCore.Property(  # noqa: N815
        bool, lambda self: self._name_shown, lambda self, value: setattr(self, "_name_shown", value)
    )


@cache
def build_ctk() -> ModuleType:
    """The module `ctk`."""
    module = ModuleType("ctk")
    for kind in (ctkCollapsibleButton, ctkPathLineEdit, ctkColorPickerButton):
        name = f"ctk.{kind.__name__}"
        if name in table():
            setattr(module, kind.__name__, stand_in(name, kind, *rows_of(kind)))
    return module
