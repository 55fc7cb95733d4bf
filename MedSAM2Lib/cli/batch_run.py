"""What `medsam2 batch` does: from the table to the summary. The cases themselves are worked on elsewhere."""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import json
import os
from collections.abc import Generator, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from MedSAM2Lib.atomic import check_writable, make_folder
from MedSAM2Lib.batch.cluster import run_on_cluster
from MedSAM2Lib.batch.fingerprint import fingerprint
from MedSAM2Lib.batch.processes import run_on_processes
from MedSAM2Lib.batch.records import CaseResult, Records
from MedSAM2Lib.batch.shares import VISIBLE_GPUS, processor_count, shares
from MedSAM2Lib.batch.summary import write_summary
from MedSAM2Lib.batch.table import CaseLine, read_table
from MedSAM2Lib.checkpoints.store import sha256_of, weights_path
from MedSAM2Lib.cli.batch_case import CaseTask, perform
from MedSAM2Lib.cli.console import Progress, tell, warn
from MedSAM2Lib.cli.engine import at_least, engine_of
from MedSAM2Lib.cli.failures import message_of
from MedSAM2Lib.cli.inputs import Request, request_of
from MedSAM2Lib.cli.orientation import orientation_request
from MedSAM2Lib.errors import CheckpointError, EngineError, MedSAM2Error, OptionError, OutputError, PromptError, VolumeError
from MedSAM2Lib.lock import held
from MedSAM2Lib.prompt_files import MaskFile, PromptSet, to_json
from MedSAM2Lib.step_json import AddMaskFile
from MedSAM2Lib.version import __version__

__all__ = ["Outcome", "run_batch"]


@dataclass(frozen=True)
class Outcome:
    """What became of the cases, in the order of the table."""

    results: list[CaseResult]
    done_before: int
    summary: Path


def run_batch(args: argparse.Namespace) -> Outcome:
    """Does what is missing. Raises MedSAM2Error where the request as a whole cannot be met, before anything is segmented."""
    # 1. What is asked
    lines = read_table(args.cases)
    options = _checked(args)
    weights = _hash_of_weights(options.model)
    folder = args.output.absolute()
    with _alone_in(folder):
        # 2. What is wrong, what is finished, what is to be done
        tasks, results = _sorted_out(lines, options, Records(folder), weights)
        done_before = sum(result.error is None for result in results.values())
        if done_before:
            tell(f"{done_before} of {len(lines)} cases were finished before")
        # 3. The cases, wherever; after an interruption the summary has those that were finished
        names, summary = [line.name for line in lines], folder / "summary.csv"
        try:
            if tasks:
                _collect(_running(options, tasks), len(tasks), results)
        finally:
            write_summary(summary, names, results)
    return Outcome([results[name] for name in names], done_before, summary)


# ── what is asked ─────────────────────────────────────────────────────────────────────────────────────────────────


def _checked(args: argparse.Namespace) -> argparse.Namespace:
    """The options that all cases share, with a model that other folders find, too. Raises OptionError."""
    if args.scheduler is not None and args.jobs is not None:
        raise OptionError("--jobs is for this machine, --scheduler for a cluster with workers of its own; leave one out.")
    at_least("--jobs", args.jobs, 1)
    at_least("--stop-after", args.stop_after, 0)
    model = str(Path(args.model).absolute()) if Path(args.model).is_file() else args.model
    options = argparse.Namespace(**{**vars(args), "model": model, "range": None, "uncertainty": None})
    engine_of(options)
    orientation_request(options)
    return options


def _hash_of_weights(model: str) -> str:
    path = weights_path(model)
    try:
        with path.open("rb") as stream:
            return sha256_of(stream)
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read ({error.strerror}); give a checkpoint, or a model's id.") from error


@contextlib.contextmanager
def _alone_in(folder: Path) -> Iterator[None]:
    """Makes the folder where it is missing. Raises OutputError where it cannot be used, or another batch uses it."""

    def refuse() -> None:
        raise OutputError(f"Another batch is working in {folder}; wait until it is done, or choose another folder.")

    records = folder / "records"
    make_folder(records)
    with held(records / "lock", refuse):
        check_writable(folder / "summary.csv")
        yield


