"""Work on many scans in several processes, with a bar; the one way this package does so."""

from collections.abc import Callable, Iterator
from typing import TypeVar

import joblib
from joblib.externals.loky.process_executor import TerminatedWorkerError

from ggo_lab.errors import ChoiceError, GgoLabError, check_whole
from ggo_lab.progress import bar

Result = TypeVar("Result")
_WORTH_PROCESSES = 5  # starting processes takes seconds: not worth it for fewer scans


def check_jobs(jobs: object) -> int:
    """Return a number of workers as joblib counts them: -1 is one a core, -2 one fewer.

    Raises:
        ChoiceError: no whole number, or 0.
    """
    workers = check_whole("jobs", jobs, least=-1024)
    if workers == 0:
        raise ChoiceError("jobs=0 is no number of workers; give 1 or more, or -1 for one a core.", jobs)
    return joblib.effective_n_jobs(workers)


def for_each(
    function: Callable[..., Result], arguments: list[tuple], what: str, jobs: int | None, progress: bool
) -> Iterator[Result]:
    """Call function(*arguments[i]) for every i, and give the results in that order as they come.

    Args:
        function: what is called; it must be importable, so that other processes find it.
        arguments: of each call.
        what: the bar's title.
        jobs: processes (default: one per core). Runs through joblib: `joblib.parallel_config("dask")` moves it to a
            cluster.
        progress: show a bar.

    Raises:
        ChoiceError: a number of jobs that is none.
        GgoLabError: a process was killed from outside, most often for want of memory.
    """
    workers = joblib.cpu_count() if jobs is None else check_jobs(jobs)
    workers = 1 if len(arguments) < _WORTH_PROCESSES else workers
    made = joblib.Parallel(n_jobs=workers, return_as="generator")(joblib.delayed(function)(*a) for a in arguments)
    # Processes take seconds to start: the bar shows at once, and its estimate begins with the first result.
    delay = 2 if workers == 1 else 0
    try:
        with bar(len(arguments), what, delay=delay, disable=not progress) as shown:
            for i, result in enumerate(made):
                if not i:
                    shown.unpause()
                shown.update()
                yield result
    except TerminatedWorkerError as error:
        raise GgoLabError(
            f"One of {workers} processes was killed, most often because memory ran out; what was finished is kept. "
            "Call again with fewer, such as jobs=1.",
            workers,
        ) from error
