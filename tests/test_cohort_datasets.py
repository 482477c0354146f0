"""Loaders of public sets and of folders, on trees of files written here as the archives unpack."""

import operator
import re
from pathlib import Path
from types import SimpleNamespace
from zlib import crc32

import numpy as np
import pandas as pd
import pytest
import SimpleITK as sitk
from PIL import Image

import ggo_lab as gl

GREY = np.random.default_rng(0).integers(0, 255, (3, 16, 16), np.uint8)


def jpg_folder(folder, suffix=".jpg"):
    folder.mkdir(parents=True)
    for number, grey in enumerate(GREY):
        Image.fromarray(grey).save(folder / f"{number}{suffix}")
    return folder


def partition(rows, path):
    path.parent.mkdir(parents=True, exist_ok=True)
    table = pd.DataFrame(rows, columns=["Name", "Category"])
    if path.suffix == ".xlsx":
        table.to_excel(path, index=False)
    else:
        table.to_csv(path, sep=";", index=False)


def said(cohort, topic):
    """The findings of a topic in one text, with the names."""
    return "\n".join(f"{f.status} {f.what} {', '.join(f.names)}" for f in cohort.findings if f.topic == topic)


def edition_2022(root):
    """As participants of the 2022 challenge keep it (KieDani/Submission_2nd_Covid19_Competition, README)."""
    for split, n in (("train", 3), ("validation", 2)):
        for number in range(n):
            jpg_folder(root / f"{split}_cov19d" / "covid" / f"ct_scan_{number}")
        jpg_folder(root / f"{split}_cov19d" / "non-covid" / "ct_scan_0")
    jpg_folder(root / "test_cov19d" / "severity" / "part_2_test_set_ECCV_22" / "test_ct_scan_10")
    jpg_folder(root / "test_cov19d" / "severity" / "part_2_test_set_ECCV_22" / "test_ct_scan_9")
    jpg_folder(root / "test_cov19d" / "detection" / "ct_scan_4")
    train = [("ct_scan_0", 1), ("ct_scan_1", 4)]
    partition(train, root / "train_cov19d" / "train_partition_covid_categories.csv")
    partition([("ct_scan_0", 2), ("ct_scan_1", 3)], root / "validation_cov19d" / "val_partition_covid_categories.csv")


def edition_2023(root):
    """As participants of the 2023 challenge keep it (rbturnbull/cov3d, cross-validation.py)."""
    for split, n in (("train", 3), ("validation", 2)):
        for number in range(n):
            jpg_folder(root / split / "covid" / f"ct_scan_{number}")
        jpg_folder(root / split / "non-covid" / "ct_scan_0")
    for number in (9, 10):
        jpg_folder(root / "test" / f"test_ct_scan_{number}")
    partition([("ct_scan_0", 1), ("ct_scan_1", 4)], root / "ICASSP_severity_train_partition.xlsx")
    partition([("ct_scan_0", 2), ("ct_scan_1", 3)], root / "ICASSP_severity_validation_partition.xlsx")


@pytest.mark.parametrize("edition", [edition_2022, edition_2023])
def test_cov19_ctdb_reads_both_editions(tmp_path, edition):
    edition(tmp_path)
    cohort = gl.cov19_ctdb(tmp_path)
    assert dict(zip(cohort.names, cohort.labels, strict=True)) == {
        "train/ct_scan_0": 0,
        "train/ct_scan_1": 3,
        "validation/ct_scan_0": 1,
        "validation/ct_scan_1": 2,
        "test/test_ct_scan_9": -1,
        "test/test_ct_scan_10": -1,
    }
    assert cohort.table["split"].tolist() == ["train"] * 2 + ["validation"] * 2 + ["test"] * 2
    scan = cohort.scan("validation/ct_scan_1")
    assert scan.shape == (3, 16, 16) and not scan.is_hu
    left_out = said(cohort, "left out")
    assert "Scans are without COVID-19" in left_out and "covid/ct_scan_2" in left_out, "every scan is accounted for"
    assert "fine 6 scans: 2 of train, 2 of validation, 2 of test." in said(cohort, "found")
    assert not cohort.findings.of("wrong")