def _sorted_out(
    lines: Sequence[CaseLine], options: argparse.Namespace, records: Records, weights: str
) -> tuple[list[CaseTask], dict[str, CaseResult]]:
    """Cases that are to be done, and the results of those that are finished or cannot be begun, by name."""
    tasks: list[CaseTask] = []
    results: dict[str, CaseResult] = {}
    for line in lines:
        try:
            task = _task(line, options, records, weights)
        except (MedSAM2Error, OSError) as error:
            _note(results, CaseResult(line.name, 0.0, error=message_of(error)))
            continue
        if (result := records.finished(task.name, task.asked)) is not None:
            results[line.name] = result
        else:
            tasks.append(task)
    return tasks, results


def _task(line: CaseLine, options: argparse.Namespace, records: Records, weights: str) -> CaseTask:
    """What a line asks for, put as `medsam2 segment` takes it. Raises MedSAM2Error."""
    if line.image is None:
        raise VolumeError("The case has no image; write its path in the column 'image'.")
    if not line.image.exists():
        raise VolumeError(f"{line.image} does not exist; correct the path, which is relative to the table.")
    if line.boxes and line.prompts is not None:
        raise PromptError("The case has both boxes and a file of prompts; leave one out, or write the boxes into the file.")
    if not line.boxes and line.prompts is None:
        raise PromptError("The case has neither a box nor a file of prompts; fill in the column 'box' or 'prompts'.")
    folder = records.folder
    of_case = {
        "image": line.image,
        "series": line.series,
        "prompts": line.prompts,
        "prompt_texts": tuple(("--box", box) for box in line.boxes),
        "output": folder / f"{line.name}.{options.format}",
        "preview": folder / f"{line.name}.png" if options.previews else None,
        "report": folder / f"{line.name}.json" if options.reports else None,
    }
    request = request_of(argparse.Namespace(**{**vars(options), **of_case}))
    return CaseTask(line.name, request, _digest(request, weights), records, weights, debug=options.debug)


def _digest(request: Request, weights: str) -> str:
    """SHA-256 of everything that the results depend on; not of where and how fast they are made."""
    folder = (request.prompts_file or request.image).parent
    content = asdict(replace(request, prompts=PromptSet(), prompts_file=None))
    content |= {
        "image": fingerprint(request.image),
        "prompts": to_json(request.prompts, folder),
        "masks": [fingerprint(path) for path in _mask_files(request.prompts)],
        "engine": {**content["engine"], "model": weights, "device": None, "threads": None},
        "version": __version__,
    }
    return hashlib.sha256(json.dumps(content, sort_keys=True, default=lambda path: path.name).encode()).hexdigest()


def _mask_files(prompts: PromptSet) -> list[Path]:
    """Those that are there; of a missing one the reader will say so."""
    files = [named.prompt.path for named in prompts.prompts if isinstance(named.prompt, MaskFile)]
    files += [step.mask.path for step in prompts.steps if isinstance(step, AddMaskFile)]
    return [path for path in files if path.exists()]


# ── who does it ───────────────────────────────────────────────────────────────────────────────────────────────────

_Running = Generator[tuple[CaseTask, "CaseResult | EngineError"], None, None]


def _running(options: argparse.Namespace, tasks: Sequence[CaseTask]) -> _Running:
    if options.scheduler is not None:
        return run_on_cluster(
            perform, tasks, options.scheduler, on_wait=lambda: tell("the cluster has no workers yet; waiting for the first")
        )
    return run_on_processes(perform, tasks, _local_shares(min(options.jobs or 1, len(tasks)), options.device))


def _local_shares(jobs: int, device: str) -> list[dict[str, str]]:
    """The environment of each process here. Raises OptionError for a device that this machine lacks."""
    alone = device == "auto" and jobs == 1
    return shares(jobs, processor_count(), () if device == "cpu" or alone else _gpus(device))


def _gpus(device: str) -> Sequence[str]:
    """Those that the processes may use, as CUDA names them."""
    import torch

    from MedSAM2Lib.device import choose_device

    if choose_device(device).type != "cuda":
        return ()
    named = os.environ.get(VISIBLE_GPUS)
    return named.split(",") if named else [str(number) for number in range(torch.cuda.device_count())]


def _collect(running: _Running, count: int, results: dict[str, CaseResult]) -> None:
    """Waits for the cases, and puts what came of them with the results."""
    with contextlib.closing(running), Progress("segmenting", count, "cases") as progress:
        for number, (task, came) in enumerate(running, start=1):
            result = CaseResult(task.name, 0.0, error=message_of(came)) if isinstance(came, EngineError) else came
            _note(results, result)
            progress.update(number, number)


def _note(results: dict[str, CaseResult], result: CaseResult) -> None:
    results[result.case] = result
    if result.error is not None:
        warn(f"{result.case}: {result.error}")
