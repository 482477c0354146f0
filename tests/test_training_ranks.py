"""Two processes, as torchrun starts them, train one network: with the weights that one process finds."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest
import torch
from squares import TRAIN, VALIDATION, config, curves, same, tiny
from test_training_resilience import without_batchnorm

import ggo_lab as gl
from ggo_lab.storage import write_whole
from ggo_lab.training import checkpoints
from ggo_lab.training.ranks import joined, rank_and_size

SETTINGS = {"optimizer": "sgd", "batch_size": 12, "max_epochs": 4, "lr": 1e-2, "balance": "loss", "rotate": 5}


# Of each kind of network, to be trained by one process and by two.
NETWORKS = {"plain": without_batchnorm, "batchnorm": tiny}


def run(folder, epochs=4, checkpoint=None, network="plain"):
    model = NETWORKS[network]()
    history = gl.fit(model, TRAIN, VALIDATION, config(**{**SETTINGS, "max_epochs": epochs}), False, checkpoint)
    rank, size = rank_and_size()
    torch.save([copied(model), history.table.to_dict("list")], folder / f"{network}-{size}-{rank}.pt")
    return model, history


def copied(model):
    return {name: value.clone() for name, value in model.state_dict().items()}


@pytest.fixture(scope="module")
def two_processes(tmp_path_factory):
    """A folder with what two processes have found."""
    tests = Path(__file__).parent
    places = {**os.environ, "PYTHONPATH": f"{tests.parent}{os.pathsep}{tests}", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", __file__]
    folder = tmp_path_factory.mktemp("ranks")
    ended = subprocess.run([*command, folder], env=places, capture_output=True, encoding="utf-8", errors="replace")
    assert ended.returncode == 0, ended.stderr
    return folder


@pytest.mark.parametrize("network", NETWORKS)
def test_two_processes_find_the_weights_of_one(two_processes, network):
    one, history = run(two_processes, network=network)
    found = [torch.load(two_processes / f"{network}-2-{rank}.pt") for rank in (0, 1)]
    assert same(found[0][0], found[1][0]), "ranks agree, on BatchNorm's running averages too"
    for name, value in one.state_dict().items():
        torch.testing.assert_close(found[0][0][name], value, rtol=1e-4, atol=1e-5)
    table = pd.DataFrame(found[0][1]).drop(columns="seconds")
    pd.testing.assert_frame_equal(curves(history), table, rtol=1e-3)


def test_two_processes_go_on_from_a_checkpoint_to_the_same_bits(two_processes):
    whole, resumed = (torch.load(two_processes / part / "batchnorm-2-1.pt")[0] for part in ("", "resumed"))
    assert same(whole, resumed)


def test_alone_there_is_one_rank(monkeypatch):
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    with joined():
        assert rank_and_size() == (0, 1)


def test_batches_too_small_for_the_ranks_are_refused(monkeypatch):
    monkeypatch.setattr("ggo_lab.training.checks.rank_and_size", lambda: (0, 4))
    with pytest.raises(gl.ChoiceError, match="batch_size=6 is shared by 4 processes"):
        gl.fit(without_batchnorm(), TRAIN, VALIDATION, config(batch_size=6), False)


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    (folder / "resumed").mkdir(exist_ok=True)
    with joined():
        assert rank_and_size()[1] == 2
        for each in NETWORKS:
            run(folder, network=each)
        checkpoints.write_whole = lambda *what: (time.sleep(0.5), write_whole(*what))  # a slow disk
        for epochs in (2, 4):
            run(folder / "resumed", epochs, folder / "checkpoint", "batchnorm")
