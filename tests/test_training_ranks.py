"""Two processes, as torchrun starts them, train one network: with the weights that one process finds."""

import os
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
import torch
from squares import TRAIN, VALIDATION, config, curves, same
from test_training_resilience import without_batchnorm

import ggo_lab as gl
from ggo_lab.training.ranks import joined, rank_and_size

SETTINGS = {"optimizer": "sgd", "batch_size": 12, "max_epochs": 4, "lr": 1e-2, "balance": "loss", "rotate": 5}


def run(folder, epochs=4, checkpoint=None):
    model = without_batchnorm()
    history = gl.fit(model, TRAIN, VALIDATION, config(**{**SETTINGS, "max_epochs": epochs}), False, checkpoint)
    rank, size = rank_and_size()
    torch.save([copied(model), history.table.to_dict("list")], folder / f"{size}-{rank}.pt")
    return model, history


def copied(model):
    return {name: value.clone() for name, value in model.state_dict().items()}


def test_two_processes_find_the_weights_of_one(tmp_path):
    tests = Path(__file__).parent
    places = {**os.environ, "PYTHONPATH": f"{tests.parent}{os.pathsep}{tests}", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", __file__]
    ended = subprocess.run([*command, str(tmp_path)], env=places, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr
    one, history = run(tmp_path)
    found = [torch.load(tmp_path / f"2-{rank}.pt") for rank in (0, 1)]
    assert same(found[0][0], found[1][0]), "ranks agree"
    for name, value in one.state_dict().items():
        torch.testing.assert_close(found[0][0][name], value, rtol=1e-4, atol=1e-6)
    tables = [pd.DataFrame(table) for _, table in found]
    pd.testing.assert_frame_equal(curves(history), tables[0].drop(columns="seconds"), rtol=1e-4)
    resumed = torch.load(tmp_path / "resumed" / "2-1.pt")[0]
    assert same(resumed, found[1][0]), "from its checkpoint too"


def test_alone_there_is_one_rank(monkeypatch):
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    with joined():
        assert rank_and_size() == (0, 1)


def test_batches_too_small_for_the_ranks_are_refused(monkeypatch):
    monkeypatch.setattr("ggo_lab.training.setup.rank_and_size", lambda: (0, 4))
    with pytest.raises(gl.ChoiceError, match="batch_size=6 is shared by 4 processes"):
        gl.fit(without_batchnorm(), TRAIN, VALIDATION, config(batch_size=6), False)


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    (folder / "resumed").mkdir(exist_ok=True)
    with joined():
        assert rank_and_size()[1] == 2
        run(folder)
        run(folder / "resumed", 2, folder / "checkpoint")
        run(folder / "resumed", 4, folder / "checkpoint")
