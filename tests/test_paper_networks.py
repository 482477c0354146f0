"""Each of the paper's nine networks is trained, stops on a plateau, and comes back from its file."""

import warnings

import numpy as np
import pytest
import torch
from squares import squares

import ggo_lab as gl
from ggo_lab.backbones import RandomWeightsWarning
from ggo_lab.course import PAPER_NETWORKS

# What learns: the head where random frozen layers leave features that it can use; more where they do not.
EXTENTS = dict.fromkeys(PAPER_NETWORKS, "head")
EXTENTS |= dict.fromkeys(("alexnet", "resnet152", "wide_resnet101_2", "densenet201"), "last_block")
EXTENTS |= dict.fromkeys(("squeezenet1_0", "densenet121", "inception_v3"), "all")


def resized(images, size):
    pixels = torch.nn.functional.interpolate(torch.from_numpy(images.pixels), (size, size)).numpy()
    return gl.images.ImageSet(pixels, images.table, gl.Recipe(size=size))


@pytest.mark.parametrize("name", PAPER_NETWORKS)
def test_a_network_of_the_paper_learns_stops_on_a_plateau_and_is_reloaded(name, tmp_path):
    spec = gl.BACKBONES[name]
    size = max(spec.least_size, spec.step, 64 if name in ("alexnet", "vit_b_32") else 32)
    train, validation = (resized(squares(n, split), size) for n, split in ((16, "train"), (8, "validation")))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RandomWeightsWarning)
        model = gl.build_backbone(name, EXTENTS[name], weights=None)
    auxiliary = {key: value.clone() for key, value in model.state_dict().items() if "AuxLogits.fc" in key}
    settings = gl.TrainConfig(lr=1e-2 if EXTENTS[name] == "head" else 1e-3, max_epochs=40, patience=2, speed="plain")
    history = gl.fit(model, train, validation, settings, progress=False)
    table = history.table
    assert history.stopped_early and len(table) < 40
    assert table["validation_loss"].iloc[-2:].min() >= table["validation_loss"].iloc[:-2].min()
    assert table["train_loss"].min() < 0.9 * table["train_loss"].iloc[0], "nothing was learnt"
    kept = table.loc[table["best"]].iloc[0]
    assert kept["validation_accuracy"] == table["validation_accuracy"].max()
    for key, before in auxiliary.items():
        assert not torch.equal(before, model.state_dict()[key]), "the auxiliary loss taught nothing"

    file = gl.save_model(model, tmp_path / "model", history)
    reloaded = gl.load_model(file)
    file.unlink()  # half a gigabyte of some
    found = gl.predict(reloaded, validation)
    assert np.allclose(found.probabilities, gl.predict(model, validation).probabilities, atol=1e-4)
    assert (found.predicted == validation.labels).mean() == pytest.approx(kept["validation_accuracy"])


def test_there_are_nine_and_inception_has_its_auxiliary_loss():
    assert len(PAPER_NETWORKS) == 9 == len(set(PAPER_NETWORKS)) and set(PAPER_NETWORKS) <= set(gl.BACKBONES)
    assert gl.build_backbone("inception_v3", weights=None).network.AuxLogits is not None
