"""Slicer's own widgets that the panel uses, over a real MRML scene."""

from __future__ import annotations

from typing import Any

import slicer
from PySide6 import QtCore, QtGui, QtWidgets


class qMRMLWidget(QtWidgets.QWidget):  # noqa: N801
    """A widget that knows its scene."""

    def __init__(self, parent: QtWidgets.QWidget | None = None) -> None:
        super().__init__(parent)
        self._scene: Any = None

    def setMRMLScene(self, scene: Any) -> None:  # noqa: N802
        self._scene = scene


class qMRMLNodeComboBox(QtWidgets.QComboBox):  # noqa: N801
    """The nodes of some classes; follows the scene as nodes come, go and are renamed."""

    currentNodeChanged = QtCore.Signal(object)  # noqa: N815
    nodeActivated = QtCore.Signal(object)  # noqa: N815  # only when a person chooses

    def __init__(self, parent: QtWidgets.QWidget | None = None) -> None:
        super().__init__(parent)
        self._scene: Any = None
        self._types: list[str] = []
        self._none, self._none_display = False, "None"
        self._ids: list[str | None] = []
        self._told: Any = None
        self._flags: dict[str, bool] = {}
        signal = QtWidgets.QWidget.__getattribute__(self, "currentIndexChanged")
        signal.connect(lambda _index: self._tell())
        activated = QtWidgets.QWidget.__getattribute__(self, "activated")
        activated.connect(lambda _index: QtWidgets.QWidget.__getattribute__(self, "nodeActivated").emit(self.currentNode()))

    def setMRMLScene(self, scene: Any) -> None:  # noqa: N802
        self._scene = scene
        for event in (scene.NodeAddedEvent, scene.NodeRemovedEvent, scene.EndCloseEvent, scene.EndImportEvent):
            scene.AddObserver(event, lambda *_: self._fill())
        self._fill()

    def currentNode(self) -> Any:  # noqa: N802
        index = QtWidgets.QComboBox.currentIndex(self)
        node_id = self._ids[index] if 0 <= index < len(self._ids) else None
        return self._scene.GetNodeByID(node_id) if self._scene is not None and node_id else None

    def setCurrentNode(self, node: Any) -> None:  # noqa: N802
        node_id = node.GetID() if node is not None else None
        QtWidgets.QComboBox.setCurrentIndex(self, self._ids.index(node_id) if node_id in self._ids else -1)
        self._tell()

    def _fill(self) -> None:
        current = self.currentNode()
        nodes = [
            self._scene.GetNthNode(index)
            for index in range(self._scene.GetNumberOfNodes())
            if self._scene.GetNthNode(index).GetClassName() in self._types
        ]
        nodes = [node for node in nodes if not node.GetHideFromEditors()]
        QtCore.QObject.blockSignals(self, True)
        QtWidgets.QComboBox.clear(self)
        self._ids = ([None] if self._none else []) + [node.GetID() for node in nodes]
        if self._none:
            QtWidgets.QComboBox.addItem(self, self._none_display)
        for node in nodes:
            QtWidgets.QComboBox.addItem(self, node.GetName())
        if current is not None and current.GetID() in self._ids:
            QtWidgets.QComboBox.setCurrentIndex(self, self._ids.index(current.GetID()))
        elif not self._none and nodes:  # as Slicer's: where none is not a choice, the first is chosen
            QtWidgets.QComboBox.setCurrentIndex(self, 0)
        QtCore.QObject.blockSignals(self, False)
        self._tell()

    def _tell(self) -> None:
        node = self.currentNode()
        if node is not self._told:
            self._told = node
            QtWidgets.QWidget.__getattribute__(self, "currentNodeChanged").emit(node)

    def _flag(name: str) -> Any:  # type: ignore[misc]  # noqa: N805
        return QtCore.Property(
            bool, lambda self: self._flags.get(name, False), lambda self, value: self._flags.__setitem__(name, value)
        )

    def _set_none(self, value: bool) -> None:
        self._none = value
        if self._scene is not None:
            self._fill()

    def _set_none_display(self, value: str) -> None:
        self._none_display = value
        if self._scene is not None:
            self._fill()

    nodeTypes = QtCore.Property(list, lambda self: self._types, lambda self, value: setattr(self, "_types", list(value)))  # noqa: N815
    noneEnabled = QtCore.Property(bool, lambda self: self._none, _set_none)  # noqa: N815
    addEnabled, removeEnabled = _flag("add"), _flag("remove")  # noqa: N815
    renameEnabled, editEnabled = _flag("rename"), _flag("edit")  # noqa: N815
    selectNodeUponCreation = _flag("select")  # noqa: N815
    showHidden, showChildNodeTypes = _flag("hidden"), _flag("children")  # noqa: N815
    noneDisplay = QtCore.Property(str, lambda self: self._none_display, _set_none_display)  # noqa: N815


