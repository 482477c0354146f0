import numpy as np
import pandas as pd
import pytest
import torch
from scipy.stats import spearmanr

import ggo_lab as gl
from ggo_lab.backbones import PHANTOM_WEIGHTS
from ggo_lab.backbones.slice_reader import reader_network

# Most that one patient, and slices on average, are read wrong, in points of involvement. MobileNet has a seventh of
# ResNet-18's parameters, SqueezeNet a fifteenth and no BatchNorm.
AT_MOST = {"resnet18": (0.13, 0.10), "mobilenet_v3_small": (0.20, 0.15), "squeezenet1_0": (0.25, 0.18)}


@pytest.fixture(scope="module")
def patients() -> list[gl.Scan]:
    return [
        gl.make_phantom(involvement=involvement, seed=900 + seed, shape=(32, 128, 128))
        for seed, involvement in enumerate((0.0, 0.15, 0.4, 0.6, 0.85))
    ]


@pytest.mark.parametrize("network", PHANTOM_WEIGHTS)
def test_slices_of_patients_that_it_has_not_seen_are_read_each_lung_for_itself(network, patients):
    said, true = [], []
    patient_at_most, slices_at_most = AT_MOST[network]
    for scan in patients:
        table = gl.read_slices(scan, network=network)
        for side in ("right", "left"):
            lung = scan.truth.masks[f"{side}_lung"] & scan.truth.lungs
            there = lung[table["slice"]].sum(axis=(1, 2))
            share = (lung & scan.truth.lesions)[table["slice"]].sum(axis=(1, 2)) / np.maximum(there, 1)
            said += table[side][there > 100].tolist()
            true += share[there > 100].tolist()
        assert abs(gl.added(table) - scan.truth.involvement) < patient_at_most
    assert spearmanr(said, true).statistic > 0.85
    assert np.abs(np.subtract(said, true)).mean() < slices_at_most


def test_what_learnt_in_the_wide_world_holds_where_the_other_takes_breath_for_disease():
    thorax = gl.real_scans()[0].scan  # breathing freely, no COVID-19
    said = {
        world: gl.added(gl.read_slices(thorax, network="squeezenet1_0", world=world)) for world in ("people", "wide")
    }
    assert said["wide"] < said["people"] - 0.1
    shallow = [gl.make_phantom(involvement=i, seed=77, shape=(40, 128, 128), world="wide") for i in (0.0, 0.3, 0.7)]
    read = [gl.added(gl.read_slices(scan, world="wide")) for scan in shallow]
    assert read == sorted(read) and read[0] < 0.25


def test_each_slice_is_read_between_its_neighbours_in_the_wide_world():
    scan = gl.make_phantom(involvement=0.4, seed=5, shape=(32, 96, 96))
    few, many = gl.read_slices(scan, 3, world="wide"), gl.read_slices(scan, 9, world="wide")
    both = few.merge(many, on="slice", suffixes=("_few", "_many"))
    assert len(both) == 3, "the three are among the nine"
    np.testing.assert_allclose(both["right_few"], both["right_many"], atol=1e-5)


@pytest.mark.parametrize(("lung", "ill"), [(0.5, 0.5), (0.05, 0.0)], ids=["half lung", "border"])
def test_places_that_hold_next_to_no_lung_do_not_count_as_ill_in_the_wide_world(lung, ill):
    counted = reader_network("squeezenet1_0", "wide").eval().classifier[3]
    shares = torch.full((1, 2, 6, 1, 2), lung)  # involvement, lung; six slices and lungs; two places
    shares[0, 0, :, 0] = torch.tensor([0.9, 0.1])
    said = counted(shares.logit().flatten(1, 2)).sigmoid().view(2, 6)
    torch.testing.assert_close(said[0], torch.full((6,), ill), atol=1e-5, rtol=0)
    torch.testing.assert_close(said[1], torch.full((6,), lung))


def test_other_worlds_are_refused():
    scan = gl.make_phantom(seed=1, shape=(8, 32, 32))
    with pytest.raises(gl.ChoiceError, match="world='flat' is not known; choose one of 'people', 'wide'"):
        gl.read_slices(scan, world="flat")
    with pytest.raises(gl.ChoiceError, match="squeezenet1_0"):
        gl.read_slices(scan, network="resnet18", world="wide")


def test_numbers_of_slices_that_do_not_make_threes_are_refused():
    scan = gl.make_phantom(seed=1, shape=(8, 32, 32))
    with pytest.raises(gl.ChoiceError, match="n=10 slices"):
        gl.read_slices(scan, n=10)
    with pytest.raises(gl.ChoiceError, match="vgg11_bn"):
        gl.read_slices(scan, network="vgg11_bn")


def test_adding_weighs_each_slice_by_its_lung():
    table = pd.DataFrame({"right": [1.0, 0.0], "left": [0.5, 0.0], "right_lung": [0.1, 0.3], "left_lung": [0.2, 0.4]})
    assert gl.added(table) == pytest.approx((0.1 + 0.1) / 1.0)
