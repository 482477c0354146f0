"""Numbers and words of numpy, torch and pandas at every door: Python's own inside, or refused in one sentence."""

import dataclasses
import json
from decimal import Decimal
from fractions import Fraction

import numpy as np
import pandas as pd
import pytest
import torch
from squares import TRAIN

import ggo_lab as gl
from ggo_lab.course.simulated import simulated
from ggo_lab.evaluation import how_many_scans_needed
from ggo_lab.page import scan_html

WHOLE = {
    **{kind.__name__: kind(16) for kind in (np.int8, np.int16, np.int32, np.int64, np.uint8, np.uint16, np.uint64)},
    "array": np.array(16),
    "array of objects": np.array(16, dtype=object),
    "tensor": torch.tensor(16),
    "series": pd.Series([16])[0],
    "nullable": pd.array([16], "Int64")[0],
}
REAL = {
    **{kind.__name__: kind(0.25) for kind in (np.float16, np.float32, np.float64, np.longdouble)},
    "array": np.array(0.25),
    "tensor": torch.tensor(0.25),
    "tensor that learns": torch.tensor(0.25, requires_grad=True),
    "bfloat16": torch.tensor(0.25, dtype=torch.bfloat16),
    "Decimal": Decimal("0.25"),
    "Fraction": Fraction(1, 4),
}
WORDS = {
    "str_": np.str_,
    "array": np.array,
    "array of objects": lambda word: np.array(word, dtype=object),
    "category": lambda word: pd.Categorical([word])[0],
    "series": lambda word: pd.Series([word])[0],
}
SETTINGS = dataclasses.fields(gl.TrainConfig)


def of_type(kind):
    return [field.name for field in SETTINGS if type(field.default) is kind]


@pytest.mark.parametrize("kind", WHOLE)
def test_whole_numbers_of_any_kind_are_settings(kind):
    value = WHOLE[kind]
    for name in of_type(int):
        found = getattr(gl.TrainConfig(**{name: value}), name)
        assert type(found) is int and found == 16
    recipe = gl.Recipe(slices=value, size=value)
    assert repr(recipe) == repr(gl.Recipe(slices=16, size=16)) and json.dumps(recipe.to_dict())
    assert len(gl.phantom_cohort(value, seed=value)) == 16
    assert gl.build_backbone("squeezenet1_0", weights=None, slices=value, seed=value).spec.slices == 16
    assert gl.make_phantom(seed=value, shape=(8, 32, 32)).name == "phantom-16"


@pytest.mark.parametrize("kind", REAL)
def test_real_numbers_of_any_kind_are_settings(kind):
    for name in of_type(float):
        found = getattr(gl.TrainConfig(**{name: REAL[kind]}), name)
        assert type(found) is float and found == 0.25


@pytest.mark.parametrize("kind", WORDS)
def test_words_of_any_kind_are_settings(kind):
    word = WORDS[kind]
    for name in of_type(str):
        default = getattr(gl.TrainConfig(), name)
        assert type(getattr(gl.TrainConfig(**{name: word(default)}), name)) is str
    recipe = gl.Recipe(pick=word("middle"), crop=word("lungs"), window=word("lung"))
    assert repr(recipe) == repr(gl.Recipe(pick="middle", crop="lungs", window="lung"))


@pytest.mark.parametrize("yes", [np.bool_(True), np.array(True), torch.tensor(True), pd.array([True])[0]], ids=type)
def test_true_and_false_of_any_kind_are_settings(yes):
    for name in of_type(bool):
        assert getattr(gl.TrainConfig(**{name: yes}), name) is True


def test_a_device_of_torch_is_a_device():
    assert gl.TrainConfig(device=torch.device("cpu")) == gl.TrainConfig(device="cpu")


EPOCHS = [[5, 10], np.array([5, 10]), pd.Series([5, 10]), torch.tensor([5, 10]), range(5, 11, 5)]


@pytest.mark.parametrize("epochs", EPOCHS, ids=type)
def test_epochs_of_any_kind_are_settings(epochs):
    assert gl.TrainConfig(unfreeze_at=epochs).unfreeze_at == (5, 10)


NO_NUMBERS = [
    *(None, "16", b"16", pd.NA, np.nan, pd.NaT, np.array([16]), torch.tensor([16]), pd.Series([16]), [16]),
    *(complex(16), 10**5000, 1e400, Fraction(10**400), Decimal("sNaN"), np.ma.masked, torch.tensor(16, device="meta")),
]


@pytest.mark.parametrize("wrong", NO_NUMBERS, ids=lambda value: type(value).__name__)
def test_what_is_no_number_is_refused_in_one_sentence_at_every_door(wrong):
    doors = [
        *(lambda name=name: gl.TrainConfig(**{name: wrong}) for name in of_type(int) + of_type(float) + of_type(bool)),
        lambda: gl.Recipe(size=wrong),
        lambda: gl.Recipe(slices=wrong),
        lambda: gl.phantom_cohort(wrong),
        lambda: gl.phantom_cohort(4, seed=wrong),
        lambda: gl.make_phantom(seed=wrong),
        lambda: gl.build_backbone("squeezenet1_0", weights=None, seed=wrong),
        lambda: simulated_cohort().split_by_patient(seed=wrong),
        lambda: gl.evaluate(simulated(8), draws=wrong),
        lambda: gl.evaluate(simulated(8), seed=wrong),
        lambda: gl.reliability(simulated(8), bins=wrong),
        lambda: gl.conformal_sets(simulated(8), simulated(8, seed=1), wrong),
    ]  # fmt: skip
    for door in doors:
        with pytest.raises(gl.ChoiceError) as caught:
            door()
        assert len(str(caught.value)) < 500 and "\n" not in str(caught.value)


