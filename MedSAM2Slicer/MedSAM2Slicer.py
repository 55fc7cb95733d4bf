"""The module "MedSAM2" of 3D Slicer: metadata, wiring, self-test. What it does is in MedSAM2SlicerLib."""

from __future__ import annotations

import importlib
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import qt
import slicer
from slicer.i18n import tr as _
from slicer.i18n import translate
from slicer.ScriptedLoadableModule import (
    ScriptedLoadableModule,
    ScriptedLoadableModuleLogic,
    ScriptedLoadableModuleTest,
    ScriptedLoadableModuleWidget,
)
from slicer.util import VTKObservationMixin

# In a source tree the library is one folder up; installed, both are beside this file.
_FOLDER = Path(__file__).resolve().parent
if not (_FOLDER / "MedSAM2Lib").is_dir() and str(_FOLDER.parent) not in sys.path:
    sys.path.append(str(_FOLDER.parent))


class MedSAM2Slicer(ScriptedLoadableModule):
    def __init__(self, parent: Any) -> None:
        ScriptedLoadableModule.__init__(self, parent)
        from MedSAM2Lib.resources import resource_path

        parent.title = "MedSAM2"
        parent.categories = [translate("qSlicerAbstractCoreModule", "Segmentation")]
        parent.dependencies = ["Segmentations", "Markups", "Volumes", "Terminologies"]
        parent.contributors = ["MedSAM2 for 3D Slicer contributors"]
        parent.helpText = _(
            "Segments a CT or MR volume from a box, a click or a caliper line on one slice: the mask appears, and is followed "
            "through the volume. Everything runs on this computer. Research software, not a medical device."
        )
        parent.acknowledgementText = _(
            "Runs the networks of MedSAM2 (Ma et al. 2025, arXiv 2504.03600), Medical SAM 2 (Zhu et al. 2024, arXiv 2408.00874) "
            "and SAM 2 (Ravi et al. 2024, arXiv 2408.00714). Please cite the one that you use."
        )
        parent.icon = qt.QIcon(str(resource_path("Icons", "MedSAM2Slicer.png")))
        slicer.app.connect("startupCompleted()", registerSampleData)


def registerSampleData() -> None:
    """Offers Slicer's own CT and MR samples under this module's name too, so that a tutorial finds them."""
    import SampleData

    from MedSAM2Lib.resources import resource_path

    source = "https://github.com/Slicer/SlicerTestingData/releases/download/SHA256/"
    for name, file, sha256 in (
        ("CTLiver", "CTLiver.nrrd", "e16eae0ae6fefa858c5c11e58f0f1bb81834d81b7102e021571056324ef6f37e"),
        ("CTChest", "CT-chest.nrrd", "4507b664690840abb6cb9af2d919377ffc4ef75b167cb6fd0f747befdb12e38e"),
        ("MRHead", "MR-head.nrrd", "cc211f0dfd9a05ca3841ce1141b292898b2dd2d3f08286affadf823a7e58df93"),
    ):
        SampleData.SampleDataLogic.registerCustomSampleDataSource(
            category="MedSAM2",
            sampleName=f"MedSAM2{name}",
            uris=source + sha256,
            fileNames=file,
            nodeNames=name,
            checksums=f"SHA256:{sha256}",
            thumbnailFileName=str(resource_path("Icons", "MedSAM2Slicer.png")),
        )


class MedSAM2SlicerWidget(ScriptedLoadableModuleWidget, VTKObservationMixin):
    """Makes the panel when the module is opened first, and tells it when the module or the scene comes and goes."""

    def __init__(self, parent: Any = None) -> None:
        ScriptedLoadableModuleWidget.__init__(self, parent)
        VTKObservationMixin.__init__(self)
        self.panel: Any = None

    def setup(self) -> None:
        ScriptedLoadableModuleWidget.setup(self)
        from MedSAM2SlicerLib.EngineControl import EngineControl
        from MedSAM2SlicerLib.SegmentationLogic import SegmentationLogic
        from MedSAM2SlicerLib.Widget import Widget

        self.logic = SegmentationLogic(slicer.mrmlScene, None)
        self.panel = Widget(self.layout, self.logic, EngineControl(self.logic))
        self.addObserver(slicer.mrmlScene, slicer.mrmlScene.StartCloseEvent, self._onSceneCloses)
        for event in (slicer.mrmlScene.EndCloseEvent, slicer.mrmlScene.EndImportEvent):
            self.addObserver(slicer.mrmlScene, event, self._onSceneChanged)
        for event in (slicer.mrmlScene.NodeAddedEvent, slicer.mrmlScene.NodeRemovedEvent):
            self.addObserver(slicer.mrmlScene, event, self._onNodeComesOrGoes)

    def cleanup(self) -> None:
        self.removeObservers()
        if self.panel is not None:
            self.panel.close()
            self.panel = None

    def enter(self) -> None:
        self.panel.enter()

    def exit(self) -> None:
        self.panel.exit()

    def onReload(self) -> None:
        """The developer's reload button: the helper packages are loaded anew too."""
        self.cleanup()
        for name in sorted(name for name in sys.modules if name.split(".")[0] in ("MedSAM2Lib", "MedSAM2SlicerLib")):
            del sys.modules[name]
        importlib.invalidate_caches()
        ScriptedLoadableModuleWidget.onReload(self)

    def _onSceneCloses(self, _caller: Any, _event: str) -> None:
        self.panel.sceneCloses()

    def _onNodeComesOrGoes(self, _caller: Any, _event: str) -> None:
        self.panel.nodeComesOrGoes()

    def _onSceneChanged(self, _caller: Any, _event: str) -> None:
        self.panel.refresh()


