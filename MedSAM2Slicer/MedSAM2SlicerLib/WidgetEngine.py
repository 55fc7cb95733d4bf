"""Engine: which network, on which processor, in which Python; what it says."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import ctk
import qt
from slicer.i18n import tr as _

from MedSAM2Lib.checkpoints.registry import MODELS, Model
from MedSAM2Lib.checkpoints.store import installed_path, remove
from MedSAM2Lib.errors import MedSAM2Error
from MedSAM2Lib.network.config import NETWORKS
from MedSAM2SlicerLib.EngineModels import EngineModels
from MedSAM2SlicerLib.InstallLogic import InstallLogic
from MedSAM2SlicerLib.WidgetFaster import WidgetFaster, fasterBy
from MedSAM2SlicerLib.WidgetKit import Section, aside, button, explain, formLayout, row

__all__ = ["WidgetEngine"]

_DEVICES = ("auto", "cpu", "cuda", "mps")
_LOG_LINES = 500


class WidgetEngine(Section):
    def __init__(self, panel: Any, layout: Any) -> None:
        super().__init__(_("Engine"), "MedSAM2EngineSection", layout)
        self._panel, self._engine = panel, panel.engine
        self._models = EngineModels()
        self._install = InstallLogic(panel.say, panel.warn, self._onInstallEnded)
        form = formLayout(self.frame)

        self.model = qt.QComboBox()
        self.model.objectName = "MedSAM2Model"
        for model in MODELS.values():
            if model.network in NETWORKS:  # one that remembers no slice has nothing to propagate: for the terminal alone
                self.model.addItem(model.id, model.id)
        self.model.connect("currentIndexChanged(int)", self._onModel)
        self.licence = aside()
        form.addRow(_("Model:"), self.model)
        form.addRow("", self.licence)
        self.downloadButton = button(_("Download"), self._onDownload, "MedSAM2Download")
        self.removeButton = button(_("Remove"), self._onRemove, "MedSAM2RemoveModel")
        form.addRow("", row(self.downloadButton, self.removeButton))

        self.weights = ctk.ctkPathLineEdit()
        self.weights.filters = ctk.ctkPathLineEdit.Files
        self.weights.nameFilters = [_("Weights (*.pt *.pth *.safetensors)")]
        self.weights.toolTip = _("A file of weights to use instead of a model of the list.")
        self.weights.connect("currentPathChanged(QString)", self._onWeights)
        form.addRow(_("Weights file:"), self.weights)

        self.device = qt.QComboBox()
        for name in _DEVICES:
            self.device.addItem(
                {"auto": _("automatic"), "cpu": "CPU", "cuda": "CUDA (NVIDIA)", "mps": "MPS (Apple)"}[name], name
            )
        self.device.toolTip = _("The processor that runs the network.")
        self.device.connect("currentIndexChanged(int)", self._onDevice)
        self.memory = qt.QSpinBox()
        self.memory.maximum = 1024
        self.memory.suffix = " GiB"
        self.memory.specialValueText = _("automatic")
        self.memory.toolTip = _("How much memory the engine may use for volumes and image features.")
        self.memory.connect("valueChanged(int)", self._onMemory)
        form.addRow(_("Device:"), self.device)
        form.addRow(_("Memory:"), self.memory)

        self.faster = WidgetFaster(panel, form)

        self.memoryRule = qt.QComboBox()
        self.memoryRule.addItem(_("the last slices (SAM 2)"), "recent")
        self.memoryRule.addItem(_("the most telling slices (Medical SAM 2)"), "self-sorting")
        self.memoryRule.toolTip = _("What a slice is compared with while an object is followed.")
        self.memoryRule.connect("currentIndexChanged(int)", self._onMemoryRule)
        form.addRow(_("Compare with:"), self.memoryRule)

        self.command = qt.QLineEdit()
        self.command.objectName = "MedSAM2Command"
        self.command.placeholderText = _("Slicer's own Python")
        self.command.toolTip = _(
            "The command of an engine elsewhere: another Python that has PyTorch (/path/to/python -m MedSAM2Lib worker), "
            "or a machine that you reach by ssh (ssh HOST medsam2 worker). Empty: Slicer's own Python."
        )
        self.command.connect("editingFinished()", self._onCommand)
        form.addRow(_("Other Python:"), self.command)

        self.installButton = button(_("Install PyTorch"), self._install.start, "MedSAM2InstallTorch")
        self.restartButton = button(_("Restart engine"), self._onRestart, "MedSAM2RestartEngine")
        form.addRow(row(self.installButton, self.restartButton))

        self.status = qt.QLabel()
        self.status.wordWrap = True
        form.addRow(_("Status:"), self.status)
        self.log = qt.QPlainTextEdit()
        self.log.readOnly = True
        self.log.setFixedHeight(90)
        self.log.maximumBlockCount = _LOG_LINES
        form.addRow(_("Log:"), self.log)
        self.frame.collapsed = True

    # ── what the user does ──

    def _set(self, name: str, value: str) -> None:
        if self._panel.refreshing or value == self._engine.setting(name):
            return
        self._engine.setSetting(name, value)
        self._panel.renewEngine()

    def _onModel(self, _index: int) -> None:
        self._set("model", str(self.model.currentData))

    def _onDownload(self) -> None:
        """The press is the consent: licence and size stand above the button. Nothing else is ever fetched."""
        if self._models.isRunning:
            self._models.cancel()
        else:
            self._models.start(MODELS[self._engine.setting("model")])
        self._panel.refresh()

    def _onRemove(self) -> None:
        self._panel.attempt(lambda: remove(MODELS[self._engine.setting("model")]))
        self._panel.renewEngine()

    def tick(self) -> None:
        """Called from the panel's timer: shows a download's progress and its end, and what became of the engine."""
        if not self._models.isRunning:
            self._tickEngine()
            return
        outcome = self._models.takeOutcome()
        if outcome is None:
            self.status.text = _downloadText(*self._models.progress)
            return
        self._panel.renewEngine()
        if isinstance(outcome[0], MedSAM2Error):
            self._panel.warn(str(outcome[0]))
        else:
            self._panel.say(_("Downloaded: {file}").format(file=outcome[0]) if outcome[0] else _("The download was stopped."))

    def _tickEngine(self) -> None:
        why = self._engine.goBack()
        if why is not None:
            self._panel.refresh()
            self._panel.warn(_("{reason} The settings before it hold again.").format(reason=why))
        elif self.status.text != self._statusText():
            self._panel.refresh()

    def _onWeights(self, path: str) -> None:
        if not path or Path(path).is_file():
            self._set("model", path or "nano")

    def _onDevice(self, _index: int) -> None:
        self._set("device", str(self.device.currentData))

    def _onMemory(self, value: int) -> None:
        self._set("memory", str(value))

    def _onMemoryRule(self, _index: int) -> None:
        self._set("memoryRule", str(self.memoryRule.currentData))

    def _onCommand(self) -> None:
        self._set("command", self.command.text.strip())

    def _onRestart(self) -> None:
        self._engine.restart()
        self._panel.refresh()

    def _onInstallEnded(self) -> None:
        self._engine.ensure()
        self._panel.refresh()

    # ── what is shown ──

    def append(self, text: str) -> None:
        self.log.appendPlainText(text)

    def refresh(self) -> None:
        chosen = self._engine.setting("model")
        index = self.model.findData(chosen)
        self.model.currentIndex = index
        if index >= 0:
            self.weights.currentPath = ""
            model = MODELS[chosen]
            self.model.toolTip = f"{model.title}\n{model.paper}"
            self.licence.text = _("{title}. Licence: {licence}. {origin}.").format(
                title=model.title, licence=model.licence, origin=_origin(model)
            )
        else:
            self.weights.currentPath = chosen
            self.licence.text = _("Weights of your own: {path}").format(path=chosen)
        self._refreshDownload(MODELS.get(chosen))
        self.device.currentIndex = self.device.findData(self._engine.setting("device"))
        self.memory.value = int(float(self._engine.setting("memory")))
        self.faster.refresh()
        self.memoryRule.currentIndex = self.memoryRule.findData(self._engine.setting("memoryRule"))
        self.command.text = self._engine.setting("command")
        torchIsThere = _("PyTorch is installed already.") if InstallLogic.torchIsInstalled() else None
        running = _("It is being installed.") if self._install.isRunning else None
        self.installButton.text = _("Restart Slicer") if self._install.needsRestart else _("Install PyTorch")
        explain(
            self.installButton,
            _("Installs PyTorch into Slicer's Python, through Slicer's PyTorch extension."),
            running or torchIsThere,
        )
        explain(self.restartButton, _("Ends the engine and starts it anew; prompts and masks stay."), self._engine.problem)
        self.status.text = self._statusText()

    def _refreshDownload(self, model: Model | None) -> None:
        path = installed_path(model) if model is not None else None
        self.downloadButton.text = _("Stop download") if self._models.isRunning else _("Download")
        why = None
        if not self._models.isRunning and (model is None or path is not None):
            why = _("These weights are on this computer already.")
        explain(self.downloadButton, _("Fetches the chosen model's weights by HTTPS, under the licence above."), why)
        bundled = _("These weights are part of the installation.") if model is not None and model.bundled else None
        absent = _("There is nothing to remove.") if path is None else None
        explain(self.removeButton, _("Deletes the chosen model's downloaded weights."), bundled or absent)

    def _statusText(self) -> str:
        problem = self._engine.problem
        if problem is not None:
            return str(problem)
        facts = self._engine.facts()
        if facts:
            running = _("running: {model} on {device}, {threads} threads").format(
                model=facts.get("model", "?"), device=facts.get("device", "?"), threads=facts.get("threads", "?")
            )
            return ", ".join((running, *fasterBy(facts)))
        return _("starting ...") if self._engine.isRunning else _("starts with the first prompt")


def _origin(model: Model) -> str:
    if model.bundled:
        return str(_("Part of the installation"))
    size = _("{megabytes:.0f} MB").format(megabytes=model.bytes / 1e6) if model.bytes else _("Size not published")
    return str(_("{size}, from {source}").format(size=size, source=model.source))


def _downloadText(done: int, total: int | None) -> str:
    if total:
        return str(_("downloading: {done:.0f} of {total:.0f} MB").format(done=done / 1e6, total=total / 1e6))
    return str(_("downloading: {done:.0f} MB").format(done=done / 1e6))
