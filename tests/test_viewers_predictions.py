"""PredictionViewer: the lists, the chosen scan, its neighbours, and what would be if it had more disease."""

from threading import Event, Thread

import numpy as np
import pandas as pd
import pytest
import torch
import traitlets
from judged import predictions_of

from ggo_lab.backbones import build_backbone
from ggo_lab.cohort import Cohort, phantom_cohort
from ggo_lab.errors import ChoiceError, CohortError, ModelError, ScanError
from ggo_lab.evaluation import evaluate, predict
from ggo_lab.images import ImageSet, Recipe, image_set_of
from ggo_lab.tasks import GGO_SEVERITY
from ggo_lab.viewers import PredictionViewer
from ggo_lab.viewers.similar import Similar, features
from ggo_lab.viewers.verdicts import sentence
from ggo_lab.viewers.what_if import STEPS, turns

RECIPE = Recipe(size=64)
NAMES = ["phantom-7-0000", "phantom-7-0001", "phantom-7-0002", "broken"]


@pytest.fixture(scope="module")
def cohort() -> Cohort:
    """Three phantoms and a scan that cannot be opened."""
    phantoms = phantom_cohort(4, seed=7, shape=(16, 64, 64), second_scans=0)

    def open_row(row: dict):
        if row["name"] == "broken":
            raise ScanError("broken.nii.gz: not a <b>gzip</b> file.")
        return phantoms.open_row(row)

    return Cohort(phantoms.table.assign(name=NAMES), open_row, phantoms.identify_row)


@pytest.fixture(scope="module")
def model():
    """A network with random weights: what it says is wrong, and always the same."""
    network = build_backbone("squeezenet1_0", weights=None, seed=1)
    network.recipe = RECIPE
    return network


def report_of(shares: list[list[float]], true: list[int]):
    """A report whose scans are the cohort's; -1 for a grade that is not known (evaluate would leave it out)."""
    judged = predictions_of(NAMES, list("abcd"), np.array(true), np.array(shares))
    report = evaluate(judged, draws=20)
    object.__setattr__(report, "predictions", judged)
    return report


SHARES = [[0.7, 0.1, 0.1, 0.1], [0.1, 0.1, 0.2, 0.6], [0.8, 0.1, 0.1, 0], [0.2, 0.5, 0.2, 0.1]]


@pytest.fixture
def viewer(cohort, model):
    """Right, two grades off, one grade off and surer, and a broken scan of unknown grade."""
    shown = PredictionViewer(cohort, model, report_of(SHARES, [0, 1, 1, -1]))
    yield shown
    shown.close()


def test_lists_hold_the_rows_they_name_and_the_surest_mistakes_come_first(viewer):
    rows = {key: value.tolist() for key, value in viewer.choices.items()}
    assert rows["all"] == [0, 1, 2, 3] and rows["right"] == [0] and rows["wrong"] == [2, 1]
    assert rows["more than one grade off"] == [1] and rows["true moderate"] == [1, 2]
    assert rows["predicted mild"] == [0, 2] and "true critical" not in rows
    viewer.choice = "wrong"
    assert [name for name, _ in viewer.side.listed["rows"]] == [NAMES[2], NAMES[1]]
    assert viewer.side.listed["rows"][0][1] == "✗ phantom-7-0002: mild 80% (true moderate)"


def chosen(viewer: PredictionViewer, trait: str, value=None) -> None:
    """What predictions.js sends when something is chosen."""
    viewer.side._handle_custom_msg({"trait": trait, "value": value}, [])


def listed(viewer: PredictionViewer) -> list[str]:
    return [name for name, _ in viewer.side.listed["rows"]]


