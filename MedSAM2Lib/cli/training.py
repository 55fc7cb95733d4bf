"""What `medsam2 train` does. Needs torch; imported when the command runs."""

from __future__ import annotations

import argparse
import hashlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch

from MedSAM2Lib.atomic import make_folder
from MedSAM2Lib.checkpoints.loading import LoadedModel, load_model, save_checkpoint
from MedSAM2Lib.cli.console import Progress, warn
from MedSAM2Lib.cli.evaluation import asked_of
from MedSAM2Lib.device import choose_device, sensible_threads
from MedSAM2Lib.errors import TrainingError, VolumeError
from MedSAM2Lib.evaluation.before_after import Change, StructureChange, changes_of, summarise_changes, write_changes
from MedSAM2Lib.evaluation.case_folder import CasePair, case_of, find_pairs, load_pair
from MedSAM2Lib.evaluation.rows import Row
from MedSAM2Lib.evaluation.run import Protocol, StructureResult, Unscored, evaluate_case
from MedSAM2Lib.evaluation.store import CaseResult, ResultStore, keep_request
from MedSAM2Lib.inference.session import Session, SessionOptions
from MedSAM2Lib.memory.options import NAMED_RULES
from MedSAM2Lib.network.config import NETWORKS, NetworkConfig
from MedSAM2Lib.network.sam2 import SAM2
from MedSAM2Lib.network.volume_unet import VolumeUNet
from MedSAM2Lib.training.clip_training import TrainingPlan, train
from MedSAM2Lib.training.clips import ClipSource
from MedSAM2Lib.training.cubes import CubeSource
from MedSAM2Lib.training.curve import plot_learning_curve
from MedSAM2Lib.training.draft_training import CubeValidation, train_draft
from MedSAM2Lib.training.fine_tuning import draft_tuning_plan, fine_tuning_plan, split_cases, whole_slice_share
from MedSAM2Lib.training.nano import HELD_OUT, NANO_RECIPE, NanoRecipe, train_nano
from MedSAM2Lib.training.own_cases import CaseClips, CaseCubes, own_volume
from MedSAM2Lib.training.parts import DRAFTS
from MedSAM2Lib.training.processes import Processes, joined_processes
from MedSAM2Lib.training.sources import SourceOptions
from MedSAM2Lib.training.state import tensor_file
from MedSAM2Lib.training.steps import PAPER_MIX, ClipOptions, PromptMix
from MedSAM2Lib.training.validation import ClipValidation
from MedSAM2Lib.training.volumes import TrainingVolume
from MedSAM2Lib.version import __version__

__all__ = ["fine_tune", "train_from_the_beginning"]

_STEPS, _SLICES = 300, 16  # of a fine-tuning
_RATE_OF_NANO, _RATE = 1e-4, 3e-5
_SYNTHETIC_OF_NANO = 0.3  # share of the clips; docs/fine_tuning.md tells what happens without
_VALIDATION_BATCHES, _VALIDATION_CLIPS, _VALIDATION_LENGTH = 3, 4, 4  # of held-out cases, for the curve
_SHOWN = 30  # structures in the printed table


def train_from_the_beginning(args: argparse.Namespace) -> int:
    with joined_processes(choose_device(args.device)) as (processes, device):
        torch.set_num_threads(args.threads or 1)
        weights = train_nano(
            args.data,
            args.output,
            _recipe(args, device),
            device=device,
            held_out=() if args.no_validation else HELD_OUT,
            report=_report_line,
            processes=processes,
        )
        if processes.is_first:
            print(f"Trained weights: {weights}")
    return 0


def _recipe(args: argparse.Namespace, device: torch.device) -> NanoRecipe:
    """nano's, with what was asked for."""
    recipe = NANO_RECIPE if args.steps is None else NANO_RECIPE.scaled(args.steps)
    slices = args.slices or recipe.clips.slices_per_step
    clips = _with_options(replace(recipe.clips, slices_per_step=slices, seed=args.seed), args, device, NETWORKS["nano"])
    shared = {"mixed_precision": clips.mixed_precision, "workers": args.workers, "tensorboard": args.tensorboard}
    # Neither --prompts nor --memory is for the others: prompts are the point of the second, which has no memories to choose from.
    prompts = replace(recipe.prompts, slices_per_step=slices, seed=args.seed + 1, **shared)
    return NanoRecipe(clips, prompts, replace(recipe.drafts, seed=args.seed, **shared))


