"""Work on many scans in several processes, with a bar; the one way this package does so."""

from collections.abc import Callable, Iterator
from typing import TypeVar

import joblib
from joblib.externals.loky.process_executor import TerminatedWorkerError
from tqdm.auto import tqdm

from ggo_lab.errors import GgoLabError

Result = TypeVar("Result")
_WORTH_PROCESSES = 5  # starting processes takes seconds: not worth it for fewer scans


def for_each(
    function: Callable[..., Result], arguments: list[tuple], what: str, jobs: int | None, progress: bool
) -> Iterator[Result]:
    """Call function(*arguments[i]) for every i, and give the results in that order as they come.

    Args:
        what: the bar's title.
        jobs: processes (default: one per core). Runs through joblib: `joblib.parallel_config("dask")` moves it to a
            cluster.
    Raises:
        GgoLabError: a process was killed from outside, most often for want of memory.
    """
    workers = 1 if len(arguments) < _WORTH_PROCESSES else jobs or joblib.cpu_count()
    made = joblib.Parallel(n_jobs=workers, return_as="generator")(joblib.delayed(function)(*a) for a in arguments)
    try:
        yield from tqdm(made, what, len(arguments), delay=2, leave=False, disable=not progress)
    except TerminatedWorkerError as error:
        raise GgoLabError(
            f"One of {workers} processes was killed, most often because memory ran out; what was finished is kept. "
            "Call again with fewer, such as jobs=1.",
            workers,
        ) from error
