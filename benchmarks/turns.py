"""Contestants, a process each, which take turns: seconds, processor seconds and memory of every turn (Linux only).

What else runs on the machine then disturbs all of them alike, and none feels another's memory or threads.
"""

import ctypes
import gc
import multiprocessing
import platform
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from statistics import median
from typing import NamedTuple


class Turn(NamedTuple):
    """What one turn gave and took; memory is the most since the turns began, beyond what the process held before."""

    answer: object
    wall_s: float
    cpu_s: float
    memory_mb: float


class Clock:
    """In a contestant's process: waits for its turns and times them."""

    def __init__(self, pipe: Connection):
        self._pipe, self._start, self._before_mb = pipe, None, 0.0

    def next(self, answer: object = None) -> bool:
        """End the turn that runs, if one does, with what it gave; wait for the next. False when there is none."""
        if self._start is None:
            # Imports and what was made beforehand do not count, nor does memory that making it has left free.
            gc.collect()
            if platform.libc_ver()[0] == "glibc":
                ctypes.CDLL(None).malloc_trim(0)
            Path("/proc/self/clear_refs").write_text("5")
            self._before_mb = _memory_mb("VmRSS")
            self._pipe.send("ready")
        else:
            wall, cpu = (now() - then for now, then in zip(_CLOCKS, self._start, strict=True))
            self._pipe.send(Turn(answer, wall, cpu, _memory_mb("VmHWM") - self._before_mb))
        try:
            if not self._pipe.recv():
                return False
        except EOFError:  # another contestant failed, and the race is off
            raise SystemExit from None
        self._start = [now() for now in _CLOCKS]
        return True


_CLOCKS = (time.perf_counter, time.process_time)


def repeat(make: Callable[..., Callable[[], object]], *arguments: object) -> Callable[[Clock], None]:
    """Make a contestant of a function: `make(*arguments)` imports and prepares, what it returns is a turn."""
    return _Repeated(make, arguments)


class _Repeated(NamedTuple):
    make: Callable[..., Callable[[], object]]
    arguments: tuple

    def __call__(self, clock: Clock) -> None:
        run, answer = self.make(*self.arguments), None
        while clock.next(answer):
            answer = run()


def race(contestants: dict[str, Callable[[Clock], None]], rounds: int, warm_up: int = 1) -> dict[str, list[Turn]]:
    """Let contestants take turns.

    Args:
        contestants: each calls `clock.next` before every turn, and once more after the last.
        rounds: turns that count. warm_up: turns before them, of which only the memory counts.
    Returns: the turns of each.
    Raises:
        RuntimeError: one of them failed; its traceback was printed by its process.
    """
    start = multiprocessing.get_context("spawn")
    turns, processes, pipes = {name: [] for name in contestants}, [], {}
    try:
        for name, contestant in contestants.items():
            pipes[name], theirs = start.Pipe()
            processes.append(start.Process(target=_work, args=(contestant, theirs)))
            processes[-1].start()
            theirs.close()
            _answer(pipes[name], name)  # prepared, before the next one starts
        for _ in range(warm_up + rounds):
            for name, pipe in pipes.items():
                pipe.send(True)
                turns[name].append(_answer(pipe, name))
        for pipe in pipes.values():
            pipe.send(False)
    finally:
        for pipe in pipes.values():
            pipe.close()
        for process in processes:
            process.join()
    return {name: taken[warm_up:] for name, taken in turns.items()}


def alone(make: Callable[..., Callable[[], object]], *arguments: object, rounds: int = 1, warm_up: int = 0) -> Turn:
    """Measure one function in a process of its own: medians of its turns."""
    return middle(race({make.__name__: repeat(make, *arguments)}, rounds, warm_up)[make.__name__])


def middle(turns: list[Turn]) -> Turn:
    """The last answer with the medians of time, and the most memory."""
    wall, cpu = (median(values) for values in list(zip(*turns, strict=True))[1:3])
    return Turn(turns[-1].answer, wall, cpu, turns[-1].memory_mb)


def _work(contestant: Callable[[Clock], None], pipe: Connection) -> None:
    contestant(Clock(pipe))


def _answer(pipe: Connection, name: str) -> object:
    try:
        return pipe.recv()
    except EOFError:
        raise RuntimeError(f"{name} failed; see above.") from None


def _memory_mb(what: str) -> float:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(what)) / 1024
