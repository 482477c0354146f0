import numpy as np
import pandas as pd
import pytest

import ggo_lab as gl
from ggo_lab.cohort import PAPER_GRADE_SHARES, SPLITS


def table(**columns):
    base = {
        "name": ["a", "b", "c"],
        "patient": ["p", "q", "r"],
        "label": [0, 1, None],
        "split": ["train", "test", None],
    }
    return pd.DataFrame({**base, **columns})


def cohort(**columns):
    return gl.Cohort(table(**columns), open_row=lambda row: None, identify_row=lambda row: row["name"])


def test_phantom_cohort_has_the_papers_shares_and_is_split_by_patient():
    found = gl.phantom_cohort(n=100, seed=3)
    shares = found.table["label"].value_counts(normalize=True)
    for label, share in enumerate(PAPER_GRADE_SHARES):
        assert shares[label] == pytest.approx(share, abs=0.011)
    assert len(found) == 100 and found.table["patient"].nunique() == 91
    assert {s: getattr(found, s).table["patient"].nunique() for s in SPLITS} == {
        "train": 55,
        "validation": 18,
        "test": 18,
    }
    for split in SPLITS:
        assert set(getattr(found, split).labels) == {0, 1, 2, 3}


def test_the_majority_guess_is_far_below_a_reader():
    labels = gl.phantom_cohort(600).table["label"]
    share = labels.value_counts(normalize=True).max()
    assert 2 * share / (1 + share) / 4 == pytest.approx(0.13, abs=0.005)


def test_phantom_cohort_is_the_same_for_the_same_seed_only():
    pd.testing.assert_frame_equal(gl.phantom_cohort(20, seed=1).table, gl.phantom_cohort(20, seed=1).table)
    assert (
        not gl.phantom_cohort(20, seed=1)
        .table["involvement"]
        .equals(gl.phantom_cohort(20, seed=2).table["involvement"])
    )


@pytest.mark.parametrize(("share", "twice"), [(0, 0), (0.1, 27), (1, 150)])
def test_second_scans_are_of_one_patient_in_one_split_and_near_the_first(share, twice):
    table = gl.phantom_cohort(300, second_scans=share).table
    scans_of = table.groupby("patient")
    assert (scans_of.size() == 2).sum() == twice and scans_of.size().max() == (2 if twice else 1)
    assert scans_of["split"].nunique().max() == 1 and scans_of["patient_seed"].nunique().max() == 1
    assert table["phantom_seed"].is_unique
    if share == 0.1:
        apart = scans_of["involvement"].agg(np.ptp)[scans_of.size() == 2]
        assert 0.03 < apart.median() < 0.2
        assert scans_of["label"].nunique().max() == 2, "in some the disease went on to another grade"


def test_a_second_scan_shows_the_same_anatomy_and_another_disease():
    small = gl.phantom_cohort(4, seed=5, shape=(16, 48, 48), second_scans=1)
    first, second, other = (small.scan(i) for i in (0, 1, 2))
    assert small.row(0)["patient"] == small.row(1)["patient"] != small.row(2)["patient"]

    def lungs_agree(one, two):
        a, b = one.truth.lungs, two.truth.lungs
        return 2 * (a & b).sum() / (a.sum() + b.sum())

    assert lungs_agree(first, second) > 0.95 > lungs_agree(first, other)
    assert not np.array_equal(first.hu, second.hu)
    assert second.truth.involvement == pytest.approx(small.row(1)["involvement"], abs=0.01)


def test_reader_noise_changes_labels_near_the_edges_and_nothing_else():
    true, read = (gl.phantom_cohort(1000, seed=4, reader_noise=noise).table for noise in (0, 0.05))
    assert true["label"].equals(true["true_label"]) and read["true_label"].equals(true["true_label"])
    assert read["involvement"].equals(true["involvement"]) and read["patient"].equals(true["patient"])
    changed = read[read["label"] != read["true_label"]]
    assert 0.05 < len(changed) / 1000 < 0.13
    from_edge = np.abs(changed["involvement"].to_numpy()[:, None] - np.array([0.25, 0.5, 0.75])).min(axis=1)
    assert from_edge.max() < 0.2 and (read["label"] - read["true_label"]).abs().max() == 1


def test_controls_have_no_disease_no_label_and_teach_nothing():
    found = gl.phantom_cohort(10, seed=2, shape=(8, 32, 32), controls=2, reader_noise=0.3)
    controls = found.table.tail(2)
    assert controls["label"].isna().all() and controls["true_label"].isna().all()
    assert (controls["split"] == "test").all() and (controls["involvement"] == 0).all()
    assert not found.scan(11).truth.lesions.any()
    alone = gl.phantom_cohort(10, seed=2, shape=(8, 32, 32), reader_noise=0.3).table
    pd.testing.assert_frame_equal(found.table.head(10), alone)


def test_healthy_people_have_a_label_where_the_task_has_one_for_them():
    five = gl.phantom_cohort(40, seed=2, shape=(8, 32, 32), healthy=0.25, task=gl.tasks.MOSMED)
    assert len(five) == 40 and five.counts()["CT-0"].sum() == 10 and len(five.findings) == 0
    well = five.table[five.table["label"] == 0]
    assert (well["involvement"] == 0).all() and well["patient"].is_unique
    assert set(well["split"]) == set(SPLITS), "in every split, unlike controls"
    assert not five.scan(well["name"].iloc[0]).truth.lesions.any()
    four = gl.phantom_cohort(40, seed=2, shape=(8, 32, 32), healthy=0.25)
    assert (four.labels == -1).sum() == 10
    (told,) = four.findings
    assert "no class for them" in told.what and len(told.names) == 10
    two = gl.phantom_cohort(40, seed=2, shape=(8, 32, 32), healthy=0.25, task=gl.tasks.COVID_DETECTION)
    assert np.bincount(two.labels).tolist() == [10, 30]
    assert gl.phantom_cohort(3, healthy=1, task=gl.tasks.MOSMED).labels.tolist() == [0, 0, 0]
    with pytest.raises(gl.ChoiceError, match="no bands"):
        gl.phantom_cohort(4, task=gl.tasks.DIAGNOSIS)