@pytest.mark.parametrize("folders", ["Train/Covid", "deep/er/Train_set/covid"])
def test_cov19_ctdb_is_tolerant_of_the_folders_around(tmp_path, folders):
    jpg_folder(tmp_path / folders / "ct_scan_7" / "ct_scan_7")  # unpacked one level too deep
    partition([("ct_scan_7", 2), (None, None)], tmp_path / "Severity" / "train_partition_covid_categories.csv")
    cohort = gl.cov19_ctdb(tmp_path)
    assert cohort.names == ["train/ct_scan_7"] and cohort.scan(0).shape == (3, 16, 16)
    assert not cohort.findings.of("wrong")


def test_sets_are_found_through_links_to_other_disks(tmp_path):
    edition_2023(tmp_path / "disk" / "set")
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "link").symlink_to(tmp_path / "disk" / "set")
    (tmp_path / "disk" / "set" / "round").symlink_to(tmp_path / "data")  # and back: it must end
    assert len(gl.cov19_ctdb(tmp_path / "data")) == 6
    assert len(gl.Cohort.from_folder(tmp_path / "data")) == 9


def test_cov19_ctdb_names_whatever_does_not_fit(tmp_path):
    for number in range(6):
        jpg_folder(tmp_path / "train" / "covid" / f"ct_scan_{number}")
    (tmp_path / "train" / "covid" / "ct_scan_6").mkdir()
    jpg_folder(tmp_path / "train" / "again" / "ct_scan_0")
    jpg_folder(tmp_path / "elsewhere" / "ct_scan_1")
    rows = [("ct_scan_0", 1), ("ct_scan_1", 5), ("ct_scan_2", 2), ("ct_scan_2", 3), ("ct_scan_3", 3), ("ct_scan_3", 3)]
    rows += [("ct_scan_6", 1), ("ct_scan_77", 2), ("scan 5", 4)]
    partition(rows, tmp_path / "ICASSP_severity_train_partition.xlsx")
    cohort = gl.cov19_ctdb(tmp_path)
    assert cohort.names == ["train/ct_scan_0", "train/ct_scan_3"] and cohort.labels.tolist() == [0, 2]
    wrong = "\n".join(f"{f.what} {', '.join(f.names)}" for f in cohort.findings.of("wrong"))
    assert "ct_scan_1: 5" in wrong
    assert "Scans of ICASSP_severity_train_partition.xlsx have no folder with slices. ct_scan_6, ct_scan_77" in wrong
    assert "two grades: left out. ct_scan_2" in wrong
    assert "scan 5" in wrong and "train/covid/ct_scan_6" in wrong
    assert "elsewhere/ct_scan_1" in wrong
    assert "repeat the number" in wrong
    assert "132/123/166/39 were published" in said(cohort, "does not match")


def test_cov19_ctdb_refuses_tables_that_contradict_each_other(tmp_path):
    edition_2023(tmp_path)
    partition([("ct_scan_0", 1)], tmp_path / "old" / "train_partition_covid_categories.csv")
    with pytest.raises(gl.CohortError, match="2 tables give grades for train, and they differ"):
        gl.cov19_ctdb(tmp_path)


@pytest.mark.parametrize(("edition", "tests"), [(edition_2022, 1), (edition_2023, 2)])
def test_cov19_ctdb_is_also_the_detection_challenge(tmp_path, edition, tests):
    edition(tmp_path)
    cohort = gl.cov19_ctdb(tmp_path, gl.tasks.COVID_DETECTION)
    assert cohort.task == gl.tasks.COVID_DETECTION and not cohort.findings.of("wrong")
    assert cohort.counts().to_dict("index") == {
        "train": {"non-covid": 1, "covid": 3, "unknown": 0},
        "validation": {"non-covid": 1, "covid": 2, "unknown": 0},
        "test": {"non-covid": 0, "covid": 0, "unknown": tests},
    }
    assert cohort.row("train/non-covid/ct_scan_0")["label"] == 0 and cohort.row("train/covid/ct_scan_2")["label"] == 1
    assert cohort.scan("validation/covid/ct_scan_1").shape == cohort.scan(-1).shape
    with pytest.raises(gl.ChoiceError, match="task="):
        gl.cov19_ctdb(tmp_path, gl.tasks.MOSMED)


@pytest.mark.parametrize(
    "load", [gl.cov19_ctdb, gl.mosmed, gl.cohort.covid_ct_md, gl.cohort.stoic, gl.Cohort.from_folder]
)
def test_a_folder_without_the_set_is_refused_in_one_sentence(tmp_path, load):
    with pytest.raises(gl.CohortError, match="no such folder"):
        load(tmp_path / "absent")
    (tmp_path / "notes.txt").write_text("nothing")
    with pytest.raises(gl.CohortError, match=r"give the folder|in a folder such as|give a folder"):
        load(tmp_path)


