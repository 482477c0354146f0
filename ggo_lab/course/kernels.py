"""Notebooks executed one cell after another, as the website and the benchmarks need it."""

import time
from pathlib import Path
from queue import Empty
from typing import Any

from jupyter_client.asynchronous import AsyncKernelClient
from jupyter_client.channels import AsyncZMQSocketChannel
from nbclient import NotebookClient
from nbformat import NotebookNode
from traitlets import Type

_ASK_AGAIN_S = 5.0


class _Asking(AsyncZMQSocketChannel):
    """A channel that is asked again every few seconds.

    Otherwise some three in a hundred executions of a notebook stood still: the answer lay in the socket, but nothing
    woke its reader until the cell's time was over (jupyter_client 8.10, pyzmq 27.3; kernels lost wake-ups, too:
    https://github.com/ipython/ipykernel/pull/1529).
    """

    async def get_msg(self, timeout: float | None = None) -> dict[str, Any]:  # type: ignore[override]
        """Give the next message; Empty where none comes within so many seconds (None: any)."""
        end = float("inf") if timeout is None else time.monotonic() + timeout
        while True:
            left = max(0.0, end - time.monotonic())
            try:
                return await super().get_msg(min(_ASK_AGAIN_S, left))
            except Empty:
                if left <= _ASK_AGAIN_S:
                    raise


class _Client(AsyncKernelClient):
    shell_channel_class = Type(_Asking)


def notebook_client(notebook: NotebookNode, folder: Path, cell_seconds: int) -> NotebookClient:
    """Prepare a notebook's execution in a kernel of its own.

    Args:
        notebook: as nbformat reads it; outputs are put into its cells.
        folder: in which its code runs.
        cell_seconds: that a cell may take; a longer one raises CellTimeoutError.

    Returns:
        nbclient's client: `execute()` it, or do so cell by cell within `setup_kernel()`.
    """
    where = {"metadata": {"path": str(folder)}}
    client = NotebookClient(notebook, timeout=cell_seconds, kernel_name="python3", resources=where)
    client.create_kernel_manager().client_factory = _Client
    return client
