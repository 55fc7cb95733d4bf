"""Which engine the panel works with: its settings, kept for this machine, and the client that runs it."""

from __future__ import annotations

import shlex
import shutil
import threading
from types import MappingProxyType
from typing import Any

import slicer
from slicer.i18n import tr as _

from MedSAM2Lib.checkpoints.registry import MODELS
from MedSAM2Lib.checkpoints.store import installed_path
from MedSAM2Lib.network.config import APPROXIMATIONS, NETWORKS, PRECISIONS
from MedSAM2Lib.worker.client import EngineClient, EngineDied, Event, Request
from MedSAM2SlicerLib.InstallLogic import InstallLogic

__all__ = ["EngineControl"]

_GIB = 2**30


class _Client(EngineClient):
    """An engine's client whose sessions all segment with the same fields of SessionOptions.

    options  may be replaced at any time; a session that is open gets the new ones before its next work
    refused  why the engine ended before it ever had its model; None where it had it, or may have it still
    """

    def __init__(self, command: list[str] | None, *, options: dict[str, Any], **settings: Any) -> None:
        super().__init__(command, **settings)
        self.options = options
        self.refused: str | None = None
        self._hadModel = False
        self._told: dict[str, dict[str, Any]] = {}  # by session

    def request(self, method: str, volume_id: str, /, **arguments: Any) -> Request:
        if method == "set_volume":
            arguments["options"] = {**self.options, **(arguments.get("options") or {})}
        elif method == "close_volume":
            self._told.pop(volume_id, None)
        elif self._told.get(volume_id, self.options) != self.options:
            super().request("set_options", volume_id, options=self.options)
        if method != "close_volume":
            self._told[volume_id] = self.options
        return super().request(method, volume_id, **arguments)

    def poll(self) -> list[Event]:
        events = super().poll()
        self._hadModel = self._hadModel or bool(self.facts)
        if not self._hadModel:
            self.refused = next((event.reason for event in events if isinstance(event, EngineDied)), self.refused)
        return events


