"""`medsam2 models`: which weights exist and where they come from; fetches, imports, verifies and removes them."""

from __future__ import annotations

import argparse
import contextlib
import os
from pathlib import Path
from typing import TYPE_CHECKING

from MedSAM2Lib.checkpoints.registry import MODELS, Model
from MedSAM2Lib.errors import MedSAM2Error, OptionError
from MedSAM2Lib.network.config import NETWORKS, SAM_NETWORKS

if TYPE_CHECKING:
    from MedSAM2Lib.checkpoints.transfer import Connection
    from MedSAM2Lib.cli.console import Progress

NAME = "models"
HELP = "list, download, import, verify or remove the weights of models"

_MIRRORS_VARIABLE = "MEDSAM2_MIRRORS"  # environment: https folders, separated by spaces
_CA_VARIABLE = "MEDSAM2_CA_FILE"
_MB = 1_000_000


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.set_defaults(action=_list, store=None)
    actions = parser.add_subparsers(title="actions", metavar="ACTION")
    store = argparse.ArgumentParser(add_help=False)
    store.add_argument("--store", metavar="FOLDER", help="the folder of models (else MEDSAM2_MODELS, else the user's own)")

    def action(name: str, text: str) -> argparse.ArgumentParser:
        return actions.add_parser(
            name, help=text, description=f"{text[:1].upper()}{text[1:]}.", parents=[store], allow_abbrev=False
        )

    listing = action("list", "every model this version knows (the default)")
    listing.set_defaults(action=_list)

    download = action("download", "fetch the weights of models by https; one that broke off is continued")
    download.add_argument("models", metavar="ID", nargs="+", help="a model's id")
    download.add_argument(
        "--mirror", metavar="URL", action="append", help=f"https folder to ask first (else {_MIRRORS_VARIABLE})"
    )
    download.add_argument("--proxy", metavar="URL", help="proxy to go through (else HTTPS_PROXY and NO_PROXY)")
    download.add_argument(
        "--ca-file", metavar="PEM", type=Path, help=f"certificates to trust (else {_CA_VARIABLE}, REQUESTS_CA_BUNDLE)"
    )
    download.set_defaults(action=_download)

    importing = action("import", "take weights from files or folders, for example a USB stick")
    importing.add_argument("paths", metavar="PATH", nargs="+", help="a file of weights, or a folder that holds some")
    importing.set_defaults(action=_import)

    verify = action("verify", "hash a file of weights, recognise its network, load it; without one, hash every model here")
    verify.add_argument("model", metavar="ID|FILE", nargs="?", help="a model's id, or a checkpoint")
    networks = (*NETWORKS, *SAM_NETWORKS)
    verify.add_argument("--network", choices=networks, metavar="NAME", help="what FILE is for, where it fits several")
    verify.set_defaults(action=_verify)

    remove = action("remove", "delete the weights of models from the folder of models")
    remove.add_argument("models", metavar="ID", nargs="+", help="a model's id")
    remove.set_defaults(action=_remove)


def run(args: argparse.Namespace) -> int:
    status: int = args.action(args)
    return status


def _folder(args: argparse.Namespace) -> Path:
    from MedSAM2Lib.checkpoints.store import store_folder

    return store_folder(args.store)


def _known(model_id: str) -> Model:
    if model_id not in MODELS:
        raise OptionError(f"{model_id!r} is no model: models are {', '.join(MODELS)}.")
    return MODELS[model_id]


# ── list ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def _list(args: argparse.Namespace) -> int:
    folder = _folder(args)
    width = max(len(name) for name in MODELS)
    for model in MODELS.values():
        lines = [model.title, f"for: {model.purpose}", _place(model, folder), f"{model.licence} | {model.paper}"]
        for number, line in enumerate(lines):
            print(f"{'' if number else model.id:{width}}  {line}")
    print(f"\nThe folder of models is {folder}.")
    print("A file that you have got: medsam2 segment ... --model FILE (--network NAME where it fits several networks).")
    return 0


def _place(model: Model, folder: Path) -> str:
    from MedSAM2Lib.checkpoints.store import installed_path, part_path

    path, part = installed_path(model, folder), part_path(model, folder)
    if path is not None:
        return f"on this machine: {path}"
    if model.bundled:
        return "missing from this installation"
    size = f"{model.bytes / _MB:.0f} MB" if model.bytes else "size not published"
    if part.is_file():
        return f"partly here ({part.stat().st_size / _MB:.1f} MB; {size}): medsam2 models download {model.id} continues"
    return f"not on this machine ({size}): medsam2 models download {model.id}, or get {model.file_name} from {model.source}"


# ── download, import, remove ──────────────────────────────────────────────────────────────────────────────────────


def _download(args: argparse.Namespace) -> int:
    from MedSAM2Lib.checkpoints.download import download
    from MedSAM2Lib.checkpoints.store import expected_sha256
    from MedSAM2Lib.cli.console import tell

    models, connection, folder = [_known(model_id) for model_id in args.models], _connection(args), _folder(args)
    for model in models:
        tell(f"{model.id}: {model.licence}")
        was_pinned = expected_sha256(model, folder) is not None
        with _DownloadProgress(model) as progress:
            path = download(model, folder, connection, progress)
        print(f"{path}  {path.stat().st_size / _MB:.1f} MB  {_told_hash(model, folder, was_pinned)}")
    return 0


