"""One case of `medsam2 batch`, wherever it is worked on. A worker process loads the model once. No torch at the top level:
a process is told its share of the machine before it is loaded."""

from __future__ import annotations

import functools
import threading
import time
import traceback
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from MedSAM2Lib.batch.records import CaseResult, FoundObject, Records
from MedSAM2Lib.cli.console import silenced
from MedSAM2Lib.cli.engine import Engine, load_any_engine
from MedSAM2Lib.cli.failures import message_of
from MedSAM2Lib.cli.inputs import Request, read_inputs
from MedSAM2Lib.errors import CheckpointError, EngineError
from MedSAM2Lib.version import __version__

if TYPE_CHECKING:
    from MedSAM2Lib.checkpoints.loading import LoadedModel, LoadedSAM

__all__ = ["CaseTask", "perform"]

# A worker of a cluster may run several tasks in threads: they share one model and one device.
_ONE_AT_A_TIME = threading.Lock()


@dataclass(frozen=True)
class CaseTask:
    """All that a worker needs to know of a case. Paths are absolute."""

    name: str
    request: Request
    asked: str  # SHA-256 of everything that the result depends on
    records: Records
    weights_sha256: str  # the worker may have its own copy
    version: str = __version__
    debug: bool = False  # print a traceback of what goes wrong, where it goes wrong

    @property
    def outputs(self) -> list[Path]:
        return [path for path in (self.request.output, self.request.preview, self.request.report) if path is not None]


def perform(task: CaseTask) -> CaseResult:
    """Segments a case as `medsam2 segment` does. Whatever goes wrong is in the result."""
    begun = time.perf_counter()
    with _ONE_AT_A_TIME, silenced() as warnings:
        try:
            # An answer that was lost with its worker is still in the records.
            return task.records.finished(task.name, task.asked) or _segmented(task, warnings)
        except Exception as error:
            if task.debug:
                traceback.print_exc()
            return CaseResult(task.name, time.perf_counter() - begun, (), tuple(warnings), message_of(error))


def _segmented(task: CaseTask, warnings: list[str]) -> CaseResult:
    begun = time.perf_counter()
    if task.version != __version__:
        raise EngineError(f"The batch was started by MedSAM2 {task.version}, but the worker has {__version__}; install the same.")
    task.records.check_free(task.name, task.outputs)
    inputs = read_inputs(task.request)
    from MedSAM2Lib.cli.segmentation import segment

    task.records.start(task.name, task.asked)
    outcome = segment(task.request, inputs, {}, begun, functools.partial(_load, sha256=task.weights_sha256))
    objects = tuple(FoundObject(one.name, one.volume_ml, one.confidence) for one in outcome.summaries)
    result = CaseResult(task.name, time.perf_counter() - begun, objects, tuple(warnings))
    task.records.finish(result, task.asked, task.outputs)
    return result


@functools.lru_cache(maxsize=1)
def _load(engine: Engine, sha256: str) -> LoadedModel | LoadedSAM:
    model = load_any_engine(engine)
    if model.sha256 != sha256:
        raise CheckpointError(f"The worker's weights of {engine.model} are not those of the batch; copy the same file to both.")
    return model
