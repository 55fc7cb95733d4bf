"""What `medsam2 ablation` does: from the manifest to the tables. Needs torch; imported when the command runs."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from MedSAM2Lib.atomic import atomic_path
from MedSAM2Lib.checkpoints.loading import LoadedModel
from MedSAM2Lib.cli.console import Progress, warn
from MedSAM2Lib.cli.engine import Engine, engine_of, load_engine, session_options
from MedSAM2Lib.cli.evaluation import asked_of, score_missing
from MedSAM2Lib.errors import OptionError, UsageError
from MedSAM2Lib.evaluation.ablation import STUDIES, Comparison, Study, compare, evaluate_variants, variants_of
from MedSAM2Lib.evaluation.ablation_report import around_marks, markdown, plot_comparisons, put_into_page
from MedSAM2Lib.evaluation.cases import LoadedCase, load_case
from MedSAM2Lib.evaluation.likeness import LIKENESS_VARIANTS, likeness_over_slices, likeness_table
from MedSAM2Lib.evaluation.manifest import Case, read_manifest, select_cases
from MedSAM2Lib.evaluation.rows import Row
from MedSAM2Lib.evaluation.run import Protocol, Unscored
from MedSAM2Lib.evaluation.store import ResultStore
from MedSAM2Lib.evaluation.summary import write_csv
from MedSAM2Lib.inference.session import Session

__all__ = ["Outcome", "Request", "ablate", "request_of"]

_SHA_SHOWN = 12  # characters


@dataclass(frozen=True)
class Request:
    """Everything that a person asked for."""

    manifest: Path
    output: Path
    cases: tuple[str, ...] | None
    studies: dict[str, Study]
    protocol: Protocol
    engine: Engine
    likeness: bool
    page: Path | None
    plot: Path | None


@dataclass(frozen=True)
class Outcome:
    tables: str  # Markdown
    written: list[Path]
    problems: list[str]  # what was not scored, and why


def request_of(args: argparse.Namespace) -> Request:
    """The request that the arguments of `medsam2 ablation` put. Raises OptionError."""
    names = tuple(STUDIES) if args.studies is None else _listed(args.studies)
    if unknown := [name for name in names if name not in STUDIES]:
        raise OptionError(f"Unknown study {', '.join(unknown)}: studies are {', '.join(STUDIES)}.")
    return Request(
        manifest=args.manifest,
        output=args.output,
        cases=None if args.cases is None else _listed(args.cases),
        studies={name: STUDIES[name] for name in names},
        protocol=Protocol(seed=args.seed),
        engine=engine_of(args),
        likeness=args.likeness,
        page=args.page,
        plot=args.plot,
    )


def ablate(request: Request) -> Outcome:
    # 1. The cases, the model, and what is there from an earlier run
    if request.page is not None:
        around_marks(request.page)  # before minutes of work for it
    cases = select_cases(read_manifest(request.manifest), request.cases)
    variants = variants_of(list(request.studies.values()))
    model = load_engine(request.engine)
    session = Session(model, session_options(request.engine, model))
    asked = {**asked_of(request.protocol, model, session.options), "variants": [asdict(variant) for variant in variants]}
    store = ResultStore(request.output, asked)

    # 2. The rest
    def score(loaded: LoadedCase) -> Iterator[Sequence[Row] | Unscored]:
        return evaluate_variants(session, loaded, request.protocol, variants)

    score_missing(cases, store, score)
    # 3. The tables and the plot
    results = store.results(cases)
    rows = [row for result in results for row in result.rows]
    problems = [problem for result in results for problem in result.problems]
    if not any(row.dice is not None for row in rows):
        raise UsageError(f"No structure of a volume was scored; see {request.output} and correct the manifest.")
    compared = {name: compare(rows, study, request.protocol.seed) for name, study in request.studies.items()}
    tables = markdown(compared, request.studies, _told(model, rows))
    if request.likeness:
        tables += "\n" + likeness_table(_likeness(session, cases, request.protocol))
    return Outcome(tables, _write(request, rows, compared, tables), problems)


def _likeness(session: Session, cases: Sequence[Case], protocol: Protocol) -> dict[str, list[list[float]]]:
    """Curves of every structure of the volumes, by variant."""
    curves: dict[str, list[list[float]]] = {variant.name: [] for variant in LIKENESS_VARIANTS}
    with Progress("likeness of memories", len(cases), "cases") as progress:
        for count, case in enumerate(cases, start=1):
            loaded = load_case(case)
            for variant in LIKENESS_VARIANTS if len(loaded.volume.array) > 1 else ():
                curves[variant.name] += likeness_over_slices(session, loaded, protocol, variant)
            progress.update(count, count)
    return curves


def _told(model: LoadedModel, rows: Sequence[Row]) -> str:
    keys = {(row.case, row.structure) for row in rows if row.dice is not None}
    volumes = {case for case, _ in keys}
    return (
        f"{model.name} (weights {model.sha256[:_SHA_SHOWN]}…), a box on one slice unless said otherwise; {len(keys)} structures "
        f"of {len(volumes)} volumes ({', '.join(sorted(volumes))}). Intervals are 95 % by bootstrap over cases and structures; "
        "better and worse are structures whose Dice differs by more than 0.005."
    )


def _write(request: Request, rows: Sequence[Row], compared: Mapping[str, Sequence[Comparison]], tables: str) -> list[Path]:
    """Tables, their place in a page, and the plot where matplotlib is there; returns what was written."""
    plot = request.plot or request.output / "ablation.png"
    written = [request.output / "ablation.csv", request.output / "ablation.md"]
    write_csv(written[0], rows)
    with atomic_path(written[1]) as temporary:
        temporary.write_text(tables, encoding="utf-8")
    if request.page is not None:
        put_into_page(request.page, tables)
        written.append(request.page)
    try:
        plot_comparisons(plot, compared, request.studies)
        written.append(plot)
    except ImportError:
        warn("the plot was left out: it needs matplotlib (pip install matplotlib); run the same command again afterwards.")
    return written


def _listed(text: str) -> tuple[str, ...]:
    return tuple(one.strip() for one in text.split(",") if one.strip())
