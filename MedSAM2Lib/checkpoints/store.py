"""The folder of weights on this machine: what is in it, whether it is whole, what comes in from a file and what goes.

A file that a publisher gave no SHA-256 for is pinned: beside it lies NAME.sha256 with the hash of the first file that
came (the format of `sha256sum -c`), and whatever comes later must have the same. No torch here.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

from MedSAM2Lib.atomic import atomic_path
from MedSAM2Lib.checkpoints.archive import check_size
from MedSAM2Lib.checkpoints.outline import read_outline
from MedSAM2Lib.checkpoints.registry import MODELS, Model
from MedSAM2Lib.errors import CheckpointError, MedSAM2Error, OptionError, OutputError
from MedSAM2Lib.lock import held
from MedSAM2Lib.resources import resource_path

__all__ = [
    "STORE_VARIABLE",
    "check_content",
    "check_hash",
    "expected_sha256",
    "import_weights",
    "installed_path",
    "lock_path",
    "make_store",
    "part_path",
    "pin",
    "remove",
    "sha256_of",
    "store_folder",
    "stored_path",
    "weights_path",
]

STORE_VARIABLE = "MEDSAM2_MODELS"  # environment: the folder to use instead of the user's own

_BLOCK = 1 << 20  # bytes read at a time
_PIN = re.compile(r"([0-9a-f]{64})  \S.*\n?")


def store_folder(chosen: str | os.PathLike[str] | None = None) -> Path:
    """The folder of weights: as chosen, else as MEDSAM2_MODELS says, else the user's own. It may not exist yet."""
    if chosen or (chosen := os.environ.get(STORE_VARIABLE)):
        return Path(chosen).expanduser().absolute()
    return _user_data_folder() / "models"


def _user_data_folder() -> Path:
    """Where each system keeps what programs store for a user (on Linux, the XDG base directory specification)."""
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local") / "MedSAM2"
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Application Support" / "MedSAM2"
    configured = os.environ.get("XDG_DATA_HOME", "")
    return (Path(configured) if os.path.isabs(configured) else Path.home() / ".local" / "share") / "medsam2"


def make_store(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(
            f"The folder of models {folder} cannot be made: {error.strerror}. Choose another with --store or {STORE_VARIABLE}."
        ) from error


def stored_path(model: Model, folder: Path | None = None) -> Path:
    """Where the file of a model is in the store, or would be."""
    return (folder or store_folder()) / model.file_name


def part_path(model: Model, folder: Path | None = None) -> Path:
    """Where the file of a model grows while it is fetched."""
    return _beside(stored_path(model, folder), ".part")


def lock_path(model: Model, folder: Path | None = None) -> Path:
    """Who holds this file's lock changes the files of a model."""
    return _beside(stored_path(model, folder), ".lock")


def installed_path(model: Model, folder: Path | None = None) -> Path | None:
    """The file of a registered model; None where it is not on this machine."""
    if not model.bundled:
        path = stored_path(model, folder)
        return path if path.is_file() else None
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
            f"The weights of {model.id} are not on this machine: `medsam2 models download {model.id}` fetches them "
            f"({model.licence}). Without a network, get {model.file_name} from {model.source} elsewhere, then "
            "`medsam2 models import FILE` or --model FILE."
        )
    path = Path(name_or_path)
    if not path.exists():
        raise OptionError(f"{name_or_path!r} is neither a file nor a model: models are {', '.join(MODELS)}.")
    if not path.is_file():
        raise OptionError(f"A checkpoint is a file, but {name_or_path} is a folder; give the .pt file in it.")
    return path


# ── hashes and pins ───────────────────────────────────────────────────────────────────────────────────────────────


def sha256_of(stream: BinaryIO, check: Callable[[], None] | None = None) -> str:
    """The SHA-256 of a whole open file, which is left at its start; `check` is called between blocks and may raise."""
    stream.seek(0)
    digest = hashlib.sha256()
    while block := stream.read(_BLOCK):
        digest.update(block)
        if check is not None:
            check()
    stream.seek(0)
    return digest.hexdigest()


def expected_sha256(model: Model, folder: Path | None = None) -> str | None:
    """The hash that the file of a model must have: as published, else as pinned; None where neither is."""
    if model.sha256 is not None or model.bundled:
        return model.sha256
    path = _pin_path(model, folder)
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError) as error:
        raise CheckpointError(f"The pinned hash {path} cannot be read ({error}); remove it and get the model again.") from error
    pinned = _PIN.fullmatch(text)
    if pinned is None:
        raise CheckpointError(f"{path} should hold a SHA-256 and a file name, but it does not; remove it, get the model again.")
    return pinned[1]


def pin(model: Model, sha256: str, folder: Path | None = None) -> None:
    """Remembers the hash of the first file of a model that came, where its publisher gave none."""
    if model.sha256 is None and expected_sha256(model, folder) is None:
        with atomic_path(_pin_path(model, folder)) as temporary:
            temporary.write_text(f"{sha256}  {model.file_name}\n", encoding="utf-8")


def check_hash(model: Model, sha256: str, folder: Path | None = None) -> None:
    """Raises CheckpointError where the file of a model that is here has another hash than was published, or pinned."""
    if difference := _difference(model, sha256, folder):
        again = "install MedSAM2 again" if model.bundled else f"get it again with `medsam2 models download {model.id}`"
        raise CheckpointError(f"{difference}; {again}.")