class TerminologiesLogic:
    """What the lists of terms know besides the codes; Slicer reads it from files of the application."""

    def UpdateEntryFromLoadedTerminologies(self, entry: Any, _lists: list[str], _contexts: list[str]) -> bool:  # noqa: N802
        found = entry.GetTypeObject()
        names = qSlicerTerminologyNavigatorWidget.TERMS
        found.SetHasModifiers(any(name.startswith(f"{found.GetCodeMeaning()}, ") for name in names))
        return True


class qSlicerTerminologyNavigatorWidget(qMRMLWidget):  # noqa: N801
    """Terms to choose from: three, in place of Slicer's lists, which are files of the application."""

    selectionValidityChanged = QtCore.Signal(bool)  # noqa: N815
    typeDoubleClicked = QtCore.Signal()  # noqa: N815
    _CONTEXT = "Segmentation category and type - 3D Slicer General Anatomy list~SCT^123037004^Anatomical Structure"
    TERMS = {  # noqa: RUF012
        "Tissue": ("SCT^85756007^Tissue~^^", (128, 174, 128)),
        "Kidney, Right": ("SCT^64033007^Kidney~SCT^24028007^Right", (185, 102, 83)),
        "Liver": ("SCT^10200004^Liver~^^", (221, 130, 101)),
    }

    def __init__(self, parent: QtWidgets.QWidget | None = None) -> None:
        super().__init__(parent)
        self._overrides = True
        self.types = QtWidgets.QListWidget()
        self.types.currentRowChanged.connect(lambda row: self._signal("selectionValidityChanged").emit(row >= 0))
        self.types.itemDoubleClicked.connect(lambda _item: self._signal("typeDoubleClicked").emit())
        QtWidgets.QVBoxLayout(self).addWidget(self.types)

    def _signal(self, name: str) -> Any:
        return QtWidgets.QWidget.__getattribute__(self, name)

    def terminologyEntry(self, entry: Any) -> bool:  # noqa: N802
        item = self.types.currentItem()
        if item is None:
            return False
        codes, color = self.TERMS[item.text()]
        text = f"{self._CONTEXT}~{codes}~Anatomic codes - DICOM master list~^^~^^"
        slicer.vtkSlicerTerminologiesModuleLogic.DeserializeTerminologyEntry(text, entry)
        entry.GetTypeObject().SetRecommendedDisplayRGBValue(color)
        return True

    def setTerminologyEntry(self, entry: Any) -> bool:  # noqa: N802
        """Fills the list, which is empty before; a modifier counts only where the type is known to have some."""
        if self.types.count() == 0:
            self.types.addItems(list(self.TERMS))
        name = self.nameFromTerminology(entry)
        if not entry.GetTypeObject().GetHasModifiers():
            name = name.split(", ")[0]
        found = self.types.findItems(name, QtCore.Qt.MatchFlag.MatchExactly)
        self.types.setCurrentItem(found[0] if found else None)
        return bool(found)

    def nameFromTerminology(self, entry: Any) -> str:  # noqa: N802
        codes = (entry.GetTypeObject(), entry.GetTypeModifierObject())
        return ", ".join(code.GetCodeMeaning() for code in codes if code is not None and code.GetCodeMeaning())

    def recommendedColorFromTerminology(self, entry: Any) -> QtGui.QColor:  # noqa: N802
        return QtGui.QColor(*entry.GetTypeObject().GetRecommendedDisplayRGBValue())

    overrideSectionVisible = QtCore.Property(  # noqa: N815
        bool, lambda self: self._overrides, lambda self, value: setattr(self, "_overrides", value)
    )