def test_cov19_ctdb_refuses_a_table_without_its_columns(tmp_path):
    edition_2023(tmp_path)
    pd.DataFrame({"scan": ["ct_scan_0"]}).to_excel(tmp_path / "ICASSP_severity_train_partition.xlsx", index=False)
    with pytest.raises(gl.CohortError, match="needs the columns Name and Category"):
        gl.cov19_ctdb(tmp_path)


def test_predictions_are_written_in_the_challenges_form(tmp_path):
    names = ["test/test_ct_scan_10", "test/test_ct_scan_9", "test/test_ct_scan_2"]
    predictions = SimpleNamespace(names=names, predicted=np.array([0, 0, 3]), task=gl.GGO_SEVERITY)
    paths = gl.cohort.write_predictions(predictions, tmp_path / "submission")
    assert [p.name for p in paths] == ["mild.csv", "moderate.csv", "severe.csv", "critical.csv"]
    assert paths[0].read_text(encoding="utf-8") == "test_ct_scan_9\ntest_ct_scan_10\n"
    assert (
        paths[1].read_text(encoding="utf-8") == paths[2].read_text(encoding="utf-8") == ""
        and paths[3].read_text(encoding="utf-8") == "test_ct_scan_2\n"
    )
    twice = SimpleNamespace(
        names=["train/ct_scan_1", "validation/ct_scan_1"], predicted=np.array([0, 1]), task=gl.GGO_SEVERITY
    )
    with pytest.raises(gl.CohortError, match="one split"):
        gl.cohort.write_predictions(twice, tmp_path)


def tiny(seed=1):
    return gl.make_phantom(grade=2, seed=seed, shape=(8, 32, 32))


def mosmed_tree(root, studies, registry):
    scan = tiny()
    for place in studies:
        gl.write_nifti(scan, root / place)
    gl.write_nifti(scan.truth.lesions, root / "masks" / "study_0002_mask.nii.gz", spacing=scan.spacing)
    if registry is not None:
        pd.DataFrame(registry, columns=["study_id", "category", "study_file", "mask_file"]).to_excel(
            root / "dataset_registry.xlsx", index=False
        )
    return scan


def test_mosmed_reads_categories_and_masks(tmp_path):
    root = tmp_path / "COVID19_1110"
    studies = ["studies/CT-0/study_0001.nii.gz", "studies/CT-2/study_0002.nii.gz", "studies/CT-4/study_0003.nii"]
    registry = [(s.split("/")[-1].split(".")[0], s.split("/")[1], s, None) for s in studies]
    scan = mosmed_tree(root, studies, registry)
    cohort = gl.mosmed(tmp_path)
    assert cohort.names == ["study_0001", "study_0002", "study_0003"]
    assert cohort.task == gl.tasks.MOSMED and cohort.labels.tolist() == [0, 2, 4]
    four = cohort.graded_as(gl.GGO_SEVERITY)
    assert four.task == gl.GGO_SEVERITY and four.labels.tolist() == [-1, 1, 3]
    assert cohort.graded_as(gl.tasks.COVID_DETECTION).labels.tolist() == [0, 1, 1]
    with pytest.raises(gl.ChoiceError, match="no bands"):
        cohort.graded_as(gl.tasks.DIAGNOSIS)
    assert cohort.table["category"].tolist() == ["CT-0", "CT-2", "CT-4"]
    assert cohort.table["mask"].isna().tolist() == [True, False, True]
    assert np.array_equal(gl.readers.read_labels(cohort.row(1)["mask"]), scan.truth.lesions)
    assert np.array_equal(cohort.scan(2).hu, scan.hu)
    assert not cohort.findings.of("wrong") and "254/684/125/45/2" in said(cohort, "found")


