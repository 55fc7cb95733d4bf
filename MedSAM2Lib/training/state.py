"""The state of a run: what it needs to go on as if it had never stopped."""

from __future__ import annotations

import pickle
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from MedSAM2Lib.atomic import atomic_path
from MedSAM2Lib.errors import OutputError, TrainingError

__all__ = ["RunState", "tensor_file"]


@dataclass
class RunState:
    """What training changes. `averaged` is the moving average of the network's weights, which is what ships."""

    network: torch.nn.Module
    averaged: torch.nn.Module
    optimizer: torch.optim.Optimizer
    device: torch.device

    def save(self, path: Path, step: int) -> None:
        """Writes the state after `step` steps, whole or not at all. Raises OutputError."""
        with tensor_file(path) as temporary:
            torch.save({**{name: part.state_dict() for name, part in self._parts().items()}, "step": step}, temporary)

    def resume(self, path: Path) -> int:
        """Reads a state, where there is one; returns after how many steps it was saved. Raises TrainingError for one of
        another network."""
        if not path.exists():
            return 0
        try:
            stored = torch.load(path, map_location=self.device, weights_only=True)
            for name, part in self._parts().items():
                part.load_state_dict(stored[name])
            return int(stored["step"])
        except (RuntimeError, ValueError, KeyError, EOFError, pickle.UnpicklingError) as error:
            reason = str(error).splitlines()[0]
            raise TrainingError(
                f"{path} does not hold a run of this network ({reason}); name another folder or remove the file."
            ) from error

    def _parts(self) -> dict[str, Any]:
        return {"network": self.network, "averaged": self.averaged, "optimizer": self.optimizer}


@contextmanager
def tensor_file(path: Path) -> Iterator[Path]:
    """As `atomic_path`, for torch's writer: it tells of a full disk by a RuntimeError about positions."""
    with atomic_path(path) as temporary:
        try:
            yield temporary
        except RuntimeError as error:
            reason = str(error).splitlines()[0]
            raise OutputError(
                f"{path} cannot be written whole; the disk is probably full ({reason}). What was there before is kept: free "
                "some space, and give the same command again."
            ) from error
