"""`medsam2 models`: which weights exist and where they come from; whether a file of weights is whole and known."""

from __future__ import annotations

import argparse

from MedSAM2Lib.checkpoints.registry import MODELS, Model
from MedSAM2Lib.errors import CheckpointError
from MedSAM2Lib.network.config import NETWORKS

NAME = "models"
HELP = "list the models, or verify a file of weights"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.set_defaults(action=_list)
    actions = parser.add_subparsers(title="actions", metavar="ACTION")
    listing = actions.add_parser("list", help="every model this version knows (the default)", allow_abbrev=False)
    listing.set_defaults(action=_list)
    verify = actions.add_parser("verify", help="hash a file of weights, recognise its network, load it", allow_abbrev=False)
    verify.add_argument("model", metavar="ID|FILE", help="a model's id, or a checkpoint")
    verify.add_argument("--network", choices=tuple(NETWORKS), metavar="NAME", help="what FILE is for, where it fits several")
    verify.set_defaults(action=_verify)


def run(args: argparse.Namespace) -> int:
    status: int = args.action(args)
    return status


def _list(_: argparse.Namespace) -> int:
    from MedSAM2Lib.checkpoints.store import installed_path

    width = max(len(name) for name in MODELS)
    for model in MODELS.values():
        path = installed_path(model)
        place = f"on this machine: {path}" if path else f"not on this machine; get {model.file_name} from {model.source}"
        facts = [model.licence, model.paper] if path else [model.licence, _size(model), model.paper]
        print(f"{model.id:{width}}  {model.title}")
        print(f"{'':{width}}  {place}")
        print(f"{'':{width}}  {' | '.join(fact for fact in facts if fact)}")
    print("\nA file that you have got: medsam2 segment ... --model FILE (--network NAME where it fits several networks).")
    return 0


def _size(model: Model) -> str:
    return "" if model.bytes is None else f"{model.bytes / 1e6:.0f} MB"


def _verify(args: argparse.Namespace) -> int:
    import torch

    from MedSAM2Lib.checkpoints.loading import load_model

    model = load_model(args.model, torch.device("cpu"), args.network)
    check_hash(args.model, model.sha256)
    published = next((known for known in MODELS.values() if known.sha256 == model.sha256), None)
    parameters = sum(parameter.numel() for parameter in model.network.parameters())
    namesake = next((known for known in MODELS.values() if known.sha256 and known.file_name == model.path.name), None)
    print(f"file      {model.path} ({model.path.stat().st_size / 1e6:.1f} MB)")
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


def check_hash(asked: str, sha256: str) -> None:
    """Raises CheckpointError where a model asked for by its id is not the file that this version was made with."""
    known = MODELS.get(asked)
    if known is not None and known.sha256 is not None and known.sha256 != sha256:
        raise CheckpointError(
            f"The file of {asked} should have the SHA-256 {known.sha256[:16]}..., but it has {sha256[:16]}...; "
            "install MedSAM2 again."
        )


def network_name(config: object) -> str:
    return next((name for name, known in NETWORKS.items() if known == config), "unknown")