def test_mosmed_names_what_the_registry_contradicts(tmp_path):
    studies = ["studies/CT-1/study_0002.nii.gz", "studies/CT-1/study_0004.nii.gz", "studies/CT-1/study_0005.nii.gz"]
    registry = [
        ("study_0002", "CT-1", "/studies/CT-1/study_0002.nii.gz", None),
        ("study_0004", "CT-3", "/studies/CT-3/study_0004.nii.gz", None),
        ("study_0009", "CT-3", "/studies/CT-3/study_0009.nii.gz", None),
    ]
    mosmed_tree(tmp_path, [*studies, "copy/CT-1/study_0002.nii.gz", "study_0008.nii.gz"], registry)
    cohort = gl.mosmed(tmp_path)
    assert cohort.names == ["study_0002", "study_0005"]
    assert "study_0004" in said(cohort, "does not match") and "study_0005" in said(cohort, "does not match")
    assert "study_0009" in said(cohort, "missing")
    assert "study_0008" in said(cohort, "left out") and "studies/CT-1/study_0002.nii.gz" in said(cohort, "left out")


def test_mosmed_without_its_registry_goes_by_the_folders(tmp_path):
    mosmed_tree(tmp_path, ["CT-1/study_0002.nii.gz"], None)
    cohort = gl.mosmed(tmp_path)
    assert cohort.labels.tolist() == [1] and "No dataset_registry.xlsx" in said(cohort, "missing")


def write_dicom(folder, patient, hu=None, n=3):
    """A short axial series whose names do not sort in the slices' order."""
    folder.mkdir(parents=True, exist_ok=True)
    writer = sitk.ImageFileWriter()
    writer.KeepOriginalImageUIDOn()
    hu = np.linspace(-1000, 300, n * 16 * 16).reshape(n, 16, 16).astype(np.int16) if hu is None else hu
    for z, plane in enumerate(hu):
        image = sitk.GetImageFromArray(plane[None])
        image.SetSpacing((20.0, 20.0, 5.0))
        tags = {
            "0008|0060": "CT",
            "0010|0020": patient,
            "0020|000d": "1.2.3",
            "0020|000e": f"1.2.3.{crc32(str(folder).encode())}",
            "0008|0018": f"1.2.3.{crc32(str(folder).encode())}.{z}",
            "0020|0032": f"0\\0\\{5 * z}",
            "0020|0037": "1\\0\\0\\0\\1\\0",
        }
        for tag, value in tags.items():
            image.SetMetaData(tag, value)
        writer.SetFileName(str(folder / f"{(7 * z) % n}.dcm"))
        writer.Execute(image)


@pytest.mark.parametrize("ending", ["Cases", "subjects"])
def test_covid_ct_md_reads_patients_by_diagnosis(tmp_path, ending):
    root = tmp_path / "COVID-CT-MD"
    write_dicom(root / f"COVID-19 {ending}" / "P001", "P001")
    write_dicom(root / f"Cap {ending}" / "cap001", "cap001")
    write_dicom(root / f"Normal {ending}" / "normal001", "normal001")
    (root / f"Normal {ending}" / "normal002").mkdir()
    (root / f"Normal {ending}" / "list.txt").write_text("a list")
    (root / "Index.csv").write_text("Patient\nP001\n")
    cohort = gl.cohort.covid_ct_md(tmp_path)
    told = dict(zip(cohort.names, cohort.table["diagnosis"], strict=True))
    assert told == {"P001": "COVID-19", "cap001": "CAP", "normal001": "normal"}
    assert [cohort.task.names[label] for label in cohort.labels] == list(cohort.table["diagnosis"])
    assert cohort.task == gl.tasks.DIAGNOSIS and cohort.scan("P001").shape == (3, 16, 16)
    assert "normal002" in said(cohort, "empty") and "list.txt" in said(cohort, "left out")
    assert "Index.csv" in said(cohort, "left out") and "169/60/76" in said(cohort, "found")


def test_stoic_reads_outcomes(tmp_path):
    (tmp_path / "metadata").mkdir()
    (tmp_path / "data" / "mha").mkdir(parents=True)
    (tmp_path / "metadata" / "reference.csv").write_text(
        "PatientID,probCOVID,probSevere\n10,1.0,0.0\n2,1.0,1.0\n7,0,1\n"
    )
    for name in ("10", "2", "8"):
        image = sitk.GetImageFromArray(tiny().hu)
        sitk.WriteImage(image, str(tmp_path / "data" / "mha" / f"{name}.mha"))
    cohort = gl.cohort.stoic(tmp_path)
    rows = cohort.table.set_index("name")
    assert rows.loc[["10", "2"], "severe"].tolist() == [0, 1] and rows.loc[["10", "2"], "covid"].tolist() == [1, 1]
    assert pd.isna(rows.loc["8", "severe"])
    assert cohort.task == gl.tasks.SEVERE_OUTCOME and rows["label"].equals(rows["severe"].rename("label"))
    assert cohort.scan("2").shape == (8, 32, 32)
    assert "7" in said(cohort, "missing") and "8" in said(cohort, "does not match")