def test_how_sure_the_network_was_filters_every_list(viewer):
    viewer.confidence = (0.6, 0.75)
    assert listed(viewer) == NAMES[:2] and viewer.name == NAMES[0]
    chosen(viewer, "confidence", [0.75, 1.0])
    assert viewer.confidence == (0.75, 1.0) and viewer.name == NAMES[2]
    chosen(viewer, "choice", "right")  # none of them is that sure: the shown scan stays
    assert listed(viewer) == [] and viewer.name == NAMES[2] and viewer.viewer is not None
    chosen(viewer, "confidence", [0.0, 1.0])
    assert viewer.name == NAMES[0]
    chosen(viewer, "confidence", [0.9, 0.1])
    assert "no range" in viewer.side.detail["message"] and viewer.confidence == (0.0, 1.0)
    for wrong in ((0.9, 0.2), (-1, 1)):
        with pytest.raises(ChoiceError, match="range"):
            viewer.confidence = wrong


def test_choosing_a_scan_shows_it_with_its_verdict(viewer):
    assert viewer.name == NAMES[0] and viewer.viewer.scan.name == NAMES[0]
    viewer.viewer.window = "bone"
    chosen(viewer, "name", NAMES[1])
    assert viewer.viewer.scan.name == NAMES[1] and viewer.viewer.window == "bone"
    detail = viewer.side.detail
    assert detail["sentence"] == "Predicted critical (60%), true moderate: two grades off."
    assert [bar["share"] for bar in detail["bars"]] == SHARES[1]
    assert [bar["name"] for bar in detail["bars"] if bar["isTrue"]] == ["moderate"]
    with pytest.raises(traitlets.TraitError):
        viewer.viewer.opacity = 2
    viewer.choice = "right"
    assert viewer.name == NAMES[0] == viewer.side.listed["name"]


def test_grad_cam_is_off_until_asked_and_lies_on_the_slices_the_network_sees(viewer, monkeypatch):
    asked = []

    def grad_cam(model, image, label=None):
        asked.append(label)
        return np.full(image.shape[1:], 0.5, np.float32)

    monkeypatch.setattr("ggo_lab.saliency.grad_cam", grad_cam)
    shown = viewer.viewer
    assert shown.marks == (2, 8, 13) and shown.heat is None and "heat" not in shown.shown
    chosen(viewer, "explained", "severe")
    assert set(shown.heat) == {2, 8, 13} and shown.heat[2].shape == (64, 64) and "heat" in shown.shown
    chosen(viewer, "explained", "predicted")
    assert asked == [2, None]
    assert "of the heat lies in lesions" in viewer.side.detail["explained"]["score"]
    chosen(viewer, "explained", "nothing")
    assert viewer.viewer.heat is None and viewer.side.detail["explained"]["score"] == ""
    chosen(viewer, "slice", 13)
    assert viewer.viewer.index == 13 == viewer.side.at
    viewer.viewer.plane = "coronal"
    assert viewer.side.at == -1
    pictures = [card["picture"] for card in viewer.side.detail["slices"]]
    assert [(p["rows"], p["columns"], len(p["bytes"])) for p in pictures] == [(64, 64, 4096)] * 3


def test_a_scan_that_cannot_be_opened_says_so_and_the_next_one_shows(viewer):
    viewer.name = "broken"
    assert viewer.viewer is None and "Predicted moderate (50%)" in viewer.side.detail["sentence"]
    assert "not a <b>gzip" in viewer.side.detail["message"]  # text, which predictions.js never takes for markup
    assert viewer.side.detail["what_if"] is None
    with pytest.raises(CohortError, match="could not be opened"):
        viewer.to_html("never.html")
    viewer.explained = "predicted"
    viewer.name = NAMES[1]
    assert viewer.viewer.scan.name == NAMES[1] and viewer.side.detail["what_if"]["own"] > 0


def test_choices_that_arrive_in_two_threads_are_taken_one_after_the_other(cohort, model):
    """As in JupyterLab, which sends the first to the thread that runs cells, and later ones to a subshell."""
    opening, go_on, overtaken = Event(), Event(), Event()

    def open_row(row: dict):
        if row["name"] == NAMES[1]:
            opening.set()
            assert go_on.wait(10)
        elif opening.is_set() and not go_on.is_set():
            overtaken.set()
        return cohort.open_row(row)

    slow = Cohort(cohort.table, open_row, cohort.identify_row)
    viewer = PredictionViewer(slow, model, report_of(SHARES, [0, 1, 1, -1]))
    threads = [Thread(target=chosen, args=(viewer, "name", name)) for name in NAMES[1:3]]
    threads[0].start()
    assert opening.wait(10)
    threads[1].start()
    assert not overtaken.wait(1)
    go_on.set()
    for thread in threads:
        thread.join(10)
    assert viewer.name == viewer.viewer.scan.name == NAMES[2]
    viewer.close()