def check_content(model: Model, stream: BinaryIO, sha256: str, folder: Path | None = None) -> None:
    """Raises CheckpointError unless an open file that comes is the one of a model: by its hash, or where none is known by
    its size and by being a plain file of weights."""
    if difference := _difference(model, sha256, folder):
        raise CheckpointError(f"{difference}.")
    if expected_sha256(model, folder) is None:
        size = stream.seek(0, os.SEEK_END)
        if model.bytes is not None and model.bytes != size:
            raise CheckpointError(f"The file of {model.id} should have {model.bytes:,} bytes, but it has {size:,}: get it again.")
        read_outline(stream, model.file_name)


def _difference(model: Model, sha256: str, folder: Path | None) -> str | None:
    """What is wrong with a hash, as the beginning of a sentence."""
    expected = expected_sha256(model, folder)
    if expected in (None, sha256):
        return None
    how = "as published" if model.sha256 else f"as the first one that came (pinned in {_pin_path(model, folder)})"
    return (
        f"The file of {model.id} should have the SHA-256 {str(expected)[:16]}... {how}, but it has {sha256[:16]}...: it is "
        "damaged, or another version"
    )


def _pin_path(model: Model, folder: Path | None) -> Path:
    return _beside(stored_path(model, folder), ".sha256")


def _beside(path: Path, ending: str) -> Path:
    return path.with_name(path.name + ending)


# ── in and out ────────────────────────────────────────────────────────────────────────────────────────────────────


def import_weights(source: str | os.PathLike[str], folder: Path | None = None) -> list[tuple[Model, Path]]:
    """Copies published weights from a file, or from all files of a folder (a USB stick), into the store.

    A file is known by its SHA-256, else, where none is published, by its name. What it is called there never decides
    where it goes. In a folder, links and files that no model is known by are left out. Returns what came in.

    Raises OptionError for a path that is nothing, CheckpointError for a file that is no model's or is damaged.
    """
    folder = folder or store_folder()
    source = Path(source)
    if source.is_dir():
        files = [path for path in sorted(source.iterdir()) if path.is_file() and not path.is_symlink()]
        named = {model.file_name for model in MODELS.values() if not model.bundled}
        sizes = {model.bytes for model in MODELS.values()} - {None}
        files = [path for path in files if path.name in named or path.stat().st_size in sizes]
        if not files:
            raise CheckpointError(f"{source} holds none of the files {', '.join(sorted(named))}; give the file itself.")
        return [_import_file(path, folder) for path in files]
    if not source.is_file():
        raise OptionError(f"{source} should be a file of weights, or a folder of them, but it is neither.")
    return [_import_file(source, folder)]


def _import_file(source: Path, folder: Path) -> tuple[Model, Path]:
    try:
        with source.open("rb") as stream:
            check_size(stream, str(source))
            sha256 = sha256_of(stream)
            model = _model_of(source, sha256)
            check_content(model, stream, sha256, folder)
            return model, _copy(model, stream, sha256, folder)
    except OSError as error:
        raise CheckpointError(f"{source} cannot be read ({error.strerror}); check the medium and its permissions.") from error


def _model_of(source: Path, sha256: str) -> Model:
    by_hash = next((model for model in MODELS.values() if model.sha256 == sha256), None)
    by_name = next((model for model in MODELS.values() if model.file_name == source.name and not model.bundled), None)
    if (model := by_hash or by_name) is None:
        raise CheckpointError(
            f"{source} is no published model that this version knows, by its hash or its name. Use it as --model FILE, or see "
            "`medsam2 models` for the names."
        )
    return model


def _copy(model: Model, stream: BinaryIO, sha256: str, folder: Path) -> Path:
    """Copies an open file into the store and reads the copy again: a stick that is pulled out leaves nothing."""
    make_store(folder)
    target = stored_path(model, folder)
    with held(lock_path(model, folder)):
        with atomic_path(target) as temporary:
            with temporary.open("xb") as copy:
                stream.seek(0)
                shutil.copyfileobj(stream, copy, _BLOCK)
            with temporary.open("rb") as copy:
                if sha256_of(copy) != sha256:
                    raise CheckpointError(f"The copy of {model.file_name} differs from what was read; check the disk, try again.")
        pin(model, sha256, folder)
        _remove_all(_part_files(model, folder))
    return target


def remove(model: Model, folder: Path | None = None) -> list[Path]:
    """Removes the weights of a model, whole or in part; returns what went. A pinned hash stays: weights that come back
    must be the same. Raises OptionError for what is bundled."""
    if model.bundled:
        raise OptionError(f"{model.id} is part of the installation and cannot be removed.")
    folder = folder or store_folder()
    if not folder.is_dir():
        return []
    with held(lock_path(model, folder)):
        return _remove_all([stored_path(model, folder), *_part_files(model, folder)])


def _part_files(model: Model, folder: Path) -> list[Path]:
    part = part_path(model, folder)
    return [part, _beside(part, ".json")]


def _remove_all(paths: list[Path]) -> list[Path]:
    """Removes those that exist; returns them."""
    gone = [path for path in paths if path.exists()]
    for path in gone:
        try:
            path.unlink()
        except OSError as error:
            raise OutputError(f"{path} cannot be removed: {error.strerror}. Close what uses it and try again.") from error
    return gone
