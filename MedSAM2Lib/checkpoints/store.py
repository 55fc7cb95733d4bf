"""Where the weights of a model are on this machine. No torch here."""

from __future__ import annotations

from pathlib import Path

from MedSAM2Lib.checkpoints.registry import MODELS, Model
from MedSAM2Lib.errors import CheckpointError, MedSAM2Error, OptionError
from MedSAM2Lib.resources import resource_path

__all__ = ["installed_path", "weights_path"]


def installed_path(model: Model) -> Path | None:
    """The file of a registered model; None where it is not on this machine."""
    if not model.bundled:
        return None
    try:
        return resource_path("Models", model.file_name)
    except MedSAM2Error:
        return None


def weights_path(name_or_path: str) -> Path:
    """The file that a model's id, or a path, means.

    Raises OptionError for what is neither, CheckpointError where a known model's weights are not on this machine.
    """
    model = MODELS.get(name_or_path)
    if model is not None:
        path = installed_path(model)
        if path is not None:
            return path
        if model.bundled:
            raise CheckpointError(f"The installation lacks Resources/Models/{model.file_name}; install MedSAM2 again.")
        raise CheckpointError(
            f"The weights of {model.id} are not on this machine: get {model.file_name} from {model.source} "
            f"({model.licence}) and give its path as --model FILE."
        )
    path = Path(name_or_path)
    if not path.exists():
        raise OptionError(f"{name_or_path!r} is neither a file nor a model: models are {', '.join(MODELS)}.")
    if not path.is_file():
        raise OptionError(f"A checkpoint is a file, but {name_or_path} is a folder; give the .pt file in it.")
    return path
