import hashlib
import json

import numpy as np
import pytest

import ggo_lab as gl
from ggo_lab.curtain import CURTAIN_SEED, unseen
from ggo_lab.curtain.unseen import SHIPPED, every_phantom


def test_nobody_behind_the_curtain_is_in_a_cohort_or_twice_there():
    behind = every_phantom().table
    assert behind["patient"].is_unique and (behind["split"] == "test").all()
    for seed in (0, 1, CURTAIN_SEED - 1, CURTAIN_SEED + 1):
        cohort = gl.phantom_cohort(200, seed=seed).table
        assert not set(cohort["patient_seed"]) & set(behind["patient_seed"])
        assert not set(cohort["patient"]) & set(behind["patient"])


def test_images_are_those_of_their_scans_and_few_are_the_first_of_many():
    recipe = gl.Recipe(size=32, pick="lungs")
    images = gl.curtain.curtain_images(recipe, n=2)
    assert np.array_equal(images.pixels[1], recipe.cut(every_phantom().scan(1)).image())
    assert (
        images.table["name"].tolist() == every_phantom().names[:2] == gl.curtain.curtain_images(recipe, n=3).names[:2]
    )


@pytest.mark.parametrize("size", [48, 96, 224])
def test_shipped_images_are_those_of_their_scans_but_for_a_little_and_nothing_is_made(size, monkeypatch):
    recipe = gl.Recipe(size=size)
    cut = recipe.cut(every_phantom().scan(3))
    monkeypatch.setattr(unseen, "prepare", None)
    images = gl.curtain.curtain_images(recipe, n=5)
    assert images.table["slices"][3] == cut.slices and images.names == every_phantom().names[:5]
    error = images.pixels[3].astype(float) - cut.image()
    assert abs(error.mean()) < 0.5 and 0 < error.std() < 5  # grey values of 255


def test_what_is_shipped_is_what_the_record_says():
    record = json.loads((SHIPPED.parent / "made.json").read_text())
    assert hashlib.sha256(SHIPPED.read_bytes()).hexdigest() == record["sha256"]
    with np.load(SHIPPED) as stored:
        assert len(stored["ends"]) == record["phantoms"] >= 400
    assert SHIPPED.stat().st_size < 16e6


def test_more_than_there_are_cannot_be_had():
    with pytest.raises(gl.ChoiceError, match="n=2001 phantoms cannot be had"):
        gl.curtain.curtain_images(gl.Recipe(), n=2001)


def test_a_network_that_was_never_fitted_has_no_recipe_to_be_judged_by():
    with pytest.raises(gl.ModelError, match="has not been fitted"):
        gl.behind_the_curtain(gl.build_backbone("squeezenet1_0", weights=None))


def test_a_model_is_judged_with_its_own_recipe():
    model = gl.build_backbone("squeezenet1_0", weights=None)
    model.recipe = gl.Recipe(size=40)
    report = gl.behind_the_curtain(model, n=6)
    assert len(report.predictions) == 6
    low, high = report.interval()
    assert low <= report.macro_f1 <= high
