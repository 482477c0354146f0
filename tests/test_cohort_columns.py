"""Tables of one's own as people write them: columns by any usual name, one person under one name."""

import pandas as pd
import pytest

import ggo_lab as gl


@pytest.fixture
def write(tmp_path):
    gl.write_nifti(gl.make_phantom(grade=2, seed=1, shape=(8, 32, 32)), tmp_path / "one.nii.gz")

    def made(text, excel=False):
        (tmp_path / "cohort.csv").write_text(text, encoding="utf-8")
        if excel:
            pd.read_csv(tmp_path / "cohort.csv", dtype=str).to_excel(tmp_path / "cohort.xlsx", index=False)
        return tmp_path / ("cohort.xlsx" if excel else "cohort.csv")

    return made


def said(cohort, topic):
    return " ".join(f"{f.status}: {f.what} {', '.join(f.names)}" for f in cohort.findings if f.topic == topic)


@pytest.mark.parametrize("excel", [False, True])
@pytest.mark.parametrize("patient", ["Patient", "PATIENT", " patient ", "PatientID", "patient_id", "Patient ID",
                                     "subject", "Subject-ID", "participant_id", "\ufeffpatient", "pa\u00a0tient",
                                     "patient\u200b", "\uff30\uff21\uff34\uff29\uff25\uff2e\uff34", "patient.id",
                                     "patient#", "MRN", "Pat. ID", "ptid"])  # fmt: skip
def test_the_column_of_patients_is_found_by_any_usual_name(write, patient, excel):
    rows = "".join(f"one.nii.gz,s{i},{'007' if i < 2 else '008'}\n" for i in range(4))
    cohort = gl.read_cohort(write(f"path,name,{patient}\n{rows}", excel))
    assert cohort.patients == ["007", "007", "008", "008"]
    assert cohort.split_by_patient().table.groupby("patient")["split"].nunique().max() == 1


def test_every_column_is_found_by_its_synonyms(write):
    text = "File Path;Study ID;Subject;Severity;Set\none.nii.gz;s1;A;Moderate;Training\none.nii.gz;s2;B;3;VAL\n"
    cohort = gl.read_cohort(write(text))
    assert cohort.names == ["s1", "s2"] and cohort.labels.tolist() == [1, 2]
    assert cohort.table["split"].tolist() == ["train", "validation"]
    assert "'Subject' is read as patient" in said(cohort, "columns")


def test_one_person_in_two_spellings_is_one_person(write):
    text = "path,name,patient,split\none.nii.gz,a,Ann B,train\none.nii.gz,b,ann  b ,train\none.nii.gz,c,Cy,test\n"
    cohort = gl.read_cohort(write(text))
    assert cohort.patients == ["Ann B", "Ann B", "Cy"] and "Ann B = ann b" in said(cohort, "patients")
    with pytest.raises(gl.CohortError, match="1 patient is in more than one of"):
        gl.read_cohort(write(text.replace("b ,train", "b ,test")))


@pytest.mark.parametrize("wrong", ["pateint", "patiant", "Patiend ID", "sbject"])
def test_a_near_miss_is_named(write, wrong):
    with pytest.raises(gl.CohortError, match=f"column '{wrong}' looks like 'patient'"):
        gl.read_cohort(write(f"path,{wrong}\none.nii.gz,A\n"))


def test_columns_of_another_meaning_are_no_near_miss_and_are_named(write):
    cohort = gl.read_cohort(write("path,PatientSex,patient_age,hospital\none.nii.gz,F,61,Lund\n"))
    assert cohort.patients == ["one.nii.gz"]
    assert "No column tells the patients" in said(cohort, "patients")
    assert all(column in said(cohort, "patients") for column in ("PatientSex", "patient_age", "hospital"))


def test_two_columns_of_one_meaning_must_agree(write):
    text = "path,PatientID,subject\none.nii.gz,A,{}\n"
    assert gl.read_cohort(write(text.format("A"))).patients == ["A"]
    with pytest.raises(gl.CohortError, match=r"\['PatientID', 'subject'\] could each be 'patient'"):
        gl.read_cohort(write(text.format("B")))
    both = gl.read_cohort(write("path,patient,PatientID\none.nii.gz,A,B\n"))
    assert both.patients == ["A"] and "PatientID" in said(both, "columns")


@pytest.mark.parametrize("grade", ["5", "0", "2.5", "awful", "-1"])
def test_a_grade_that_the_task_does_not_have_is_refused_with_those_it_has(write, grade):
    with pytest.raises(gl.CohortError, match=r"column 'grade'.*1 \(mild\), 2 \(moderate\).*Empty means unknown"):
        gl.read_cohort(write(f"path,grade\none.nii.gz,{grade}\n"))


def test_a_table_may_be_of_any_task(write):
    cohort = gl.read_cohort(write("path,name,Diagnosis\none.nii.gz,a,CAP\none.nii.gz,b,\n"), gl.tasks.DIAGNOSIS)
    assert cohort.task == gl.tasks.DIAGNOSIS and cohort.labels.tolist() == [1, -1] and "CAP" in repr(cohort)
    five = gl.read_cohort(write("path,name,category\none.nii.gz,a,CT-0\none.nii.gz,b,4\n"), gl.tasks.MOSMED)
    assert five.labels.tolist() == [0, 4]
    yes = gl.read_cohort(write("path,name,severity\none.nii.gz,a,yes\none.nii.gz,b,no\n"), gl.tasks.SEVERE_OUTCOME)
    assert yes.labels.tolist() == [1, 0]