def simulated_cohort():
    return gl.phantom_cohort(4)


@pytest.mark.parametrize(
    "wrong", [None, 3, b"lung", np.array(["lung", "bone"]), pd.NA, ["lung"], {"lung": 1}], ids=type
)
def test_what_is_no_word_is_refused_in_one_sentence(wrong):
    doors = [lambda name=name: gl.TrainConfig(**{name: wrong}) for name in of_type(str)]
    doors += [lambda: gl.Recipe(pick=wrong), lambda: gl.Recipe(crop=wrong), lambda: gl.Recipe(window=wrong)]
    for door in doors:
        with pytest.raises(gl.ChoiceError):
            door()


def test_what_judges_takes_numbers_of_numpy():
    judged, others = simulated(20), simulated(20, seed=1)
    report = gl.evaluate(judged, draws=np.int64(20), seed=np.uint8(3))
    assert report.to_json() == gl.evaluate(judged, draws=20, seed=3).to_json()
    bins = gl.reliability(judged, bins=np.int8(5), draws=np.array(9)).table
    pd.testing.assert_frame_equal(bins, gl.reliability(judged, bins=5, draws=9).table)
    for coverage in (np.float32(0.9), np.array(0.9), torch.tensor(0.9), Decimal("0.9")):
        sets = gl.conformal_sets(judged, others, coverage)
        assert type(sets.stated) is float and (sets.sets == gl.conformal_sets(judged, others, 0.9).sets).all()
    assert how_many_scans_needed(report, np.float64(0.3), draws=20) == how_many_scans_needed(report, 0.3, draws=20)


def test_pictures_take_places_of_numpy():
    scan = gl.make_phantom(grade=2, seed=1, shape=(8, 32, 32))
    pages = {scan_html(scan, index=index) for index in (3, np.int64(3), np.array(3), torch.tensor(3), 3.0)}
    assert len(pages) == 1
    with pytest.raises(gl.ChoiceError, match="outside"):
        scan_html(scan, index=np.int64(8))


def test_rows_are_chosen_by_any_kind_of_mask_or_positions():
    cohort, mask = gl.phantom_cohort(6), [True, False, True, False, False, False]
    for chosen in (
        mask,
        np.array(mask),
        pd.Series(mask),
        pd.array(mask),
        [0, 2],
        np.array([0, 2], np.uint8),
        range(0, 3, 2),
    ):
        assert cohort.subset(chosen).names == [cohort.names[0], cohort.names[2]]
    assert cohort.row(np.int64(2)) == cohort.row(torch.tensor(2)) == cohort.row(2)


@pytest.mark.parametrize("wrong", [[99], [True], [1.0], ["a"], [None], "a", 1.5, [[0, 1], [0]]], ids=str)
def test_rows_that_are_not_there_are_refused_in_one_sentence(wrong):
    for door in (gl.phantom_cohort(6).subset, TRAIN.subset, simulated(8).subset):
        with pytest.raises(gl.CohortError, match="do not choose among"):
            door(wrong)


@pytest.mark.parametrize("wrong", [99, -7, 1.5, None, True, "nobody", [0]], ids=str)
def test_a_row_that_is_not_there_is_refused_in_one_sentence(wrong):
    with pytest.raises(gl.CohortError, match=r"Row|No scan is named"):
        gl.phantom_cohort(6).row(wrong)


@pytest.mark.parametrize(
    "wrong", [0.6, "abc", (0.5, 0.5), (np.nan, 0.5, 0.5), (-0.5, 0.5, 1), (0.5, 0.5, 0.5), None], ids=str
)
def test_shares_that_are_none_are_refused_in_one_sentence(wrong):
    with pytest.raises(gl.CohortError, match="three shares"):
        gl.phantom_cohort(4).split_by_patient(wrong)


def test_a_task_takes_numbers_of_numpy():
    task = gl.Task(("a", "b"), numbers=(np.int64(1), np.int64(2)), bands=((np.float64(0), 0.5), (0.5, np.float32(1))))
    assert json.dumps(task.to_dict()) == json.dumps(
        gl.Task(("a", "b"), numbers=(1, 2), bands=((0.0, 0.5), (0.5, 1.0))).to_dict()
    )


@pytest.mark.parametrize("jobs", [0, 2.5, "2", np.nan, 1e400, [1]], ids=str)
def test_a_number_of_workers_that_is_none_is_refused_also_where_little_is_to_be_done(jobs):
    with pytest.raises(gl.ChoiceError, match="jobs="):
        gl.prepare(gl.phantom_cohort(2, shape=(8, 32, 32)), gl.Recipe(size=16), jobs=jobs, progress=False)