class EngineControl:
    """Settings live with the application (they describe a machine, not a scene).

    model       id of the registry, or the path of a weights file
    device      auto, cpu, cuda, mps
    memory      GiB for volumes and image features; 0: as the engine chooses
    memoryRule  recent or self-sorting: which slices a slice gets to see
    stopAfter   a direction ends after so many slices without the object; 0: never
    precision   float32, exact; or bfloat16
    approximations  names of network.config.APPROXIMATIONS, with commas between them; those that the model cannot be given
                wait for one that can
    command     an engine elsewhere ("/opt/python/bin/python -m MedSAM2Lib worker", "ssh host medsam2 worker");
                empty: Slicer's Python
    """

    _DEFAULTS = MappingProxyType(
        {
            "model": "nano",
            "device": "auto",
            "memory": "0",
            "memoryRule": "recent",
            "stopAfter": "3",
            "precision": "float32",
            "approximations": "",
            "command": "",
        }
    )

    def __init__(self, logic: Any) -> None:
        self._logic = logic
        self.client: _Client | None = None
        self._started: dict[str, str] = {}  # the settings that the engine was made with
        self._worked: dict[str, str] = {}  # those of the last engine that had its model
        self._problem: str | None = None
        self.look()

    # ── settings ──

    def setting(self, name: str) -> str:
        value = slicer.util.settingsValue(f"MedSAM2/{name}", self._DEFAULTS[name], settings=slicer.app.userSettings())
        return str(value)

    def setSetting(self, name: str, value: str) -> None:
        slicer.app.userSettings().setValue(f"MedSAM2/{name}", value)

    def approximates(self, name: str) -> bool:
        """Whether an approximation was chosen; the model may be one that cannot be given it."""
        return name in self.setting("approximations").split(",")

    def setApproximates(self, name: str, chosen: bool) -> None:
        kept = [one for one in APPROXIMATIONS if (chosen if one == name else self.approximates(one))]
        self.setSetting("approximations", ",".join(kept))

    def whyNotApproximated(self, name: str) -> str | None:
        """Why the model cannot be given an approximation. Of somebody's own file the engine says it, which reads it."""
        model = MODELS.get(self.setting("model"))
        if model is None:
            return None
        if name == "crop" and model.zoom is not None:
            return _("{model} looks at a square around the object already.").format(model=model.id)
        if name == "pooled-memories" and NETWORKS[model.network].trunk is None:  # measured: docs/performance.md
            return _("{model} is no faster with it.").format(model=model.id)
        return None

    # ── the engine ──

    @property
    def problem(self) -> str | None:
        """Why there can be no engine, and what to do; None where there can. As of the last look."""
        return self._problem

    def look(self) -> None:
        """Looks at this machine again, where the engine is to run on it: for PyTorch, and for the model's file."""
        self._problem = self._findProblem()

    def _findProblem(self) -> str | None:
        if self.setting("command").strip():
            return None  # PyTorch and weights are needed where that engine runs; it says itself what it lacks
        if not InstallLogic.torchIsInstalled():
            if InstallLogic.isWaitingForRestart():
                return _("PyTorch is still to be installed: press Install PyTorch under Engine to go on.")
            return _("PyTorch is not installed: press Install PyTorch under Engine, or name another Python there.")
        model = self.setting("model")
        if model in MODELS and installed_path(MODELS[model]) is None:
            return _(
                "The weights of {model} are not on this computer: press Download under Engine, or choose another model there."
            ).format(model=model)
        return None

    def ensure(self) -> None:
        """Makes the engine that the settings ask for, if there is none or another; it starts with its first work."""
        wanted = self._wanted()
        options = {"memory": self.setting("memoryRule"), "stop_after": int(self.setting("stopAfter"))}
        self.look()
        if self._problem is not None:
            self._replace(None)
        elif self.client is None or wanted != self._started:
            ahead = self.isRunning  # who sees it change wants to hear at once whether it can be
            self._started = wanted
            client = self._made(wanted, options)
            self._replace(client)
            if ahead:
                client.start()
        else:
            self.client.options = options

    def _wanted(self) -> dict[str, str]:
        """The settings that another engine is made for."""
        wanted = {name: self.setting(name) for name in ("command", "model", "device", "memory", "precision")}
        if wanted["precision"] not in PRECISIONS:  # of another version of this panel
            wanted["precision"] = PRECISIONS[0]
        given = (one for one in APPROXIMATIONS if self.approximates(one) and self.whyNotApproximated(one) is None)
        return {**wanted, "approximations": ",".join(given)}

    def _made(self, wanted: dict[str, str], options: dict[str, Any]) -> _Client:
        return _Client(
            self._command(wanted["command"]),
            options=options,
            model=wanted["model"],
            device=wanted["device"],
            precision=wanted["precision"],
            approximations=[one for one in wanted["approximations"].split(",") if one],
            memory_bytes=int(float(wanted["memory"]) * _GIB) or None,
        )

    def goBack(self) -> str | None:
        """Where no engine could be had with new settings, takes up those that the one before worked with. Call it from a timer.

        Returns why there was none, once. A command stays as it was typed, for the person to mend.
        """
        if self.client is None:
            return None
        if self.client.facts:
            self._worked = self._started
        changed = {name for name, value in self._worked.items() if value != self._started.get(name)}
        why = self.client.refused
        if why is None or not changed or "command" in changed:
            return None
        for name in changed:
            self.setSetting(name, self._worked[name])
        self.ensure()
        if self.client is not None:
            self.client.start()
        return why

    def restart(self) -> None:
        """Another engine with the same settings; sessions are carried over."""
        self._started = {}
        self.ensure()

    def close(self) -> None:
        self._replace(None)

    def facts(self) -> dict[str, Any]:
        """Of the running engine: version, model, device, threads, precision ...; empty until it runs."""
        return {} if self.client is None else self.client.facts

    @property
    def isRunning(self) -> bool:
        return self.client is not None and self.client.is_running

    def _replace(self, client: _Client | None) -> None:
        old, self.client = self.client, client
        if old is client:
            return
        self._logic.setEngine(client)
        if old is not None:  # an engine may take seconds to end; the panel does not wait for it
            threading.Thread(target=old.close, name="MedSAM2 engine ends", daemon=True).start()

    @staticmethod
    def _command(command: str) -> list[str] | None:
        if command.strip():
            return shlex.split(command)
        python = shutil.which("PythonSlicer")  # in Slicer, sys.executable may be Slicer itself
        return None if python is None else [python, "-m", "MedSAM2Lib", "worker"]
