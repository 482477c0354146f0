"""Pitfalls: each that is planted is caught, and nothing is caught where nothing was planted."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from judged import predictions_of
from squares import config, tiny
from torch import nn

import ggo_lab as gl
from ggo_lab import pitfalls as pf


def image_set(seed=0, n=60, noise_in_corners=False):
    """Images whose middle brightens with the grade and whose corners are air, as CT is."""
    rng = np.random.default_rng(seed)
    label = rng.permutation(np.arange(n) % 4)
    pixels = np.zeros((n, 3, 32, 32), np.uint8)
    pixels[:, :, 8:24, 8:24] = rng.integers(0, 120, (n, 3, 16, 16)) + 30 * (1 + label)[:, None, None, None]
    if noise_in_corners:
        pixels[:, :, :5], pixels[:, :, -5:] = rng.integers(0, 9, (2, n, 3, 5, 32))
    names = [f"s{i}" for i in range(n)]
    split = np.array(["train", "validation", "test"])[np.searchsorted([0.6, 0.8], np.arange(n) / n, side="right")]
    table = pd.DataFrame({"name": names, "patient": names, "label": label, "split": split})
    return gl.images.ImageSet(pixels, table, gl.Recipe(size=32))


@pytest.mark.parametrize("step", [1, 60])
def test_a_label_pixel_is_caught_however_faint(step):
    images = image_set()
    leaked = pf.plant_label_pixel(images, step)
    found = pf.find_label_leak(leaked.train, leaked.test)
    assert found.caught and str(found).startswith("CAUGHT: from 4 x 4 pixels")
    assert images.pixels[:, :, -1, -1].max() == 0  # the switch works on a copy
    with pytest.raises(gl.ChoiceError, match="step=64"):
        pf.plant_label_pixel(images, 64)


def test_clean_corners_seldom_raise_the_alarm():
    assert not any(pf.find_label_leak(clean.train, clean.test).caught for clean in [image_set()])
    alarms = 0
    for seed in range(20):
        noisy = image_set(seed, noise_in_corners=True)
        alarms += pf.find_label_leak(noisy.train, noisy.test).caught
    assert alarms <= 2  # 1 of 100 is allowed
    with pytest.raises(gl.CohortError, match="two classes or more"):
        pf.find_label_leak(noisy.train, noisy.test.subset(slice(0, 1)))


@pytest.mark.parametrize("corner", [0, 17])
def test_corners_that_are_none_are_refused(corner):
    images = image_set()
    with pytest.raises(gl.ChoiceError, match=f"corner={corner} pixels do not fit 32 x 32 pixels; give 1 to 16"):
        pf.find_label_leak(images.train, images.test, corner)


@pytest.mark.parametrize("step", [1, 60])
def test_a_telling_pixel_is_found_wherever_it_lies(step):
    images = image_set(noise_in_corners=True)
    assert not pf.find_telling_pixel(images.train, images.test).caught
    rng = np.random.default_rng(1)
    images.pixels[:, 1, 20, 3] = step * (1 + images.labels)  # outside the corners, outside the body
    assert not pf.find_label_leak(images.train, images.test).caught
    found = pf.find_telling_pixel(images.train, images.test)
    assert found.caught and "row 20 and column 3 of channel 1 alone grades with a mean recall of 1.00" in str(found)
    order = rng.permutation(32 * 32)
    shuffled = replace(images, pixels=images.pixels.reshape(60, 3, -1)[:, :, order].reshape(images.pixels.shape))
    again = pf.find_telling_pixel(shuffled.train, shuffled.test)
    assert again.caught and again.sentence.split("alone")[1] == found.sentence.split("alone")[1]
    with pytest.raises(gl.CohortError, match="two classes or more"):
        pf.find_telling_pixel(images.train, images.test.subset(slice(0, 1)))


def fitted(images, learning_rate=3e-3):
    model = tiny()
    fit_to = config(max_epochs=25, patience=25, lr=learning_rate, flip=False)
    gl.fit(model, images.train, images.validation, fit_to, progress=False)
    return model


def test_a_network_that_reads_corners_is_caught_and_an_honest_one_is_not():
    honest = image_set(n=100)
    assert not pf.find_corner_reader(fitted(honest), honest.test).caught
    blank = honest.pixels.copy()
    blank[:, :, 8:24, 8:24] = 60
    blank[:, :, 1, 1] = 60 * (1 + honest.labels[:, None])  # nothing to learn from but the leak
    leaked = replace(honest, pixels=blank)
    found = pf.find_corner_reader(fitted(leaked), leaked.test)
    assert found.caught and "given the corners of other scans" in found.sentence
    unknown = replace(honest, table=honest.table.assign(label=pd.NA))
    with pytest.raises(gl.CohortError, match="known label"):
        pf.find_corner_reader(tiny(), unknown)


def test_a_split_by_slice_is_caught():
    images = image_set()
    dealt = pf.plant_slice_split(images, seed=1)
    assert len(dealt) == 180 and (dealt.pixels[:, 0] == dealt.pixels[:, 2]).all()
    assert np.array_equal(dealt.pixels[4, 0], images.pixels[1, 1]) and dealt.table["patient"][4] == "s1"
    assert dealt.table["split"].value_counts().to_dict() == {"train": 108, "validation": 36, "test": 36}
    assert pf.find_shared_patients(dealt).caught and not pf.find_shared_patients(images).caught


def test_duplicates_are_caught_stored_again_and_mirrored():
    images = image_set()
    assert not pf.find_duplicates(images).caught
    doubled = pf.plant_duplicates(images, 2, seed=0)
    found = pf.find_duplicates(doubled)
    assert len(doubled.test) == len(images.test) + 2 and "2 pairs" in found.sentence
    assert not pf.find_shared_patients(doubled).caught  # new names hide them from the table
    doubled.pixels[-1] = doubled.pixels[-1, ..., ::-1].copy()
    assert "2 pairs" in pf.find_duplicates(doubled).sentence
    with pytest.raises(gl.ChoiceError, match="n=99"):
        pf.plant_duplicates(images, 99)


@pytest.mark.parametrize(("slope", "intercept"), [(0.5, 0), (2, 0), (1, 1024), (1, -1024), (10, 0)])
def test_a_wrong_slope_or_intercept_is_caught(slope, intercept):
    scan = gl.make_phantom(grade=2, seed=0, shape=(16, 64, 64))
    assert not pf.find_wrong_slope(scan).caught
    assert pf.find_wrong_slope(pf.plant_wrong_slope(scan, slope, intercept)).caught


@pytest.mark.parametrize("file", ["cip_thorax/ct-64.nrrd", "elastix_right_lung/3DCT_lung.mha", "lungmask_slice/0.dcm"])
def test_real_scans_pass_and_their_spoilt_copies_do_not(real_data, file):
    scan = gl.read_scan(real_data / file)
    assert not pf.find_wrong_slope(scan).caught
    assert pf.find_wrong_slope(pf.plant_wrong_slope(scan)).caught
    assert pf.find_wrong_slope(pf.plant_wrong_slope(scan, 1, 1024)).caught


def predictions(true, said):
    names = [f"s{i}" for i in range(len(true))]
    return predictions_of(names, names, np.array(true), np.eye(4)[said])


def test_selecting_on_the_test_split_is_caught():
    validation = [predictions([0, 1, 2], [0, 1, 2]), predictions([0, 1, 2], [0, 0, 0])]
    test = [predictions([0, 1, 2], [0, 0, 0]), predictions([0, 1, 2], [0, 1, 0])]
    chosen = pf.plant_test_selection(test)
    assert chosen == 1 and pf.find_test_selection(validation, test, chosen).caught
    assert not pf.find_test_selection(validation, test, 0).caught
    assert not pf.find_test_selection(test, validation, 1).caught  # the first is best on the test split, but not chosen
    with pytest.raises(gl.ChoiceError, match="do not fit"):
        pf.find_test_selection(validation, test, 2)


def test_losses_that_are_not_the_mean_over_images_are_caught():
    losses, sizes = [1.0, 2.0, 6.0], [16, 16, 2]
    assert pf.find_wrong_loss(pf.plant_last_batch_loss(losses, sizes), losses, sizes).caught
    assert pf.find_wrong_loss(pf.plant_mean_of_batches(losses, sizes), losses, sizes).caught
    assert not pf.find_wrong_loss((16 + 32 + 12) / 34, losses, sizes).caught


def test_a_state_kept_without_a_copy_is_caught():
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))
    copied = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    kept = pf.plant_uncopied_state(model)
    nn.init.zeros_(model[0].weight)
    assert kept["0.weight"].abs().sum() == 0 and copied["0.weight"].abs().sum() > 0
    assert pf.find_uncopied_state(kept, model).caught and not pf.find_uncopied_state(copied, model).caught


def test_accuracy_by_the_commonest_grade_is_caught():
    true = np.repeat([0, 1, 2, 3], [10, 10, 40, 4])
    good = predictions(true, true)
    assert pf.find_accuracy_trap(gl.evaluate(pf.plant_majority(good), draws=50)).caught
    assert not pf.find_accuracy_trap(gl.evaluate(good, draws=50)).caught
    blind = np.where(true == 3, 2, true)  # 94% accurate, and no critical scan is ever found
    found = pf.find_accuracy_trap(gl.evaluate(predictions(true, blind), draws=50))
    assert found.caught and "None of the critical scans" in found.sentence
