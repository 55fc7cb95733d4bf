"""What `medsam2 evaluate` does: from the manifest to the files. Needs torch; imported when the command runs."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from MedSAM2Lib.checkpoints.loading import LoadedModel, load_model
from MedSAM2Lib.cli.console import Progress, tell, warn
from MedSAM2Lib.cli.inputs import at_least, zoom_of
from MedSAM2Lib.device import choose_device
from MedSAM2Lib.errors import MedSAM2Error, OutputError
from MedSAM2Lib.evaluation.cases import load_case
from MedSAM2Lib.evaluation.manifest import Case, read_manifest, select_cases
from MedSAM2Lib.evaluation.pictures import PictureBook
from MedSAM2Lib.evaluation.plots import plot_corrections, plot_groups
from MedSAM2Lib.evaluation.rows import Row
from MedSAM2Lib.evaluation.run import Protocol, StructureResult, evaluate_case
from MedSAM2Lib.evaluation.sources import cases_sharing_a_source
from MedSAM2Lib.evaluation.store import CaseResult, ResultStore
from MedSAM2Lib.evaluation.summary import Group, group_rows, summarise, write_csv, write_json
from MedSAM2Lib.inference.session import Session, SessionOptions
from MedSAM2Lib.version import __version__

__all__ = ["Outcome", "Request", "evaluate", "request_of"]


@dataclass(frozen=True)
class Request:
    """Everything that a person asked for. `zoom` is None for the whole slice, "auto" for the model's own."""

    manifest: Path
    output: Path
    cases: tuple[str, ...] | None
    training_manifest: Path | None
    protocol: Protocol
    model: str
    network: str | None
    device: str
    threads: int | None
    zoom: float | str | None
    depth_prior: bool


@dataclass(frozen=True)
class Outcome:
    model: str
    told_prompt: str
    groups: list[Group]
    written: list[Path]
    problems: list[str]  # what was not scored, and why


def request_of(args: argparse.Namespace) -> Request:
    """The request that the arguments of `medsam2 evaluate` put. Raises OptionError."""
    return Request(
        manifest=args.manifest,
        output=args.output,
        cases=None if args.cases is None else tuple(one.strip() for one in args.cases.split(",") if one.strip()),
        training_manifest=args.train_manifest,
        protocol=Protocol(
            prompt=args.prompt,
            slice=args.slice,
            every=args.every,
            corrections=args.corrections,
            worst=args.worst,
            window=args.window,
            seed=args.seed,
        ),
        model=args.model,
        network=args.network,
        device=args.device,
        threads=at_least("--threads", args.threads, 1),
        zoom=zoom_of(args.zoom),
        depth_prior=not args.no_depth_prior,
    )


def evaluate(request: Request) -> Outcome:
    # 1. The cases, and the model
    cases = select_cases(read_manifest(request.manifest), request.cases)
    sharing = None if request.training_manifest is None else cases_sharing_a_source(cases, request.training_manifest)
    if request.threads is not None:
        torch.set_num_threads(request.threads)
    device = choose_device(request.device)
    model = load_model(request.model, device, request.network)
    zoom = _number(model.zoom if request.zoom == "auto" else request.zoom)
    session = Session(model, SessionOptions(zoom=zoom, depth_prior=model.depth_prior if request.depth_prior else None))
    # 2. What is there from an earlier run, and the rest
    asked = _asked(request.protocol, model, session.options, device)
    store = ResultStore(request.output, asked)
    pictures = PictureBook(request.output / "pictures")
    _evaluate_missing(session, cases, request.protocol, store, pictures)
    # 3. The tables, the plots, the pictures
    results = store.results(cases)
    rows = [row for result in results for row in result.rows]
    problems = [problem for result in results for problem in result.problems]
    groups = group_rows(rows, sharing)
    summaries = [summarise(name, members, request.protocol.seed) for name, members in groups.items()] if rows else []
    written = [request.output / "results.csv", request.output / "summary.json"]
    write_csv(written[0], rows)
    write_json(written[1], asked, summaries, rows, problems)
    if rows:
        written += _draw(request.output, groups, summaries[0], pictures, request.protocol.corrections)
    return Outcome(model.name, _told(request.protocol, session.options), summaries, written, problems)


def _evaluate_missing(
    session: Session, cases: Sequence[Case], protocol: Protocol, store: ResultStore, pictures: PictureBook
) -> None:
    missing = [case for case in cases if store.finished(case) is None]
    if len(missing) < len(cases):
        tell(f"{len(cases) - len(missing)} of {len(cases)} cases were finished before")
    done = 0
    with Progress("evaluating", sum(len(case.structures) for case in missing), "structures") as progress:
        for case in missing:
            rows: list[Row] = []
            problems: list[str] = []
            try:
                loaded = load_case(case)
                problems += loaded.problems
                for count, result in enumerate(evaluate_case(session, loaded, protocol), start=1):
                    if isinstance(result, StructureResult):
                        rows += result.rows
                        pictures.add(loaded, result, session.window)
                    else:
                        problems.append(result.reason)
                    progress.update(done + count, done + count)
            except OutputError:
                raise
            except MedSAM2Error as error:
                problems.append(str(error))
            done += len(case.structures)
            progress.update(done, done)
            for problem in problems:
                warn(problem)
            store.add(CaseResult(case.id, case.digest, tuple(rows), tuple(problems)))


def _draw(
    folder: Path, groups: dict[str, list[Row]], everything: Group, pictures: PictureBook, corrections: int
) -> list[Path]:
    """Plots where matplotlib is there, and the contact sheet; returns what was written."""
    written = []
    rows = groups["all"]
    try:
        plot_groups(folder / "groups.png", groups)
        written.append(folder / "groups.png")
        if corrections:
            plot_corrections(folder / "corrections.png", rows, everything)
            written.append(folder / "corrections.png")
    except ImportError:
        warn("the plots were left out: they need matplotlib (pip install matplotlib); run the same command again afterwards.")
    if pictures.write_contact_sheet(folder / "contact_sheet.png", rows):
        written.append(folder / "contact_sheet.png")
    return written


def _asked(protocol: Protocol, model: LoadedModel, options: SessionOptions, device: torch.device) -> dict[str, Any]:
    """Everything that the numbers depend on."""
    return {
        **asdict(protocol),
        "model": model.name,
        "model_sha256": model.sha256,
        "session": {**asdict(options), "cache_bytes": None, "encoder_batch": None},  # these two change only the speed
        "device": device.type,
        "version": __version__,
    }


def _told(protocol: Protocol, options: SessionOptions) -> str:
    where = f"the {protocol.slice} slice" if protocol.every is None else f"{protocol.every:.0%} of the slices"
    zoom = "whole slice" if options.zoom is None else f"zoom {options.zoom:g}"
    corrected = f", then {protocol.corrections} corrections" if protocol.corrections else ""
    return f"prompt: {protocol.prompt} on {where}{corrected}; window {protocol.window}; {zoom}"


def _number(zoom: float | str | None) -> float | None:
    return None if zoom is None else float(zoom)