def test_a_folder_of_mixed_scans_becomes_a_cohort(tmp_path):
    gl.write_nifti(tiny(), tmp_path / "train" / "one.nii.gz")
    gl.write_nifti(tiny().truth.lesions, tmp_path / "train" / "one_mask.nii.gz", spacing=tiny().spacing)
    jpg_folder(tmp_path / "val" / "two", ".png")
    write_dicom(tmp_path / "export" / "A" / "series", "A")
    write_dicom(tmp_path / "export" / "B", "B")
    (tmp_path / "export" / "DICOMDIR").write_bytes(bytes(128) + b"DICM")
    sitk.WriteImage(sitk.GetImageFromArray(tiny(2).hu), str(tmp_path / "three.mhd"))
    (tmp_path / "readme.txt").write_text("about")
    cohort = gl.Cohort.from_folder(tmp_path)
    assert cohort.names == ["three.mhd", "export/A/series", "export/B", "train/one.nii.gz", "val/two"]
    assert cohort.table["patient"].tolist()[1:3] == ["A", "B"]
    assert cohort.table["split"].fillna("-").tolist() == ["-", "-", "-", "train", "validation"]
    assert all(cohort.scan(name).shape for name in cohort.names)
    out = said(cohort, "left out")
    assert "train/one_mask.nii.gz" in out and "export/DICOMDIR" in out and "readme.txt" in out and ".raw" not in out


def test_one_patients_scans_in_folders_of_two_splits_are_refused(tmp_path):
    for place, patient in (("train/x", "A"), ("test/y", "A"), ("train/z", "B")):
        write_dicom(tmp_path / place, patient)
    with pytest.raises(gl.CohortError, match=r"two splits.*'A'"):
        gl.Cohort.from_folder(tmp_path)


def test_read_cohort_takes_excel_and_names_missing_scans(tmp_path):
    gl.write_nifti(tiny(), tmp_path / "one.nii.gz")
    rows = [("one.nii.gz", "007", 2), ("absent.nii.gz", "008", 3)]
    pd.DataFrame(rows, columns=["path", "patient", "grade"]).to_excel(tmp_path / "cohort.xlsx", index=False)
    cohort = gl.read_cohort(tmp_path / "cohort.xlsx")
    assert cohort.table["patient"].tolist() == ["007", "008"], "patients keep their zeros"
    assert "absent.nii.gz" in said(cohort, "missing") and "things to look at" in repr(cohort)


@pytest.mark.parametrize(
    "text", ["path\none.nii.gz\n", "\ufeffpath;grade\none.nii.gz;2\n", "path\tgrade\none.nii.gz\t2\n"]
)
def test_read_cohort_finds_the_separator(tmp_path, text):
    gl.write_nifti(tiny(), tmp_path / "one.nii.gz")
    (tmp_path / "cohort.csv").write_text(text, encoding="utf-8")
    assert gl.read_cohort(tmp_path / "cohort.csv").names == ["one.nii.gz"]


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 cut", b"\xff\xfe\x00"])
def test_a_damaged_table_is_refused(tmp_path, content):
    for name in ("cohort.xlsx", "cohort.csv"):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(gl.CohortError, match=r"not a readable table|no column 'path'"):
            gl.read_cohort(tmp_path / name)


def test_the_data_readme_names_only_what_the_package_has():
    text = (Path(__file__).parents[1] / "data" / "README.md").read_text(encoding="utf-8")
    called = set(re.findall(r"\bgl\.([\w.]+)", text))
    assert {"cov19_ctdb", "mosmed", "cohort.covid_ct_md", "cohort.stoic", "read_cohort", "Cohort.from_folder"} <= called
    for name in called:
        assert operator.attrgetter(name)(gl), name
    for anchor in re.findall(r"\]\(#([\w-]+)\)", text):
        titles = [
            re.sub(r"[^\w\s-]", "", title).lower().replace(" ", "-") for title in re.findall(r"^## (.+)$", text, re.M)
        ]
        assert anchor in titles, f"{anchor} leads nowhere"
