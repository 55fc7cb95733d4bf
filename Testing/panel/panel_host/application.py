"""The application around the panel: a real MRML scene and logics, three slice views, a main window or none."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import slicer
import vtk
from PySide6 import QtCore, QtGui, QtWidgets
from PySide6.QtTest import QTest

from panel_host import pythonqt
from panel_host.ctk_widgets import build_ctk
from panel_host.modules import build_i18n, build_sample_data, build_scripted_loadable_module
from panel_host.pythonqt import build_qt, stand_in
from panel_host.slice_view import SliceView
from panel_host.slicer_widgets import (
    TerminologiesLogic,
    qMRMLNodeComboBox,
    qMRMLWidget,
    qSlicerTerminologyNavigatorWidget,
)

_VIEWS = {"Red": "Axial", "Yellow": "Sagittal", "Green": "Coronal"}


class _ModuleParent(qMRMLWidget):
    """qSlicerScriptedLoadableModuleWidget: the widget that the panel is laid out in."""

    def __init__(self) -> None:
        super().__init__()
        self.entered = False


class _Application(QtCore.QObject):
    """`slicer.app`."""

    startupCompleted = QtCore.Signal()  # noqa: N815

    def __init__(self, host: Host) -> None:
        super().__init__()
        self._host = host
        self.applicationName, self.applicationVersion = "Slicer", "5.10.0"
        self.temporaryPath = str(host.folder / "temporary")
        self.restarts = 0

    connect = pythonqt.connect

    def applicationLogic(self) -> Any:  # noqa: N802
        return self._host.application_logic

    def layoutManager(self) -> Any:  # noqa: N802
        return self._host.layout_manager if self._host.window is not None else None

    def userSettings(self) -> Any:  # noqa: N802
        return self._host.settings

    def palette(self) -> Any:
        return QtWidgets.QApplication.palette()

    def testingEnabled(self) -> bool:  # noqa: N802
        return True

    def extensionsManagerModel(self) -> Any:  # noqa: N802
        return self._host.extensions

    def restart(self) -> None:
        self.restarts += 1

    def processEvents(self) -> None:  # noqa: N802
        raise AssertionError("The panel must never run the event loop itself")

    def pauseRender(self) -> None: ...  # noqa: N802

    def resumeRender(self) -> None: ...  # noqa: N802

    def setOverrideCursor(self, cursor: Any) -> None: ...  # noqa: N802

    def restoreOverrideCursor(self) -> None: ...  # noqa: N802


class Host:
    """What a test sees: the scene, the views, the module's widget, and hands to click with.

    with Host(folder) as host:
        panel = host.open().panel
        host.click(panel.prompt.tools["box"])
    """

    script = Path(__file__).parents[3] / "MedSAM2Slicer" / "MedSAM2Slicer.py"

    def __init__(self, folder: Path, main_window: bool = True, translate: Callable[[str], str] = str) -> None:
        self.qt_application = QtWidgets.QApplication.instance() or QtWidgets.QApplication(["MedSAM2 test host"])
        self.folder, self._wants_window, self._translate = folder, main_window, translate
        self.window: QtWidgets.QMainWindow | None = None
        self.selected_modules: list[str] = []
        self.extensions = SimpleNamespace(
            installed=[],
            isExtensionInstalled=lambda name: name in self.extensions.installed,
            installExtensionFromServer=lambda name, *_: bool(self.extensions.installed.append(name)) or True,
        )
        self.segment_editor = SimpleNamespace(
            setSegmentationNode=lambda node: setattr(self.segment_editor, "segmentation", node),
            setSourceVolumeNode=lambda node: setattr(self.segment_editor, "volume", node),
        )
        self._saved: list[tuple[Any, str, Any]] = []
        self._saved_modules: dict[str, ModuleType | None] = {}

    # ── in and out ──

    def __enter__(self) -> Host:
        pythonqt.raised.clear()
        self._ours = {name: module for name, module in sys.modules.items() if name.split(".")[0] in _OUR_PACKAGES}
        self._build_scene()
        self.qt, ctk = build_qt(), build_ctk()
        settings_file = str(self.folder / "Slicer.ini")
        self.settings = self.qt.QSettings(settings_file, QtCore.QSettings.Format.IniFormat)
        self.app = _Application(self)
        self._install("qt", self.qt)
        self._install("ctk", ctk)
        self._install("SampleData", build_sample_data())
        self._install("slicer.i18n", build_i18n(self._translate))
        self._install("slicer.ScriptedLoadableModule", build_scripted_loadable_module(self._new_parent))
        for name, value in {
            "i18n": sys.modules["slicer.i18n"],
            "ScriptedLoadableModule": sys.modules["slicer.ScriptedLoadableModule"],
            "app": self.app,
            "mrmlScene": self.scene,
            "modules": self.modules,
            "selfTests": {},
            "qMRMLWidget": stand_in("slicer.qMRMLWidget", qMRMLWidget, "qt.QObject", "qt.QWidget"),
            "qSlicerTerminologyNavigatorWidget": stand_in(
                "slicer.qSlicerTerminologyNavigatorWidget", qSlicerTerminologyNavigatorWidget, "qt.QObject", "qt.QWidget"
            ),
            "qMRMLNodeComboBox": stand_in("slicer.qMRMLNodeComboBox", qMRMLNodeComboBox, "qt.QObject", "qt.QWidget"),
        }.items():
            self._patch(slicer, name, value)
        self._patch(slicer.util, "mainWindow", lambda: self.window)
        self._patch(slicer.util, "selectModule", self.selected_modules.append)
        self._patch(slicer.util, "getModuleWidget", self._module_widget)
        if self._wants_window:
            self._build_window()
        return self

    def __exit__(self, *_: object) -> None:
        if hasattr(self, "panel"):
            self.leave()
            self.panel.cleanup()
            self.panel.parent.deleteLater()  # as Slicer does; timers that come later find the controls gone
        if self.window is not None:
            self.window.close()
            self.window.deleteLater()
        self.qt_application.sendPostedEvents(None, QtCore.QEvent.Type.DeferredDelete)
        self.qt_application.processEvents()
        for owner, name, value in reversed(self._saved):
            if value is _MISSING:
                delattr(owner, name)
            else:
                setattr(owner, name, value)
        for name, module in self._saved_modules.items():
            if module is None:
                sys.modules.pop(name, None)
            else:
                sys.modules[name] = module
        for name in [each for each in sys.modules if each.split(".")[0] in ("MedSAM2Slicer", "MedSAM2SlicerLib")]:
            # They hold the `slicer` of this host. Their widget classes must not be freed: see build_qt.
            _ENDED.append(sys.modules.pop(name))
        sys.modules.update(self._ours)  # or tests that imported them before would meet others' classes

    def _patch(self, owner: Any, name: str, value: Any) -> None:
        self._saved.append((owner, name, getattr(owner, name, _MISSING)))
        setattr(owner, name, value)

    def _install(self, name: str, module: ModuleType) -> None:
        self._saved_modules[name] = sys.modules.get(name)
        sys.modules[name] = module

    # ── the scene ──

    def _build_scene(self) -> None:
        self.scene = slicer.vtkMRMLScene()
        self.application_logic = slicer.vtkSlicerApplicationLogic()
        self.application_logic.SetMRMLScene(self.scene)
        self.modules = SimpleNamespace()
        for module, logic_class in {
            "volumes": "vtkSlicerVolumesLogic",
            "segmentations": "vtkSlicerSegmentationsModuleLogic",
            "markups": "vtkSlicerMarkupsLogic",
        }.items():
            logic = getattr(slicer, logic_class)()
            logic.SetMRMLApplicationLogic(self.application_logic)
            logic.SetMRMLScene(self.scene)
            setattr(self.modules, module, SimpleNamespace(logic=lambda logic=logic: logic))
        self.modules.terminologies = SimpleNamespace(logic=TerminologiesLogic)
        crosshair = slicer.vtkMRMLCrosshairNode()
        crosshair.SetCrosshairName("default")
        crosshair.SetSingletonTag("default")
        self.scene.AddNode(crosshair)
        self._crosshair = crosshair
        self.slice_nodes: dict[str, Any] = {}
        slicer.vtkMRMLSliceNode.AddDefaultSliceOrientationPresets(self.scene)
        for name, orientation in _VIEWS.items():
            node = self.scene.CreateNodeByClass("vtkMRMLSliceNode")
            node.UnRegister(None)
            node.SetName(name)
            node.SetLayoutName(name)
            node.SetSingletonTag(name)
            self.scene.AddNode(node)
            node.SetOrientation(orientation)
            self.slice_nodes[name] = node

    def nodes(self, *classes: str) -> list[Any]:
        """Of the scene, of these classes and of no subclass that is not named."""
        every = (self.scene.GetNthNode(index) for index in range(self.scene.GetNumberOfNodes()))
        return [node for node in every if node.GetClassName() in classes]

    def interaction_node(self) -> Any:
        return self.application_logic.GetInteractionNode()

    def selection_node(self) -> Any:
        return self.application_logic.GetSelectionNode()

    def crosshair_node(self) -> Any:
        return self._crosshair

    def background_volume(self) -> Any:
        return self.scene.GetNodeByID(self.selection_node().GetActiveVolumeID() or "")

    def slice_spacing(self, slice_node: Any) -> float:
        volume = self.background_volume()
        if volume is None:
            return 1.0
        normal = [slice_node.GetSliceToRAS().GetElement(row, 2) for row in range(3)]
        to_ras = vtk.vtkMatrix4x4()
        volume.GetIJKToRASMatrix(to_ras)
        lengths = [sum(to_ras.GetElement(row, axis) * normal[row] for row in range(3)) for axis in range(3)]
        return max(abs(length) for length in lengths)

    def show(self, volume: Any) -> None:
        """Puts a volume into the views, as loading it does."""
        self.selection_node().SetActiveVolumeID(volume.GetID())
        if self.window is not None:
            self.settle()
            for view in self.views.values():
                view.fit(volume)

    def _module_widget(self, name: str) -> Any:
        """The panel's own, or a Segment Editor that remembers what it was given."""
        return self.panel if name == "MedSAM2Slicer" else SimpleNamespace(editor=self.segment_editor)

    # ── the windows ──

    def _new_parent(self) -> Any:
        parent = stand_in("slicer.qMRMLWidget", _ModuleParent, "qt.QObject", "qt.QWidget")()
        parent.setLayout(self.qt.QVBoxLayout())
        parent.setMRMLScene(self.scene)
        return parent

    def _build_window(self) -> None:
        self.window = QtWidgets.QMainWindow()
        self.window.resize(1360, 1080)
        self.views = {name: SliceView(self, node) for name, node in self.slice_nodes.items()}
        views = QtWidgets.QWidget()
        grid = QtWidgets.QGridLayout(views)
        grid.setContentsMargins(2, 2, 2, 2)
        grid.setSpacing(3)
        grid.addWidget(self.views["Red"], 0, 0, 1, 2)
        grid.addWidget(self.views["Green"], 1, 0)
        grid.addWidget(self.views["Yellow"], 1, 1)
        grid.setRowStretch(0, 3)
        grid.setRowStretch(1, 2)
        self._panel_area = QtWidgets.QScrollArea()
        self._panel_area.setWidgetResizable(True)
        self._panel_area.setHorizontalScrollBarPolicy(QtCore.Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        splitter = QtWidgets.QSplitter()
        splitter.addWidget(self._panel_area)
        splitter.addWidget(views)
        splitter.setSizes([480, 880])
        self.window.setCentralWidget(splitter)
        self.layout_manager = SimpleNamespace(
            sliceViewNames=lambda: tuple(self.views),
            sliceWidget=lambda name: SimpleNamespace(mrmlSliceNode=lambda: self.slice_nodes[name]),
        )
        self.window.show()

    def open(self) -> Any:
        """Loads the module script, makes its panel and enters it; returns the module's widget object."""
        script = self.script
        sys.path[:0] = [path for path in (str(script.parent),) if path not in sys.path]
        module = importlib.import_module(script.stem)
        self.module_parent = SimpleNamespace(path=str(script), title="", icon=None)
        self.module = getattr(module, script.stem)(self.module_parent)
        parent = self._new_parent()
        setattr(self.modules, script.stem.lower(), SimpleNamespace(path=str(script)))
        self.panel = getattr(module, f"{script.stem}Widget")(parent)
        self.panel.setup()
        if self.window is not None:
            self._panel_area.setWidget(parent)
        else:
            QtWidgets.QWidget.show(parent)
        self.enter()
        return self.panel

    def enter(self) -> None:
        self.panel.parent.entered = True
        self.panel.enter()

    def leave(self) -> None:
        if self.panel.parent.entered:
            self.panel.parent.entered = False
            self.panel.exit()

    # ── hands and eyes ──

    right, unchecked = QtCore.Qt.MouseButton.RightButton, QtCore.Qt.CheckState.Unchecked
    blue = QtGui.QColor(10, 20, 250)

    def place_in_strip(self, timeline: Any, row: int, slice_index: int, count: int) -> tuple[float, float]:
        """The pixel of a slice in an object's strip; as WidgetTimeline lays it out."""
        width = QtWidgets.QWidget.width(timeline) - 86
        return 84 + width * (slice_index + 0.5) / count, 40 * row + 17

    def settle(self, milliseconds: int = 0) -> None:
        """Lets the event loop run for so long."""
        timer = QtCore.QElapsedTimer()
        timer.start()
        self.qt_application.processEvents()
        while timer.elapsed() < milliseconds:
            self.qt_application.processEvents(QtCore.QEventLoop.ProcessEventsFlag.AllEvents, 10)

    def wait_until(self, condition: Callable[[], object], seconds: float = 60) -> None:
        timer = QtCore.QElapsedTimer()
        timer.start()
        while not condition():
            assert timer.elapsed() < 1000 * seconds, "waited too long"
            self.settle(10)

    def click(self, widget: Any) -> None:
        """A press of the left button in the middle of a widget, which must be enabled."""
        self.settle(20)  # the layout of what has just appeared
        assert QtWidgets.QWidget.isEnabled(widget), QtWidgets.QWidget.toolTip(widget)
        self._mouse(widget, QtCore.QPointF(QtWidgets.QWidget.rect(widget).center()))

    def choose(self, box: Any, text: str) -> None:
        """Opens a box of choices, goes to one, and takes it with the Return key."""
        self.settle(20)
        assert QtWidgets.QWidget.isEnabled(box), QtWidgets.QWidget.toolTip(box)
        row = QtWidgets.QComboBox.findText(box, text)
        assert row >= 0, text
        QtWidgets.QComboBox.showPopup(box)
        choices = QtWidgets.QComboBox.view(box)
        choices.setCurrentIndex(choices.model().index(row, 0))
        QTest.keyClick(choices, QtCore.Qt.Key.Key_Return)
        QtWidgets.QWidget.activateWindow(QtWidgets.QWidget.window(box))  # off screen, a popup keeps the keys when it is gone
        self.settle(20)

    def click_at(self, widget: Any, x: float, y: float, button: Any = QtCore.Qt.MouseButton.LeftButton) -> None:
        """A click at a pixel of a widget."""
        self._mouse(widget, QtCore.QPointF(x, y), button)

    def click_on(self, view: str, ras: Any, button: Any = QtCore.Qt.MouseButton.LeftButton) -> None:
        """A click in a slice view, where a RAS point is shown."""
        pixel = self.views[view].pixel(ras)
        self._mouse(self.views[view], QtCore.QPointF(pixel), button)

    def _mouse(self, widget: Any, position: QtCore.QPointF, button: Any = QtCore.Qt.MouseButton.LeftButton) -> None:
        kinds = QtCore.QEvent.Type
        none = QtCore.Qt.MouseButton.NoButton
        for kind, pressed in ((kinds.MouseMove, none), (kinds.MouseButtonPress, button), (kinds.MouseButtonRelease, button)):
            held = button if kind == kinds.MouseButtonPress else none
            place = QtWidgets.QWidget.mapToGlobal(widget, position)
            event = QtGui.QMouseEvent(kind, position, place, pressed, held, QtCore.Qt.KeyboardModifier.NoModifier)
            self.qt_application.sendEvent(widget, event)
        self.settle()

    def press(self, keys: str) -> None:
        """Presses keys in the main window, as in press("Ctrl+Z")."""
        assert self.window is not None
        self.window.activateWindow()
        QTest.keySequence(self.window, QtGui.QKeySequence(keys))
        self.settle()

    def screenshot(self, path: Path) -> Path:
        assert self.window is not None
        for view in self.views.values():
            view.update()
        self.settle(30)
        self.window.grab().save(str(path))
        return path

    def screenshot_of(self, widget: Any, path: Path) -> Path:
        """Of the window that a widget is in."""
        self.settle(30)
        QtWidgets.QWidget.grab(QtWidgets.QWidget.window(widget)).save(str(path))
        return path


_MISSING = object()
_ENDED: list[ModuleType] = []
_OUR_PACKAGES = ("MedSAM2Lib", "MedSAM2Slicer", "MedSAM2SlicerLib")