def _connection(args: argparse.Namespace) -> Connection:
    from MedSAM2Lib.checkpoints.transfer import Connection

    mirrors = args.mirror or os.environ.get(_MIRRORS_VARIABLE, "").split()
    ca_file = args.ca_file or (Path(os.environ[_CA_VARIABLE]) if os.environ.get(_CA_VARIABLE) else None)
    return Connection(proxy=args.proxy, ca_file=ca_file, mirrors=tuple(mirrors))


def _told_hash(model: Model, folder: Path, was_pinned: bool) -> str:
    from MedSAM2Lib.checkpoints.store import expected_sha256

    sha256 = expected_sha256(model, folder)
    if sha256 is None:
        return "no hash of it is published or pinned"
    if model.sha256 is not None:
        return f"SHA-256 {sha256}, as published"
    return (
        f"SHA-256 {sha256}, {'as pinned before' if was_pinned else 'not published: pinned now, later files must have the same'}"
    )


class _DownloadProgress(contextlib.ExitStack):
    """The bar of a download, which begins when the first bytes are there."""

    def __init__(self, model: Model) -> None:
        super().__init__()
        self._model = model
        self._bar: Progress | None = None
        self._began = 0

    def __call__(self, done: int, total: int | None) -> None:
        from MedSAM2Lib.cli.console import Progress

        if self._bar is None:
            whole = _megabytes(total or self._model.bytes or 0)
            self._bar, self._began = self.enter_context(Progress(self._model.id, whole, "MB")), done
        if total:
            self._bar.update(_megabytes(done), _megabytes(max(done - self._began, 0)))


def _megabytes(size: int) -> int:
    return -(-size // _MB)  # rounded up, so that a small file is not nothing


def _import(args: argparse.Namespace) -> int:
    from MedSAM2Lib.checkpoints.store import import_weights

    folder = _folder(args)
    for path in args.paths:
        for model, stored in import_weights(path, folder):
            print(f"{model.id}  {stored}  {_told_hash(model, folder, was_pinned=False)}  ({model.licence})")
    return 0


def _remove(args: argparse.Namespace) -> int:
    from MedSAM2Lib.checkpoints.store import remove

    folder = _folder(args)
    for model in [_known(model_id) for model_id in args.models]:
        gone = remove(model, folder)
        for path in gone:
            print(f"removed {path}")
        if not gone:
            print(f"{model.id} is not on this machine")
    return 0


# ── verify ────────────────────────────────────────────────────────────────────────────────────────────────────────


def _verify(args: argparse.Namespace) -> int:
    return _verify_all(_folder(args)) if args.model is None else _verify_one(args)


def _verify_all(folder: Path) -> int:
    from MedSAM2Lib.checkpoints.store import check_hash, expected_sha256, installed_path, sha256_of

    status = 0
    for model in MODELS.values():
        if (path := installed_path(model, folder)) is None:
            continue
        try:
            with path.open("rb") as stream:
                check_hash(model, sha256_of(stream), folder)
        except (MedSAM2Error, OSError) as error:
            status = 1
            print(f"{model.id}  WRONG  {error}")
        else:
            known = expected_sha256(model, folder) is not None
            how = ("as published" if model.sha256 else "as pinned") if known else "no hash to compare with"
            print(f"{model.id}  {'whole' if known else 'here'}  {how}  {path}")
    return status


def _verify_one(args: argparse.Namespace) -> int:
    import torch

    from MedSAM2Lib.checkpoints.loading import load_any_model
    from MedSAM2Lib.checkpoints.store import check_hash, installed_path

    asked, network = args.model, args.network
    if args.store and asked in MODELS and (path := installed_path(MODELS[asked], _folder(args))):
        asked, network = str(path), network or MODELS[asked].network
    model = load_any_model(asked, torch.device("cpu"), network)
    if args.model in MODELS:
        check_hash(MODELS[args.model], model.sha256, _folder(args))
    published = next((known for known in MODELS.values() if known.sha256 == model.sha256), None)
    parameters = sum(parameter.numel() for parameter in model.network.parameters())
    namesake = next((known for known in MODELS.values() if known.sha256 and known.file_name == model.path.name), None)
    print(f"file      {model.path} ({model.path.stat().st_size / _MB:.1f} MB)")
    print(f"sha256    {model.sha256}")
    if published is not None:
        print(f"is        {published.id}, as published ({published.licence})")
    elif namesake is not None:
        print(f"is        not the published {namesake.id}, though its name is the same: changed, or another version")
    else:
        print("is        not a file whose hash this version knows" if args.model not in MODELS else f"is        {args.model}")
    print(f"network   {network_name(model.network.config)}, {parameters / 1e6:.1f} million parameters")
    print("loads     yes: every key and shape fits, every weight is finite")
    return 0


def network_name(config: object) -> str:
    return next((name for name, known in {**NETWORKS, **SAM_NETWORKS}.items() if known == config), "unknown")