def fine_tune(args: argparse.Namespace) -> int:
    with joined_processes(choose_device(args.device)) as (processes, device):
        # 1. The cases, and the model
        pairs = find_pairs(args.cases)
        trained, held_out = split_cases([pair.id for pair in pairs], args.hold_out, args.seed)
        volumes = _read_cases(pairs, args.cases)
        model = load_model(args.base, device, args.network)
        config = model.network.config
        torch.set_num_threads(args.threads or sensible_threads(config))
        # 2. The plan, which must be that of an interrupted run
        plan = _plan(args, [volumes[name] for name in trained], config, device)
        synthetic = args.synthetic if args.synthetic is not None else _SYNTHETIC_OF_NANO * (config == NETWORKS["nano"])
        if processes.is_first:
            make_folder(args.output)
            keep_request(args.output / "run.json", _asked(plan, synthetic, model, pairs, held_out, processes))
        # 3. Before, training, after
        measuring = [pair for pair in pairs if pair.id in held_out] if processes.is_first else []
        # A network of its own: what one keeps while it only infers cannot be trained through.
        before = _score(measuring, load_model(args.base, device, args.network), args.output / "before", args.seed)
        weights = args.output / "fine_tuned.pt"
        cases = _Cases([volumes[name] for name in trained], [volumes[name] for name in held_out], synthetic)
        network = _train(model, plan, cases, args.output, processes)
        if model.network.volume_draft is not None and DRAFTS not in plan.frozen:
            network.volume_draft = _train_drafts(model.network.volume_draft, plan, cases, args.output / "drafts", processes)
        if processes.is_first:
            with tensor_file(weights) as temporary:
                save_checkpoint(network, _name_of(config), temporary)
            after = _score(measuring, load_model(str(weights), device, _name_of(config)), args.output / "after", args.seed)
            _report(args.output, weights, changes_of(before, after), args.seed)
    return 0


# ── the cases ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def _read_cases(pairs: Sequence[CasePair], folder: Path) -> dict[str, TrainingVolume]:
    """Every case, by its id. Raises TrainingError that lists all that is wrong, before anything is trained."""
    volumes: dict[str, TrainingVolume] = {}
    faults = []
    with Progress("reading cases", len(pairs), "cases") as progress:
        for count, pair in enumerate(pairs, start=1):
            try:
                loaded = load_pair(pair)
                volumes[pair.id] = own_volume(pair.id, loaded.volume, {t.structure.name: t.reference for t in loaded.targets})
                for problem in loaded.problems:
                    warn(problem)
            except VolumeError as error:
                faults.append(str(error))
            progress.update(count, count)
    if faults:
        told = "\n  ".join(faults)
        raise TrainingError(f"{len(faults)} of {len(pairs)} cases in {folder} cannot be used; nothing was trained.\n  {told}")
    return volumes


def _asked(
    plan: TrainingPlan,
    synthetic: float,
    model: LoadedModel,
    pairs: Sequence[CasePair],
    held_out: Sequence[str],
    processes: Processes,
) -> dict[str, Any]:
    """Everything that the weights depend on, but for the machine."""
    stamps = [case_of(pair).digest for pair in pairs]
    numbers = {key: value for key, value in asdict(plan).items() if key not in ("workers", "tensorboard")}
    return {
        **numbers,
        "synthetic": synthetic,
        "model": model.name,
        "model_sha256": model.sha256,
        "cases": hashlib.sha256("\n".join(stamps).encode()).hexdigest(),
        "held_out": list(held_out),
        "processes": processes.count,
        "version": __version__,
    }


# ── training ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def _plan(
    args: argparse.Namespace, volumes: Sequence[TrainingVolume], config: NetworkConfig, device: torch.device
) -> TrainingPlan:
    plan = fine_tuning_plan(
        config,
        [volume.shape[0] for volume in volumes],
        steps=args.steps or _STEPS,
        slices_per_step=args.slices or _SLICES,
        learning_rate=args.learning_rate or (_RATE_OF_NANO if config == NETWORKS["nano"] else _RATE),
        seed=args.seed,
    )
    frozen = tuple(part.strip() for part in args.freeze.split(",") if part.strip()) if args.freeze else ()
    return _with_options(replace(plan, frozen=frozen), args, device, config)


def _with_options(plan: TrainingPlan, args: argparse.Namespace, device: torch.device, config: NetworkConfig) -> TrainingPlan:
    prompts = {"auto": plan.prompts, "paper": PAPER_MIX, "boxes": PromptMix(correction=0.4)}[args.prompts]
    by_itself = device.type == "cuda" or config == NETWORKS["nano"]
    return replace(
        plan,
        prompts=prompts,
        clips=ClipOptions(NAMED_RULES.get(args.memory), args.gradient_checkpoints),
        mixed_precision={"auto": by_itself, "bfloat16": True, "float32": False}[args.precision],
        workers=args.workers,
        tensorboard=args.tensorboard,
    )


@dataclass(frozen=True)
class _Cases:
    """What is trained on, what is only measured, and the share of examples that show synthetic patients instead."""

    trained: Sequence[TrainingVolume]
    held_out: Sequence[TrainingVolume]
    synthetic: float


