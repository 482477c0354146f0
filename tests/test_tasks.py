"""What is graded: labels from involvement and from what people write, and tasks that are refused."""

import json
import pickle

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ggo_lab.errors import ChoiceError
from ggo_lab.tasks import COVID_DETECTION, DIAGNOSIS, GGO_SEVERITY, MOSMED, SEVERE_OUTCOME, Task

BUILT_IN = [GGO_SEVERITY, MOSMED, COVID_DETECTION, DIAGNOSIS, SEVERE_OUTCOME]


@pytest.mark.parametrize(
    ("involvement", "name"),
    [
        (1e-6, "mild"),
        (0.25, "mild"),
        (0.2501, "moderate"),
        (0.5, "moderate"),
        (0.5001, "severe"),
        (0.7499, "severe"),
        (0.75, "critical"),
        (1.0, "critical"),
    ],
)
def test_the_edges_belong_where_the_data_sets_put_them(involvement, name):
    label = GGO_SEVERITY.label_from_involvement(involvement)
    assert GGO_SEVERITY.names[label] == name
    assert MOSMED.label_from_involvement(involvement) == label + 1


def test_those_without_a_lesion_have_a_label_where_the_task_has_one_for_them():
    assert GGO_SEVERITY.label_from_involvement(0.0) is GGO_SEVERITY.healthy is None
    assert MOSMED.names[MOSMED.healthy] == "CT-0"
    assert COVID_DETECTION.names[COVID_DETECTION.healthy] == "non-covid"
    assert COVID_DETECTION.label_from_involvement(1e-6) == 1
    assert DIAGNOSIS.healthy is None  # involvement tells no cause


@pytest.mark.parametrize("involvement", [-0.01, 1.01, 30, float("nan")])
def test_what_is_no_fraction_is_refused(involvement):
    with pytest.raises(ChoiceError, match=r"from 0 to 1 \(0\.3 for 30%\)") as caught:
        GGO_SEVERITY.label_from_involvement(involvement)
    assert caught.value.subject is involvement


def test_a_diagnosis_does_not_follow_from_involvement():
    with pytest.raises(ChoiceError, match="no bands"):
        DIAGNOSIS.label_from_involvement(0.3)


@pytest.mark.parametrize("written", ["moderate", " Moderate ", 2, "2", 2.0, "2.0", np.int64(2), np.float32(2)])
def test_a_class_is_read_as_people_write_it(written):
    assert GGO_SEVERITY.label_of(written) == 1


@pytest.mark.parametrize("task", BUILT_IN)
def test_every_class_is_read_by_its_name_and_by_its_number(task):
    for label, (name, number) in enumerate(zip(task.names, task.numbers, strict=True)):
        assert {task.label_of(w) for w in (name, name.upper(), name.replace("-", "_"), number, str(number))} == {label}


@pytest.mark.parametrize("written", [0, 5, 2.5, -1, True, None, float("nan"), "", "nan", "mildly", [2], b"mild"])
def test_what_is_no_class_is_refused_with_the_classes_there_are(written):
    with pytest.raises(ChoiceError, match=r"1 \(mild\), 2 \(moderate\), 3 \(severe\), 4 \(critical\)"):
        GGO_SEVERITY.label_of(written)


def test_two_classes_are_also_read_from_yes_and_no():
    for yes, no in [("yes", "No"), (True, False), (np.True_, np.False_), ("TRUE", "false")]:
        assert (SEVERE_OUTCOME.label_of(yes), SEVERE_OUTCOME.label_of(no)) == (1, 0)
    with pytest.raises(ChoiceError):
        DIAGNOSIS.label_of("yes")


@pytest.mark.parametrize("task", BUILT_IN)
def test_a_task_survives_json_and_pickle_and_serves_as_a_key(task):
    again = Task.from_dict(json.loads(json.dumps(task.to_dict())))
    assert again == task and hash(again) == hash(task) and again.colours == task.colours
    assert pickle.loads(pickle.dumps(task)) == task
    assert len(task) == len(task.names) == len(set(task.colours)) == len(task.numbers)


def test_colours_do_not_make_another_task():
    assert Task(("a", "b"), ("#000000", "#FFFFFF")) == Task(("a", "b")) != Task(("a", "b"), ordered=True)


@pytest.mark.parametrize(
    "parts",
    [
        {"names": ("one",)},
        {"names": ("a", "A-")},
        {"names": ("a", "  ")},
        {"names": ("a", 2)},
        {"names": "ab"},
        {"names": ("a", "b\n")},
        {"names": ("a", "b" * 61)},
        {"names": tuple(map(str, range(101)))},
        {"colours": ("red", "blue", "green")},
        {"colours": ("#000000",)},
        {"ordered": 1},
        {"bands": ((0, 0.5), (0.5, 1))},
        {"bands": ((0, 0.5), (0.6, 0.7), (0.7, 1))},
        {"bands": ((0, 0.5), (0.5, 0.5), (0.5, 1))},
        {"bands": ((0, 0.5), (0.5, float("nan")), (0.7, 1))},
        {"bands": ((0, 0.5), (0.5, 0.7), (0.7, 2))},
        {"bands": ((0, 0.5), (0.5, "0.7"), (0.7, 1))},
        {"bands": 3},
        {"numbers": (1, 2)},
        {"numbers": (1, 2, 2)},
        {"numbers": (1, 2, 3.0)},
        {"names": ("1", "2", "3")},
    ],
)
def test_a_task_that_does_not_fit_together_is_refused(parts):
    whole = {"names": ("low", "middle", "high"), "bands": ((0, 0.3), (0.3, 0.6), (0.6, 1))}
    Task(**whole)
    with pytest.raises(ChoiceError):
        Task(**{**whole, **parts})


@pytest.mark.parametrize("values", [None, [], {}, {"names": ["a", "b"]}, {**MOSMED.to_dict(), "more": 1}])
def test_a_file_that_holds_no_task_is_refused(values):
    with pytest.raises(ChoiceError):
        Task.from_dict(values)


@given(st.recursive(st.none() | st.booleans() | st.floats() | st.integers() | st.text(), st.lists))
def test_no_content_of_a_file_breaks_more_than_the_rule(value):
    for key in MOSMED.to_dict():
        try:
            Task.from_dict({**MOSMED.to_dict(), key: value})
        except ChoiceError:
            continue


@given(st.lists(st.floats(0.01, 0.99), min_size=1, max_size=6, unique=True), st.floats(0.001, 1))
def test_every_involvement_falls_into_the_band_of_its_label(edges, involvement):
    edges = sorted(edges)
    bands = tuple(zip([0.0, *edges], [*edges, 1.0], strict=True))
    label = Task(tuple(f"class {i}" for i in range(len(bands))), bands=bands).label_from_involvement(involvement)
    assert bands[label][0] <= involvement <= bands[label][1]