class MedSAM2SlicerLogic(ScriptedLoadableModuleLogic):
    """For scripts: `slicer.util.getModuleLogic("MedSAM2Slicer").segmentation(engine)` is what the panel works with."""

    def segmentation(self, engine: Any) -> Any:
        """A SegmentationLogic on the application's scene; `engine` is a MedSAM2Lib.worker.client.EngineClient."""
        from MedSAM2SlicerLib.SegmentationLogic import SegmentationLogic

        return SegmentationLogic(slicer.mrmlScene, engine)


class MedSAM2SlicerTest(ScriptedLoadableModuleTest):
    """Runs in Slicer, also without a main window (`--no-main-window --testing`)."""

    def setUp(self) -> None:
        slicer.mrmlScene.Clear()

    def runTest(self) -> None:
        for name in sorted(each for each in dir(self) if each.startswith("test_")):
            self.setUp()
            getattr(self, name)()

    def test_thePanelSaysWhatToDo(self) -> None:
        panel = slicer.util.getModuleWidget("MedSAM2Slicer").panel
        panel.refresh()
        self.assertTrue(panel.hint.text)
        self.assertFalse(panel.propagate.button.enabled)
        self.assertIn(panel.whyNoPropagation(), panel.propagate.button.toolTip)  # Slicer makes HTML of tool tips

    def test_aBoxBecomesAMaskThatIsFollowedUndoneAndExported(self) -> None:
        from MedSAM2SlicerLib.EngineControl import EngineControl
        from MedSAM2SlicerLib.SegmentationLogic import SegmentationLogic

        logic = SegmentationLogic(slicer.mrmlScene, None)
        engine = EngineControl(logic)
        if engine.problem is not None:
            self.delayDisplay(f"Not tested: {engine.problem}")
            return
        engine.ensure()
        try:
            self._playOnABall(logic)
        finally:
            engine.close()
            logic.close()

    def _playOnABall(self, logic: Any) -> None:
        """A bright ball of 10 voxels' radius in the middle of 24 x 48 x 48."""
        k, j, i = np.mgrid[:24, :48, :48]
        ball = (k - 12) ** 2 + (j - 24) ** 2 + (i - 24) ** 2 < 100
        noise = np.random.default_rng(0).normal(0, 10, ball.shape)
        volume = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "ball")
        slicer.util.updateVolumeFromArray(volume, (noise + 150 * ball).astype(np.int16))
        view = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSliceNode", "test view")
        view.JumpSlice(24, 24, 12)
        roi = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLMarkupsROINode", "test box")
        roi.SetCenter([24, 24, 12])
        roi.SetSize([22, 22, 1])

        logic.setVolume(volume)
        name = logic.addObject("ball")
        logic.addPrompt(name, roi, view)
        self._wait(logic)
        self.assertEqual([mark.index for mark in logic.timeline(name) if mark.present], [12])

        logic.propagate(first=8, last=16)
        self._wait(logic)
        self.assertGreater(sum(mark.present for mark in logic.timeline(name)), 1)
        logic.undo()
        self._wait(logic)
        self.assertEqual(sum(mark.present for mark in logic.timeline(name)), 1)
        logic.redo()
        self._wait(logic)

        with tempfile.TemporaryDirectory() as folder:
            files = logic.export(Path(folder) / "ball.nii.gz")
            self.assertTrue(all(file.stat().st_size > 0 for file in files))

    def _wait(self, logic: Any, seconds: float = 120) -> None:
        """Until the engine has answered."""
        end = time.monotonic() + seconds
        while logic.isBusy or logic.isPropagating:
            self.assertLess(time.monotonic(), end, "the engine took too long")
            time.sleep(0.01)
            logic.poll()
