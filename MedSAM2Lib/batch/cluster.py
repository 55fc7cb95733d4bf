"""Tasks on a Dask cluster that somebody else has set up. Dask is optional; no torch here."""

from __future__ import annotations

import contextlib
import importlib
from collections.abc import Callable, Generator, Iterator, Sequence
from typing import Any, TypeVar

from MedSAM2Lib.errors import EngineError, OptionError

__all__ = ["run_on_cluster"]

Task = TypeVar("Task")
Result = TypeVar("Result")

_CONNECT_S = 15


def run_on_cluster(
    work: Callable[[Task], Result], tasks: Sequence[Task], address: str, on_wait: Callable[[], None]
) -> Generator[tuple[Task, Result | EngineError], None, None]:
    """Runs every task on the workers of a Dask scheduler; yields results as they come.

    A task whose worker dies gets another one, as often as the cluster's setting `allowed-failures` says; after that, and
    when a worker cannot run it, an EngineError is its result. Leaving early takes back what has not begun.

    work     a function that can be imported on every worker; it must not raise
    address  as `tcp://host:8786`
    on_wait  called where the scheduler has no worker yet

    Raises OptionError where Dask is missing, or no scheduler answers.
    """
    distributed = _import_distributed()
    with _connected(distributed, address) as client:
        if not client.scheduler_info()["workers"]:
            on_wait()
        futures = {client.submit(work, task, pure=False): task for task in tasks}
        try:
            for future in distributed.as_completed(list(futures)):
                yield futures.pop(future), _result_of(future)
            for task in futures.values():  # Dask forgets what was asked of a scheduler that is gone
                yield task, EngineError("The connection to the scheduler was lost; run the same command again when it is back.")
        finally:
            client.cancel(list(futures))


def _result_of(future: Any) -> Any:
    try:
        return future.result()
    except Exception as error:
        told = " ".join(str(error).split()) or "no message"
        return EngineError(f"The cluster could not run it ({type(error).__name__}: {told}); see the log of its workers.")


def _import_distributed() -> Any:
    try:
        return importlib.import_module("distributed")
    except ImportError as error:
        raise OptionError(
            f'--scheduler needs Dask, which is not installed ({error}): pip install "dask[distributed]"; or use --jobs.'
        ) from error


@contextlib.contextmanager
def _connected(distributed: Any, address: str) -> Iterator[Any]:
    try:
        client = distributed.Client(address, timeout=_CONNECT_S)
    except (OSError, ValueError) as error:
        raise OptionError(
            f"No Dask scheduler answers at {address} ({' '.join(str(error).split())}); start one with `dask scheduler`, and give "
            "the address that it prints, as tcp://host:8786."
        ) from error
    with client:
        yield client