def _train(model: LoadedModel, plan: TrainingPlan, cases: _Cases, folder: Path, processes: Processes) -> SAM2:
    """The network that follows objects from slice to slice, on clips."""
    whole_slices = whole_slice_share(model.zoom)
    others = (ClipSource(None, SourceOptions(seed=plan.seed)), cases.synthetic) if cases.synthetic else None
    validate = None
    if cases.held_out and processes.is_first:
        held = CaseClips(cases.held_out, whole_slices)
        validate = ClipValidation(
            held.sample_batch,
            model.network.config.image_size,
            batches=_VALIDATION_BATCHES,
            clips=_VALIDATION_CLIPS,
            length=min(_VALIDATION_LENGTH, held.thickest),
        )
    network = train(
        model.network,
        CaseClips(cases.trained, whole_slices, others).sample_batch,
        plan,
        folder,
        validate=validate,
        report=_report_line,
        processes=processes,
    )
    _plot_curve(folder, processes)
    return network


def _train_drafts(network: VolumeUNet, plan: TrainingPlan, cases: _Cases, folder: Path, processes: Processes) -> VolumeUNet:
    """The network that drafts them, on cubes."""
    others = (CubeSource(None, SourceOptions(seed=plan.seed)), cases.synthetic) if cases.synthetic else None
    validate = None
    if cases.held_out and processes.is_first:
        held = CaseCubes(cases.held_out)
        validate = CubeValidation(held.sample_batch, batches=_VALIDATION_BATCHES, cubes=_VALIDATION_CLIPS)
    drafting = train_draft(
        network,
        CaseCubes(cases.trained, others).sample_batch,
        draft_tuning_plan(plan),
        folder,
        validate=validate,
        report=_report_line,
        processes=processes,
    )
    _plot_curve(folder, processes)
    return drafting


def _report_line(line: str) -> None:
    print(line, flush=True)


def _plot_curve(folder: Path, processes: Processes) -> None:
    if not processes.is_first:
        return
    try:
        plot_learning_curve(folder / "log.csv", folder / "curve.png")
    except ImportError:
        warn("the learning curve was left out: it needs matplotlib (pip install matplotlib).")


def _name_of(config: NetworkConfig) -> str:
    return next(name for name, known in NETWORKS.items() if known == config)


# ── before and after ──────────────────────────────────────────────────────────────────────────────────────────────────


def _score(pairs: Sequence[CasePair], model: LoadedModel, folder: Path, seed: int) -> list[Row]:
    """A box on the slice that shows most of each structure, as `medsam2 evaluate` scores it; what is there is not done again."""
    if not pairs:
        return []
    session = Session(model, SessionOptions(zoom=model.zoom, depth_prior=model.depth_prior))
    protocol = Protocol(seed=seed)
    store = ResultStore(folder, asked_of(protocol, model, session.options))
    with Progress(f"scoring held-out cases {folder.name}", len(pairs), "cases") as progress:
        for count, pair in enumerate(pairs, start=1):
            if store.finished(case_of(pair)) is None:
                results = list(evaluate_case(session, load_pair(pair), protocol))
                rows = [row for result in results if isinstance(result, StructureResult) for row in result.rows]
                problems = [result.reason for result in results if isinstance(result, Unscored)]
                for problem in problems:
                    warn(problem)
                store.add(CaseResult(pair.id, case_of(pair).digest, tuple(rows), tuple(problems)))
            progress.update(count, count)
    return [row for result in store.results([case_of(pair) for pair in pairs]) for row in result.rows]


def _report(folder: Path, weights: Path, changes: Sequence[StructureChange], seed: int) -> None:
    """The table of before and after, and what may be said of it."""
    summary = summarise_changes(changes, seed)
    if changes:
        _print_table(changes, summary)
        for path in write_changes(folder, changes, summary):
            print(f"wrote {path}")
    else:
        print("No case was held out, so nothing was measured: no improvement can be claimed.")
    print(f"wrote {weights}; use it with --model {weights}")


def _print_table(changes: Sequence[StructureChange], summary: Sequence[Change]) -> None:
    print(f"\n{'held-out case, structure':44}{'slice Dice':>22}{'3D Dice':>22}")
    for one in changes[:_SHOWN]:
        in_3d = "-" if one.dice is None else _pair(one.dice)
        print(f"{f'{one.case}, {one.structure}'[:43]:44}{_pair(one.slice_dice):>22}{in_3d:>22}")
    if len(changes) > _SHOWN:
        print(f"... and {len(changes) - _SHOWN} more in before_after.csv")
    for change in summary:
        before, after = (f"{one.mean:.3f} [{one.low:.2f}, {one.high:.2f}]" for one in (change.before, change.after))
        print(f"{f'mean {change.measure} (n = {change.structures})':44}{before} -> {after}")
    for change in summary:
        print(change.told())


def _pair(figures: tuple[float, float]) -> str:
    before, after = figures
    return f"{before:.3f} -> {after:.3f}"
