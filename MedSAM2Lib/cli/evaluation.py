"""What `medsam2 evaluate` does: from the manifest to the files. Needs torch; imported when the command runs."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from MedSAM2Lib.checkpoints.loading import LoadedModel
from MedSAM2Lib.cli.console import Progress, tell, warn
from MedSAM2Lib.cli.engine import Engine, engine_of, load_engine, session_options
from MedSAM2Lib.errors import MedSAM2Error, OutputError
from MedSAM2Lib.evaluation.cases import LoadedCase, load_case
from MedSAM2Lib.evaluation.manifest import Case, read_manifest, select_cases
from MedSAM2Lib.evaluation.pictures import PictureBook
from MedSAM2Lib.evaluation.plots import plot_corrections, plot_groups
from MedSAM2Lib.evaluation.rows import Row
from MedSAM2Lib.evaluation.run import Protocol, StructureResult, Unscored, evaluate_case
from MedSAM2Lib.evaluation.sources import cases_sharing_a_source
from MedSAM2Lib.evaluation.store import CaseResult, ResultStore
from MedSAM2Lib.evaluation.summary import Group, group_rows, summarise, write_csv, write_json
from MedSAM2Lib.inference.session import Session, SessionOptions
from MedSAM2Lib.version import __version__

__all__ = ["Outcome", "Request", "asked_of", "evaluate", "request_of", "score_missing"]


@dataclass(frozen=True)
class Request:
    """Everything that a person asked for."""

    manifest: Path
    output: Path
    cases: tuple[str, ...] | None
    training_manifest: Path | None
    protocol: Protocol
    engine: Engine


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
            correct_with=args.correct_with,
            worst=args.worst,
            window=args.window,
            orientations=args.orientations,
            seed=args.seed,
        ),
        engine=engine_of(args),
    )


def evaluate(request: Request) -> Outcome:
    # 1. The cases, and the model
    cases = select_cases(read_manifest(request.manifest), request.cases)
    sharing = None if request.training_manifest is None else cases_sharing_a_source(cases, request.training_manifest)
    model = load_engine(request.engine)
    session = Session(model, session_options(request.engine, model))
    # 2. What is there from an earlier run, and the rest
    asked = asked_of(request.protocol, model, session.options)
    store = ResultStore(request.output, asked)
    pictures = PictureBook(request.output / "pictures")

    def score(loaded: LoadedCase) -> Iterator[Sequence[Row] | Unscored]:
        for result in evaluate_case(session, loaded, request.protocol):
            if isinstance(result, StructureResult):
                pictures.add(loaded, result, session.window)
            yield result.rows if isinstance(result, StructureResult) else result

    score_missing(cases, store, score)
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


def score_missing(
    cases: Sequence[Case], store: ResultStore, score: Callable[[LoadedCase], Iterable[Sequence[Row] | Unscored]]
) -> None:
    """Scores the cases that the store lacks, one after the other; `score` gives what became of each structure."""
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
                for count, result in enumerate(score(loaded), start=1):
                    if isinstance(result, Unscored):
                        problems.append(result.reason)
                    else:
                        rows += result
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


def asked_of(protocol: Protocol, model: LoadedModel, options: SessionOptions) -> dict[str, Any]:
    """Everything that the numbers depend on."""
    return {
        **asdict(protocol),
        "model": model.name,
        "model_sha256": model.sha256,
        "session": {**asdict(options), "cache_bytes": None, "encoder_batch": None},  # these two change only the speed
        "device": model.network.device.type,
        "version": __version__,
    }


def _told(protocol: Protocol, options: SessionOptions) -> str:
    where = f"the {protocol.slice} slice" if protocol.every is None else f"{protocol.every:.0%} of the slices"
    zoom = "whole slice" if options.zoom is None else f"zoom {options.zoom:g}"
    corrected = f", then {protocol.corrections} corrections by {protocol.correct_with}" if protocol.corrections else ""
    axes = f"; {protocol.orientations} orientations" if protocol.orientations > 1 else ""
    seen = f"window {protocol.window}; {zoom}; memory {options.memory}{axes}"
    return f"prompt: {protocol.prompt} on {where}{corrected}; {seen}"
