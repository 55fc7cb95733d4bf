"""Installing PyTorch into Slicer's Python through Slicer's PyTorch extension, and going on after a restart."""

from __future__ import annotations

import importlib
import importlib.util
import logging
from collections.abc import Callable
from typing import Any

import qt
import slicer
from slicer.i18n import tr as _

from MedSAM2Lib.errors import MedSAM2Error

__all__ = ["InstallError", "InstallLogic"]

_EXTENSION = "PyTorch"
_REQUIREMENT = ">=2.1"
_RESUME_SETTING = "MedSAM2/InstallAfterRestart"


class InstallError(MedSAM2Error):
    """PyTorch could not be installed; the text says what to do instead."""


class InstallLogic:
    """Called from a button, never by itself: the user decides about a download of this size.

        install = InstallLogic(say, failed, ended)
        install.start()          # each step is announced through say(text), a failure through failed(text);
                                 # ended() when the work is over, well or not

    Where the PyTorch extension is missing it is installed first; Slicer must then be restarted, after which
    `isWaitingForRestart` is True and `start` goes on.
    """

    def __init__(self, say: Callable[[str], None], failed: Callable[[str], None], ended: Callable[[], None]) -> None:
        self._say, self._failed, self._ended = say, failed, ended
        self.isRunning = False
        self.needsRestart = False  # the extension is there, but Slicer has not loaded it yet

    @staticmethod
    def torchIsInstalled() -> bool:
        """Whether Slicer's Python has torch. Looks for its files; importing it would load it into Slicer."""
        try:
            return importlib.util.find_spec("torch") is not None
        except ValueError:  # a module that was put in its place
            return False

    @staticmethod
    def extensionIsInstalled() -> bool:
        return importlib.util.find_spec("PyTorchUtils") is not None

    @staticmethod
    def isWaitingForRestart() -> bool:
        """The extension was installed before Slicer was restarted; torch itself is still to come."""
        settings = slicer.app.userSettings()
        waiting = slicer.util.settingsValue(_RESUME_SETTING, False, converter=slicer.util.toBool, settings=settings)
        return bool(waiting) and not InstallLogic.torchIsInstalled()

    def start(self) -> None:
        """Begins; returns at once, the work follows when the panel has shown what is going to happen."""
        if self.needsRestart:
            slicer.util.restart()
            return
        if self.isRunning:
            return
        self.isRunning = True
        if self.extensionIsInstalled():
            self._say(_("Installing PyTorch. This downloads up to 3 GB; Slicer may not answer for some minutes."))
            qt.QTimer.singleShot(100, lambda: self._attempt(self._installTorch))
        else:
            self._say(_("Installing Slicer's PyTorch extension."))
            qt.QTimer.singleShot(100, lambda: self._attempt(self._installExtension))

    def _attempt(self, step: Callable[[], None]) -> None:
        try:
            step()
        except Exception as error:
            logging.exception("Installing PyTorch failed")
            self._failed(
                _("PyTorch could not be installed: {error}. Look at Slicer's log, or name another Python that has it.").format(
                    error=error
                )
            )
        finally:
            self.isRunning = False
            self._ended()

    def _installExtension(self) -> None:
        manager: Any = slicer.app.extensionsManagerModel()
        # False: Slicer is not restarted from within; first the panel notes that it was about to install PyTorch.
        if not manager.installExtensionFromServer(_EXTENSION, False):
            raise InstallError(_("Slicer's Extensions Manager could not install the PyTorch extension; try it there"))
        slicer.app.userSettings().setValue(_RESUME_SETTING, True)
        self.needsRestart = True
        self._say(_("The PyTorch extension is installed. Restart Slicer, then press Install PyTorch again."))

    def _installTorch(self) -> None:
        logic = importlib.import_module("PyTorchUtils").PyTorchUtilsLogic()
        if logic.installTorch(askConfirmation=True, torchVersionRequirement=_REQUIREMENT) is None:
            self._say(_("PyTorch was not installed."))
            return
        slicer.app.userSettings().setValue(_RESUME_SETTING, False)
        self._say(_("PyTorch is installed."))