@pytest.mark.parametrize(
    "change", [("name", "nobody"), ("choice", "true critical"), ("explained", "deadly"), ("involvement", 0.95)]
)
def test_unknown_choices_are_refused(viewer, change):
    before = viewer.viewer.png()
    with pytest.raises(ChoiceError):
        setattr(viewer, *change)
    assert viewer.viewer.png() == before


def test_a_model_that_knows_no_recipe_is_refused(cohort):
    with pytest.raises(ModelError, match="has not been fitted"):
        PredictionViewer(cohort, build_backbone("squeezenet1_0", weights=None), report_of(SHARES, [0, 1, 1, -1]))


def test_sentences():
    shares = np.array([0.1, 0.2, 0.61, 0.09])
    assert sentence(shares, 2, GGO_SEVERITY) == "Predicted severe (61%), true severe: right."
    assert sentence(shares, None) == "Predicted severe (61%); the true grade is not known."


def test_the_page_of_the_shown_scan_holds_its_prediction(viewer, tmp_path):
    text = viewer.to_html(tmp_path / "p.html").read_text(encoding="utf-8")
    assert NAMES[0] in text and "Predicted: mild" in text
    assert '"marks": [2, 8, 13]' in text
    viewer.involvement = 0.9
    remade = viewer.to_html(tmp_path / "p.html").read_text(encoding="utf-8")
    assert "Remade with 90% of the lungs involved" in remade and "90% of the lungs involved.</p>" in remade


# What would be if


def test_a_phantom_is_remade_with_the_disease_asked_for_and_nothing_else(viewer, cohort, model):
    as_it_is = viewer.viewer.scan
    chosen(viewer, "involvement", 0.6)
    remade = viewer.viewer.scan
    assert viewer.involvement == 0.6 and remade.truth.involvement == pytest.approx(0.6, abs=0.01)
    np.testing.assert_array_equal(remade.truth.lungs, as_it_is.truth.lungs)
    outside = ~as_it_is.truth.lungs
    assert np.abs(remade.hu[outside].astype(int) - as_it_is.hu[outside]).mean() < 10
    answer = predict(model, image_set_of(RECIPE.cut(remade))).probabilities[0]
    np.testing.assert_array_equal(viewer.answers[0.6], answer)
    assert (
        f"Remade with 60% of the lungs involved. {sentence(answer, 2, GGO_SEVERITY)}" in viewer.side.detail["sentence"]
    )
    chosen(viewer, "involvement", None)
    assert viewer.involvement is None
    np.testing.assert_array_equal(viewer.viewer.scan.hu, as_it_is.hu)
    own = cohort.row(NAMES[0])["involvement"]
    assert set(viewer.answers) == {own, 0.6} and viewer.side.detail["what_if"]["now"] == own


def test_more_disease_is_shown_where_one_was_looking(viewer):
    viewer.viewer.look = {"plane": "coronal", "index": 20, "zoom": 2.0, "probe": (3, 20, 30), "opacity": 0.7}
    viewer.involvement = 0.5
    assert (viewer.viewer.plane, viewer.viewer.index, viewer.viewer.zoom) == ("coronal", 20, 2.0)
    assert viewer.viewer.probe == (3, 20, 30)
    viewer.explained = "severe"
    assert viewer.viewer.look["index"] == 20 and viewer.viewer.zoom == 2.0
    viewer.name = NAMES[1]  # another patient: only how one looks at it stays
    assert (viewer.viewer.plane, viewer.viewer.zoom, viewer.viewer.probe) == ("axial", 1.0, None)
    assert viewer.viewer.opacity == 0.7


def test_another_scan_begins_as_it_is(viewer):
    viewer.involvement = 0.5
    viewer.name = NAMES[1]
    assert viewer.involvement is None and viewer.viewer.scan.name == NAMES[1] and len(viewer.answers) == 1


