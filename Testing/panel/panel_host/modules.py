"""`slicer.i18n`, `slicer.ScriptedLoadableModule` and `SampleData`, as far as a module sees of them."""

from __future__ import annotations

import unittest
from collections.abc import Callable
from types import ModuleType
from typing import Any

import slicer


def build_i18n(tr: Callable[[str], str]) -> ModuleType:
    """Base/Python/slicer/i18n.py: `tr(text)` and `translate(context, text)`."""
    module = ModuleType("slicer.i18n")
    module.tr = tr  # type: ignore[attr-defined]
    module.translate = lambda context, text: tr(text)  # type: ignore[attr-defined]
    return module


def build_scripted_loadable_module(new_parent: Any) -> ModuleType:
    """Base/Python/slicer/ScriptedLoadableModule.py. `new_parent()` makes the widget that a module's panel is laid out in."""

    class ScriptedLoadableModule:
        def __init__(self, parent: Any) -> None:
            self.parent = parent
            self.moduleName = type(self).__name__

    class ScriptedLoadableModuleWidget:
        def __init__(self, parent: Any = None) -> None:
            super().__init__()
            self.moduleName = type(self).__name__.removesuffix("Widget")
            self.developerMode = False
            self.parent = parent or new_parent()
            self.layout = self.parent.layout()

        def setup(self) -> None: ...

        def cleanup(self) -> None: ...

        def enter(self) -> None: ...

        def exit(self) -> None: ...

        def onReload(self) -> None: ...  # noqa: N802

    class ScriptedLoadableModuleLogic:
        def __init__(self, parent: Any = None) -> None:
            super().__init__()
            self.moduleName = type(self).__name__.removesuffix("Logic")
            self.isSingletonParameterNode = True

        def getParameterNode(self) -> Any:  # noqa: N802
            node = slicer.mrmlScene.GetSingletonNode(self.moduleName, "vtkMRMLScriptedModuleNode")
            if node is None:
                node = slicer.mrmlScene.CreateNodeByClass("vtkMRMLScriptedModuleNode")
                node.UnRegister(None)
                node.SetSingletonTag(self.moduleName)
                node.SetAttribute("ModuleName", self.moduleName)
                node.SetName(slicer.mrmlScene.GenerateUniqueName(self.moduleName))
                node = slicer.mrmlScene.AddNode(node)
            return node

    class ScriptedLoadableModuleTest(unittest.TestCase):
        messageDelay = 0  # noqa: N815

        def delayDisplay(self, message: str, requestedDelay: Any = None, msec: Any = None) -> None:  # noqa: N802, N803
            slicer.util.delayDisplay(message, 0)

        def runTest(self) -> None:  # noqa: N802
            for name in [each for each in dir(self) if each.startswith("test_")]:
                self.setUp()
                getattr(self, name)()
                self.tearDown()

    module = ModuleType("slicer.ScriptedLoadableModule")
    classes = (ScriptedLoadableModule, ScriptedLoadableModuleWidget, ScriptedLoadableModuleLogic, ScriptedLoadableModuleTest)
    for kind in classes:
        setattr(module, kind.__name__, kind)
    module.__all__ = [kind.__name__ for kind in classes]  # type: ignore[attr-defined]
    return module


def build_sample_data() -> ModuleType:
    """Modules/Scripted/SampleData/SampleData.py: keeps what was registered."""

    class SampleDataLogic:
        registered: list[dict[str, Any]] = []  # noqa: RUF012

        @staticmethod
        def registerCustomSampleDataSource(**source: Any) -> None:  # noqa: N802
            SampleDataLogic.registered.append(source)

    module = ModuleType("SampleData")
    module.SampleDataLogic = SampleDataLogic  # type: ignore[attr-defined]
    return module
