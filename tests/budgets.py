"""What a notebook may cost, held while nbval runs it: `pytest -p tests.budgets --nbval-lax notebooks`.

A learner waits at most a minute for a notebook on two free cores. Seconds on a clock are no measure where other
programs share the cores, so what is held is the processor time of the kernel: two cores' worth of that minute. Kernels
whose threads wait in a loop look busier than they are: set OMP_WAIT_POLICY=PASSIVE, as `make test` does.
"""

from pathlib import Path

import psutil
import pytest

SECONDS, CORES = 60, 2
COURSE_SECONDS = 600  # all notebooks together
# Scans are made first where the cache is cold, and shared cores without 16-bit arithmetic are slow: what is held must
# hold there too.
SLOW = 1.5

spent: dict[str, tuple[float, float, float]] = {}  # notebook: clock, processor seconds, MB at most
_clock: dict[str, float] = {}


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


def pytest_runtest_teardown(item, nextitem) -> None:
    """After a notebook's last cell, before its kernel is stopped, read what it took."""
    if (nextitem is not None and nextitem.parent is item.parent) or (kernel := _kernel(item)) is None:
        return
    used = kernel.cpu_times()
    processor = used.user + used.system + used.children_user + used.children_system
    name = item.parent.path.name
    spent[name] = _clock.get(name, 0.0), processor, _peak_mb(kernel)
    allowed = {name: (processor, SECONDS)}
    if nextitem is None:
        allowed["the course"] = sum(seconds for _, seconds, _ in spent.values()), COURSE_SECONDS
    for what, (seconds, limit) in allowed.items():
        if seconds > limit * CORES * SLOW:
            pytest.fail(f"{what} took {seconds:.0f} s of processor time; {limit} s on {CORES} cores are the budget.")


def _peak_mb(process: psutil.Process) -> float:
    try:
        status = Path(f"/proc/{process.pid}/status").read_text()
        return int(status.split("VmHWM:")[1].split()[0]) / 1024
    except (OSError, IndexError):  # not Linux
        return process.memory_info().rss / 2**20


def pytest_terminal_summary(terminalreporter) -> None:
    terminalreporter.section("notebooks: seconds on the clock, of processor time, MB at most")
    for name, (clock, processor, memory) in spent.items():
        terminalreporter.write_line(f"{name:<36} {clock:6.0f} {processor:6.0f} {memory:7.0f}")
    if spent:
        sums = [sum(column) for column in list(zip(*spent.values(), strict=True))[:2]]
        terminalreporter.write_line(f"{'all':<36} {sums[0]:6.0f} {sums[1]:6.0f}")