@pytest.mark.parametrize(
    "wrong", [{"n": 0}, {"controls": -1}, {"second_scans": 1.5}, {"reader_noise": -0.1}, {"healthy": 2}]
)
def test_phantom_cohort_refuses_what_it_cannot_make(wrong):
    with pytest.raises(gl.GgoLabError, match=next(iter(wrong))):
        gl.phantom_cohort(**wrong)


def test_the_scan_of_a_row_has_the_rows_name_label_and_involvement():
    small = gl.phantom_cohort(3, seed=5, shape=(16, 64, 64))
    scan, row = small.scan(1), small.row(1)
    assert scan.name == row["name"] and scan.shape == (16, 64, 64)
    assert small.task.label_from_involvement(scan.truth.involvement) == row["label"]
    assert scan.truth.involvement == pytest.approx(row["involvement"], abs=0.01)
    assert np.array_equal(scan.hu, small.scan(row["name"]).hu)


def test_one_patient_in_two_splits_is_refused():
    with pytest.raises(gl.CohortError, match="1 patient is in more than one of train, validation, test, such as p"):
        cohort(patient=["p", "p", "r"])


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"name": ["a", "a", "c"]}, "more than one row"),
        ({"label": [1, 4, None]}, "label holds 4; it must be 0 .mild., .*3 .critical., or empty"),
        ({"label": [1, 2.5, None]}, "label holds 2.5"),
        ({"label": [1, -1, None]}, "label holds -1"),
        ({"label": ["mild", 2, None]}, "label holds mild"),
        ({"split": ["train", "val", None]}, "split holds"),
        ({"patient": ["p", None, "r"]}, "no patient"),
    ],
)
def test_a_table_that_would_fool_its_reader_is_refused(columns, message):
    with pytest.raises(gl.CohortError, match=message):
        cohort(**columns)


def test_split_by_patient_keeps_all_scans_of_a_patient_together():
    n = 60
    wide = gl.Cohort(
        pd.DataFrame(
            {
                "name": [f"scan{i}" for i in range(n)],
                "patient": [f"patient{i // 3}" for i in range(n)],
                "label": [(i // 3) % 4 for i in range(n)],
                "split": None,
            }
        ),
        open_row=lambda row: None,
        identify_row=lambda row: row["name"],
    ).split_by_patient((0.5, 0.25, 0.25), seed=4)
    assert wide.table.groupby("patient")["split"].nunique().max() == 1
    assert wide.table.groupby("split")["patient"].nunique().to_dict() == {"train": 10, "validation": 5, "test": 5}
    with pytest.raises(gl.CohortError, match="sum to 1"):
        wide.split_by_patient((0.9, 0.2, 0.2))


def test_counts_show_unknown_labels_and_missing_splits():
    counts = cohort().counts()
    assert counts.loc["no split", "unknown"] == 1 and counts.loc["train", "mild"] == 1


def test_unknown_keys_are_named():
    with pytest.raises(gl.CohortError, match="'z'"):
        cohort().scan("z")
    with pytest.raises(gl.CohortError, match="Row 7"):
        cohort().scan(7)


def test_read_cohort_opens_scans_beside_the_csv(tmp_path):
    scan = gl.make_phantom(grade=2, seed=1, shape=(12, 48, 48))
    gl.write_nifti(scan, tmp_path / "one.nii.gz")
    (tmp_path / "cohort.csv").write_text("path;grade\none.nii.gz;2\n")
    found = gl.read_cohort(tmp_path / "cohort.csv")
    assert np.array_equal(found.scan(0).hu, scan.hu)
    assert found.row("one.nii.gz")["label"] == 1


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "no such file"),
        ("grade,split\n1,train\n", "no column 'path'"),
        ("path,grade\n,1\n", "path missing"),
        ("path,grade\n", "has no rows"),
        ("path,grade\nabsent.nii,1\n", "none of its 1 scans exists"),
    ],
)
def test_read_cohort_refuses_in_one_sentence(tmp_path, text, message):
    file = tmp_path / "cohort.csv"
    if text is not None:
        file.write_text(text)
    with pytest.raises(gl.CohortError, match=message):
        gl.read_cohort(file)


def test_a_table_with_a_path_too_long_for_any_disk_is_read_and_its_other_scans_are_used(tmp_path):
    gl.write_nifti(gl.make_phantom(grade=2, seed=1, shape=(8, 32, 32)), tmp_path / "one.nii.gz")
    (tmp_path / "t.csv").write_text(f"path,grade\none.nii.gz,2\n{'x' * 400}.nii.gz,1\n")
    with pytest.warns(UserWarning, match="left out|could not"):
        images = gl.prepare(gl.read_cohort(tmp_path / "t.csv"), gl.Recipe(size=16), jobs=1, progress=False)
    assert len(images) == 1


def test_an_error_names_few_of_many_columns(tmp_path):
    (tmp_path / "t.csv").write_text(",".join(f"{'c' * 100}{n}" for n in range(200)) + "\n" + ",".join("1" * 200) + "\n")
    with pytest.raises(gl.CohortError, match="and 188 more") as refused:
        gl.read_cohort(tmp_path / "t.csv")
    assert len(str(refused.value)) < 1000
