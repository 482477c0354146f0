"""What a teacher asks of a cohort before a network sees it, and how the answers show."""

import numpy as np
import pandas as pd
import pytest

import ggo_lab as gl
from ggo_lab.cohort import Finding, Findings


def noise(seed, blank=()):
    hu = np.random.default_rng(seed).integers(-1000, 400, (4, 8, 8)).astype(np.int16)
    hu[list(blank)] = -1000
    return gl.Scan(hu, (5.0, 1.0, 1.0))


def cohort(scans=None, **columns):
    n = len(next(iter(columns.values()))) if columns else len(scans)
    base = {
        "name": [f"s{i}" for i in range(n)],
        "patient": [f"p{i}" for i in range(n)],
        "label": [i % 4 for i in range(n)],
        "split": ["train"] * n,
    }

    def open_row(row):
        found = scans[int(row["name"][1:])]
        if isinstance(found, str):
            raise gl.ScanError(found)
        return found

    return gl.Cohort(pd.DataFrame({**base, **columns}), open_row, lambda row: row["name"])


def said(findings, topic):
    return [f"{f.status}: {f.what} {', '.join(f.names)}".strip() for f in findings if f.topic == topic]


def test_a_sound_cohort_has_nothing_to_mend():
    sound = cohort(patient=[f"p{i // 2}" for i in range(80)], label=[i % 4 for i in range(80)])
    findings = sound.check()
    assert {f.status for f in findings} == {"fine"}
    assert said(findings, "patients") == ["fine: 80 scans of 40 patients, each in one split only."]


def test_what_was_edited_into_the_table_is_found():
    spoilt = cohort(patient=["p", "p", "q"], split=["train", "train", None])
    spoilt.table.loc[1, "split"] = "test"
    spoilt.table.loc[2, "label"] = 7
    findings = spoilt.check()
    assert said(findings, "patients")[0].startswith("wrong: Patients are in more than one split")
    assert said(findings, "labels") == [
        "wrong: Scans have a label that is none of 0 (mild), 1 (moderate), 2 (severe), 3 (critical). s2"
    ]
    assert "no label of this task" in repr(spoilt)
    with pytest.raises(gl.CohortError, match="label holds 7"):
        _ = spoilt.labels


def test_every_scan_its_own_patient_is_worth_a_look():
    assert said(cohort(label=[0, 1]).check(), "patients")[0].startswith("look: Each of the 2 scans")


def test_scans_that_cannot_teach_are_named_and_test_scans_without_a_label_are_not():
    findings = cohort(label=[0, None, None], split=["train", "validation", "test"]).check()
    assert said(findings, "labels")[0].startswith("look: Scans of train or validation have no label")
    assert said(findings, "labels")[0].endswith("s1")
    assert said(cohort(label=[0, None], split=["train", "test"]).check(), "labels")[0].startswith("fine: 1 scans")


def test_rare_grades_are_called_out_in_words_with_the_floor():
    # The paper's validation split: 31/20/45/5.
    labels = [0] * 31 + [1] * 20 + [2] * 45 + [3] * 5
    (told,) = said(cohort(label=labels, split=["validation"] * 101).check(), "class counts")
    assert told.startswith("look: validation: 31 mild, 20 moderate, 45 severe, 5 critical.")
    assert "recall of critical by 20 points" in told and "mild by" not in told
    # F1 of always answering severe is 2 x 45 / (45 + 101) for severe and 0 for the rest: 0.616 / 4.
    assert "Always answering severe scores macro-F1 0.15" in told
    (told,) = said(cohort(label=[0] * 10 + [2] * 12).check(), "class counts")
    assert "No scan is moderate or critical" in told


def test_contents_tell_what_cannot_be_read_and_what_is_empty():
    scans = [noise(0), "s1: broken", noise(2, blank=[1]), noise(3, blank=[0, 1, 2, 3])]
    findings = cohort(scans).check(contents=True, progress=False)
    assert said(findings, "cannot be read") == ["wrong: Scans cannot be read. s1: s1: broken"]
    assert said(findings, "empty slices") == ["look: Scans have slices that show nothing. s2: 1 of 4"]
    assert said(findings, "empty scans") == ["wrong: Scans show nothing in any slice. s3"]
    assert said(findings, "same content") == ["fine: No two scans hold the same voxels."]


@pytest.mark.parametrize(
    ("columns", "told"),
    [
        ({"split": ["train", "test"]}, "wrong: Groups with the same voxels stand in two splits"),
        ({"label": [1, 2]}, "wrong: Groups with the same voxels stand with two labels"),
        ({}, "wrong: Groups with the same voxels stand under two patients"),
        ({"patient": ["p", "p"]}, "look: Groups with the same voxels stand twice"),
    ],
)
def test_doubles_are_found_by_content(columns, told):
    twins = cohort([noise(0), noise(0)], **{"label": [1, 1], **columns})
    (found,) = said(twins.check(contents=True, progress=False), "same content")
    assert found.startswith(told) and found.endswith("s0 = s1")


def test_equal_voxels_in_another_shape_are_no_double():
    one = noise(0)
    other = gl.Scan(one.hu.reshape(8, 4, 8), one.spacing)
    findings = cohort([one, other]).check(contents=True, progress=False)
    assert said(findings, "same content")[0].startswith("fine")


def test_a_scan_in_two_formats_is_a_double(tmp_path):
    scan = gl.make_phantom(grade=2, seed=1, shape=(8, 32, 32))
    gl.write_nifti(scan, tmp_path / "a.nii.gz")
    gl.write_nifti(scan, tmp_path / "b.nii")
    findings = gl.Cohort.from_folder(tmp_path).check(contents=True, progress=False)
    assert said(findings, "same content")[0].endswith("a.nii.gz = b.nii")


def test_findings_show_every_name_and_hide_none():
    many = [f"<scan{i}>" for i in range(50)]
    findings = Findings([Finding("wrong", "missing", "Files are absent.", tuple(many)), Finding("fine", "found", "9.")])
    page = findings._repr_html_()
    assert all(f"&lt;scan{i}&gt;" in page for i in range(50)) and "<scan" not in page and "<details>" in page
    assert "2 findings: 1 wrong, 1 fine" in page and "and 47 more" in repr(findings)
    assert findings.table["count"].tolist() == [50, 0] and findings.table["names"][0] == tuple(many)
    assert len(findings.of("wrong")) == 1
    with pytest.raises(gl.ChoiceError, match="status='bad'"):
        Finding("bad", "missing", "x")


def test_subsets_and_new_splits_keep_the_findings():
    parent = cohort(label=[1, 2, 3])
    parent.findings = Findings([Finding("look", "missing", "One file.")])
    assert len(parent.train.findings) == len(parent.split_by_patient().findings) == 1
    assert "1 things to look at in .findings" in parent._repr_html_()
