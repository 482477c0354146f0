"""The same seed on another number of threads: sums are added in another order, and results stay close."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from squares import copied, curves, quick, tiny

import ggo_lab as gl
from ggo_lab.training.devices import device_name


def learn(threads, file):
    """Train with so many threads; store the curves, and what was learnt."""
    torch.set_num_threads(threads)
    found = []
    for model in (tiny(), gl.build_backbone("resnet18", "head", weights=None)):
        before = copied(model)
        _, history = quick(model, optimizer="sgd", lr=1e-2, max_epochs=10)
        learnt = [(value - before[name]).flatten().double() for name, value in copied(model).items()]
        losses = curves(history)[["train_loss", "validation_loss"]].to_numpy()
        found.append((torch.cat(learnt), torch.from_numpy(losses)))
    torch.save(found, file)


@pytest.fixture(scope="module")
def one_and_two(tmp_path_factory):
    """What one thread and two threads find, of each network."""
    folder, tests = tmp_path_factory.mktemp("threads"), Path(__file__).parent
    places = {**os.environ, "PYTHONPATH": f"{tests.parent}{os.pathsep}{tests}"}
    for threads in ("1", "2"):
        command = [sys.executable, "-W", "ignore", __file__, threads, str(folder / threads)]
        ended = subprocess.run(command, env=places, capture_output=True, text=True, timeout=200)
        assert ended.returncode == 0, ended.stderr
    return list(zip(*(torch.load(folder / threads) for threads in ("1", "2")), strict=True))


@pytest.mark.parametrize("network", [0, 1], ids=["all layers", "head"])
def test_results_hardly_depend_on_the_number_of_threads(one_and_two, network):
    (learnt, losses), (as_learnt, same_losses) = one_and_two[network]
    torch.testing.assert_close(losses, same_losses, rtol=1e-4, atol=0)
    assert (learnt - as_learnt).norm() < 1e-3 * learnt.norm()


if __name__ == "__main__":
    learn(int(sys.argv[1]), sys.argv[2])


def test_the_name_of_a_device_counts_its_threads(monkeypatch):
    said = []
    for threads in (1, 2):
        monkeypatch.setattr(torch, "get_num_threads", lambda threads=threads: threads)
        said.append(device_name(torch.device("cpu")))
    assert said == ["cpu, 1 thread", "cpu, 2 threads"]