def test_the_whole_curve_is_traced_and_drawn(viewer, model):
    answers = viewer.trace()
    assert set(STEPS) < set(answers) and len(answers) == 11
    for involvement in (0.0, 0.9):
        scan = viewer.cohort.open_row({**viewer.cohort.row(NAMES[0]), "involvement": involvement})
        np.testing.assert_array_equal(
            answers[involvement], predict(model, image_set_of(RECIPE.cut(scan))).probabilities[0]
        )
    what_if = viewer.side.detail["what_if"]
    assert what_if["left"] == 0 and len(what_if["answers"]) == 11
    assert what_if["spoken"].startswith("Predicted grade by involvement: at 0% ")


def test_turns_say_where_the_answer_changes():
    mild, severe = np.array([0.9, 0.1, 0, 0]), np.array([0, 0.1, 0.9, 0])
    assert turns({0.0: mild, 0.1: severe, 0.2: mild}) == (
        "The answer turns from mild to severe between 0% and 10%; from severe to mild between 10% and 20%."
    )
    assert "however much disease" in turns({0.0: mild, 0.1: mild})


def test_what_is_no_phantom_cannot_be_remade(cohort, model):
    table = cohort.table.drop(columns="phantom_seed")
    files = Cohort(table, lambda row: cohort.scan(row["name"]), cohort.identify_row)
    viewer = PredictionViewer(files, model, report_of(SHARES, [0, 1, 1, -1]))
    assert viewer.viewer is not None and viewer.side.detail["what_if"] is None and viewer.answers == {}
    with pytest.raises(ChoiceError, match="no phantom"):
        viewer.involvement = 0.5
    with pytest.raises(ChoiceError, match="no phantom"):
        viewer.trace()


# Who is alike


@pytest.fixture(scope="module")
def train(cohort, model):
    """The images of the three phantoms."""
    images = [image_set_of(RECIPE.cut(cohort.scan(name))) for name in NAMES[:3]]
    table = pd.concat([part.table for part in images], ignore_index=True).assign(patient=list("abc"))
    return ImageSet(np.concatenate([part.pixels for part in images]), table, RECIPE)


def test_features_are_what_the_last_layer_reads(model, train):
    found = features(model, train.pixels)
    assert found.shape == (3, 512)
    with torch.inference_mode():
        maps = model.network.features(model.normalise(torch.from_numpy(train.pixels)))
    np.testing.assert_allclose(found, maps.mean((2, 3)).numpy(), rtol=1e-4, atol=1e-5)
    assert not model.network.classifier[1]._forward_pre_hooks  # nothing stays behind


def test_the_nearest_is_the_same_image_and_never_the_patients_own(model, train):
    similar = Similar(model, train)
    for row in range(3):
        nearest, second = similar.to(train.pixels[row], patient="somebody else")
        assert nearest.row == row and nearest.distance == pytest.approx(0, abs=1e-3) and second.distance > 0.1
        assert row not in [found.row for found in similar.to(train.pixels[row], patient="abc"[row])]
    everyone = features(model, train.pixels)
    distances = np.linalg.norm(everyone - everyone[0], axis=1)
    assert similar.to(train.pixels[0], "a")[0].row == 1 + int(np.argmin(distances[1:]))


def test_similar_scans_are_shown_beside_the_chosen_one(cohort, model, train):
    viewer = PredictionViewer(cohort, model, report_of(SHARES, [0, 1, 1, -1]), train)
    shown = viewer.side.detail["similar"]
    assert {card["name"] for card in shown} == {NAMES[1], NAMES[2]}  # the patient's own is left out
    assert all(card["picture"]["rows"] == 64 and card["distance"] > 0 for card in shown)
    viewer.name = NAMES[1]
    assert {card["name"] for card in viewer.side.detail["similar"]} == {NAMES[0], NAMES[2]}
    other = type(train)(train.pixels, train.table, Recipe(size=64, pick="middle"))
    with pytest.raises(ModelError, match="was fitted on"):
        PredictionViewer(cohort, model, report_of(SHARES, [0, 1, 1, -1]), other)
