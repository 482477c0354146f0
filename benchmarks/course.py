"""Execute every notebook as a learner does: seconds, processor seconds and memory of each kernel (Linux only).

    python benchmarks/course.py [--quick] [--minutes 12] [NAME ...]     # NAME such as 03; default: all notebooks

--quick: the notebook on nine networks takes few scans and small images, as in `make test`. --minutes: begin none later.
Beginning with an empty cache, so the first notebooks also make what later ones find. Processor seconds are those of the
kernel and the processes that it starts; memory is the most that the kernel itself held.
"""

import argparse
import os
import tempfile
import time
from pathlib import Path

import nbformat
import psutil
from nbclient.exceptions import CellExecutionError, CellTimeoutError, DeadKernelError
from results import Results

from ggo_lab.course.kernels import notebook_client

NOTEBOOKS = Path(__file__).parents[1] / "notebooks"
CELL_SECONDS = 600


def execute(path: Path) -> tuple[float, float, float, str]:
    """Run a notebook: seconds, processor seconds, the kernel's memory in MB, and what went wrong."""
    client = notebook_client(nbformat.read(path, as_version=4), path.parent, CELL_SECONDS)
    start, wrong = time.perf_counter(), ""
    with client.setup_kernel():
        kernel = psutil.Process(client.km.provisioner.process.pid)
        try:
            for number, cell in enumerate(client.nb.cells):
                client.execute_cell(cell, number)
        except (CellExecutionError, CellTimeoutError, DeadKernelError) as error:
            wrong = f"**cell {number}: {str(error).strip().splitlines()[-1][:100]}**"
        return time.perf_counter() - start, *_taken(kernel), wrong


def _taken(kernel: psutil.Process) -> tuple[float, float]:
    """Processor seconds of the kernel and its children, living or not, and the most memory of the kernel, MB."""
    try:
        seconds = sum(sum(process.cpu_times()[:4]) for process in [kernel, *kernel.children(recursive=True)])
        lines = Path(f"/proc/{kernel.pid}/status").read_text().splitlines()
    except (psutil.Error, OSError):  # it died
        return 0.0, 0.0
    return seconds, next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 1024


def main(names: list[str], minutes: float, quick: bool) -> None:
    found, start = Results("course"), time.perf_counter()
    if quick:
        os.environ["GGO_LAB_QUICK"] = "1"
    found.table("The course, an empty cache at first", ["notebook", "s", "processor s", "memory, MB", ""])
    paths = [path for path in sorted(NOTEBOOKS.glob("*.ipynb")) if not names or path.name.startswith(tuple(names))]
    totals, left_out = [0.0, 0.0], []
    with tempfile.TemporaryDirectory() as cache:
        os.environ["GGO_LAB_CACHE"] = cache
        for path in paths:
            if time.perf_counter() - start > 60 * minutes:
                left_out.append(path.stem)
                continue
            *taken, wrong = execute(path)
            totals = [total + seconds for total, seconds in zip(totals, taken, strict=False)]
            found.row(path.stem, *taken, wrong)
    found.row("together", *totals, None, "")
    if quick:
        found.note("The notebook on nine networks in its quick form: few scans, small images.")
    if left_out:
        found.note(f"Left out, for {minutes:g} minutes were over: {', '.join(left_out)}.")
    found.write()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", help="how the notebooks' names begin")
    parser.add_argument("--minutes", type=float, default=float("inf"), help="begin no notebook after so many")
    parser.add_argument("--quick", action="store_true", help="few scans for the notebook on nine networks")
    arguments = parser.parse_args()
    main(arguments.names, arguments.minutes, arguments.quick)
