"""What a notebook may cost, held while nbval runs it: `pytest -p tests.budgets --nbval-lax notebooks`.

A learner waits at most a minute for a notebook on two free cores, and the whole course takes at most a quarter of an
hour. Seconds on a clock are no measure where other programs share the cores, so what is held is the processor time of
the kernel: the minute, times the cores that a training keeps busy. Kernels whose threads wait in a loop look busier
than they are: set OMP_WAIT_POLICY=PASSIVE, as `make test` does. What is over budget fails the run at its end: a failure
while a notebook is being put away would take the next notebook with it.
"""

from pathlib import Path

import psutil
import pytest

SECONDS = 60.0  # on the clock, one notebook, warm
COURSE_SECONDS = 900.0  # all notebooks together
# Cores that a notebook keeps busy, of two: on free ones 59.8 s of processor time took 38.2 s, see
# benchmarks/results/course.json.
CORES = 1.6
# Cores without AVX-512 and 16-bit arithmetic took 1.4 times as long, and some of the cohorts are made here first.
SLOW = 1.5
TAKEN = "processor seconds and MB of a notebook's kernel"

spent: dict[str, tuple[float, float, float]] = {}  # notebook: clock, processor seconds, MB at most
_clock: dict[str, float] = {}


def over_budget() -> list[str]:
    """What took longer than it may, a sentence each."""
    everything = sum(processor for _, processor, _ in spent.values())
    took = {name: (processor, SECONDS) for name, (_, processor, _) in spent.items()}
    took["the course"] = everything, COURSE_SECONDS
    return [
        f"{what} took {seconds:.0f} s of processor time; {limit:.0f} s on {CORES} cores are the budget, and half again."
        for what, (seconds, limit) in took.items()
        if seconds > limit * CORES * SLOW
    ]


def _kernel(cell) -> psutil.Process | None:
    """The process that ran a cell of nbval; None for other tests, and for a kernel that died."""
    running = getattr(cell.parent, "kernel", None)
    try:
        return psutil.Process(running.km.provisioner.pid)
    except (AttributeError, psutil.Error):
        return None


def pytest_runtest_logreport(report) -> None:
    name = Path(report.nodeid.split("::")[0]).name
    _clock[name] = _clock.get(name, 0.0) + report.duration
    # Reports reach the process that prints from wherever the test ran; other words do not.
    if report.when == "teardown" and (taken := dict(report.user_properties).get(TAKEN)) is not None:
        spent[name] = _clock[name], *taken


def pytest_runtest_teardown(item, nextitem) -> None:
    """After a notebook's last cell, before its kernel is stopped, read what it took."""
    if (nextitem is not None and nextitem.parent is item.parent) or (kernel := _kernel(item)) is None:
        return
    used = kernel.cpu_times()
    processor = used.user + used.system + used.children_user + used.children_system
    item.user_properties.append((TAKEN, (processor, _peak_mb(kernel))))


def pytest_sessionfinish(session) -> None:
    if over_budget() and session.exitstatus == pytest.ExitCode.OK:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def _peak_mb(process: psutil.Process) -> float:
    try:
        status = Path(f"/proc/{process.pid}/status").read_text()
        return int(status.split("VmHWM:")[1].split()[0]) / 1024
    except (OSError, IndexError):  # not Linux
        return process.memory_info().rss / 2**20


def pytest_terminal_summary(terminalreporter) -> None:
    terminalreporter.section("notebooks: seconds on the clock, of processor time, MB at most")
    for name, (clock, processor, memory) in spent.items():
        terminalreporter.write_line(f"{name:<44} {clock:6.0f} {processor:6.0f} {memory:7.0f}")
    if spent:
        sums = [sum(column) for column in list(zip(*spent.values(), strict=True))[:2]]
        terminalreporter.write_line(f"{'all':<44} {sums[0]:6.0f} {sums[1]:6.0f}")
    for sentence in over_budget():
        terminalreporter.write_line(f"OVER BUDGET: {sentence}", red=True)
