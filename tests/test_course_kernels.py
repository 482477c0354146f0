import asyncio
from queue import Empty

import nbformat
import pytest
from jupyter_client.channels import AsyncZMQSocketChannel
from nbclient.exceptions import CellTimeoutError

from ggo_lab.course import kernels


def test_an_answer_that_wakes_nobody_is_found_all_the_same(tmp_path, monkeypatch):
    asked, real = [], AsyncZMQSocketChannel.get_msg

    async def deaf(self, timeout=None):
        """Wait on the shell channel without looking, but for every second time."""
        if isinstance(self, kernels._Asking):
            asked.append(timeout)
        if isinstance(self, kernels._Asking) and len(asked) % 2:
            await asyncio.sleep(timeout)
            raise Empty
        return await real(self, timeout)

    monkeypatch.setattr(kernels, "_ASK_AGAIN_S", 0.1)
    monkeypatch.setattr(AsyncZMQSocketChannel, "get_msg", deaf)
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("1 + 1"), nbformat.v4.new_code_cell("2 + 2")])
    kernels.notebook_client(notebook, tmp_path, cell_seconds=60).execute()
    assert [cell.outputs[0].data["text/plain"] for cell in notebook.cells] == ["2", "4"]
    assert len(asked) >= 4


def test_a_cell_that_takes_too_long_is_given_up(tmp_path, monkeypatch):
    monkeypatch.setattr(kernels, "_ASK_AGAIN_S", 0.2)
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("import time\ntime.sleep(60)")])
    with pytest.raises(CellTimeoutError):
        kernels.notebook_client(notebook, tmp_path, cell_seconds=1).execute()
