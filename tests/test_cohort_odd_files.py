"""Folders and tables as people have them: odd names, other encodings, links; nothing ends in a traceback."""

import os
import zipfile

import nibabel as nib
import numpy as np
import openpyxl
import pandas as pd
import pytest
from scan_files import chest, write_pictures, write_slices

import ggo_lab as gl
from ggo_lab.cohort.table_files import read_table
from ggo_lab.errors import CohortError
from ggo_lab.scan import window


def slices(folder, count=4):
    return write_pictures(folder, window(chest((count, 20, 20)), -300, 1400), "{}.jpg")


def volume(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(chest().T, np.diag([-1, -1, 5, 1])), path)


def names(cohort):
    return " ".join(name for finding in cohort.findings for name in finding.names)


ODD = ["ct_scan__12", "ct_scan_13_", "ct_scan_14 ", "CT_Scan_15", "ctscan16", "ct scan 17", "ct-scan-18"]


@pytest.mark.parametrize("odd", ODD)
def test_challenge_folders_with_odd_names_are_taken(tmp_path, odd):
    number = "".join(letter for letter in odd if letter.isdigit())
    slices(tmp_path / "train" / "covid" / odd)
    slices(tmp_path / "test" / f"test_{odd}")
    table = f"Name;Category\nct_scan_{number};2\n"
    (tmp_path / "train_partition_covid_categories.csv").write_text(table)
    cohort = gl.cov19_ctdb(tmp_path)
    assert cohort.names == [f"train/{odd.strip()}", f"test/test_{odd}".strip()]
    assert len(cohort.scan(0).hu) == 4


def test_challenge_folders_that_are_not_taken_are_named(tmp_path):
    slices(tmp_path / "train" / "covid" / "ct_scan_1")
    for other in ("ct_scan_1b", "patient 7", "ct_scan__1"):
        slices(tmp_path / "train" / "covid" / other)
    (tmp_path / "train" / "ct_scan_9").mkdir()
    (tmp_path / "train_partition_covid_categories.csv").write_text("Name;Category\nct_scan_1;2\n")
    cohort = gl.cov19_ctdb(tmp_path)
    assert len(cohort) == 1
    for other in ("ct_scan_1b", "patient 7", "ct_scan_9"):
        assert other in names(cohort)


@pytest.mark.parametrize("patient", ["NA", "nan", "null", "None", "N/A", "007", "1e5", "TRUE"])
@pytest.mark.parametrize("kind", ["csv", "xlsx"])
def test_an_id_is_what_is_written(tmp_path, patient, kind):
    volume(tmp_path / "one.nii")
    volume(tmp_path / "two.nii")
    table = pd.DataFrame(
        {"path": ["one.nii", "two.nii"], "patient": [patient, "NB"], "grade": ["1", "NA"], "age": [63, 7]}
    )
    if kind == "csv":
        table.to_csv(tmp_path / "t.csv", index=False)
    else:
        table.to_excel(tmp_path / "t.xlsx", index=False)
    cohort = gl.read_cohort(tmp_path / f"t.{kind}")
    assert cohort.table["patient"].tolist() == [patient, "NB"]
    assert cohort.table["label"].isna().tolist() == [False, True]
    assert cohort.table["age"].tolist() == [63, 7] and cohort.table["age"].dtype.kind in "if"


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "cp1252"])
def test_tables_of_other_encodings_are_read(tmp_path, encoding):
    volume(tmp_path / "one.nii")
    (tmp_path / "t.csv").write_bytes("path;patient;age\none.nii;Jäger;63,5\n".encode(encoding))
    cohort = gl.read_cohort(tmp_path / "t.csv")
    assert cohort.table["patient"].tolist() == ["Jäger"] and cohort.table["age"].tolist() == [63.5]
    assert any("Windows-1252" in finding.what for finding in cohort.findings) == (encoding == "cp1252")


@pytest.mark.parametrize("path", ["one.nii\0", "\0", "x" * 5000, "a/../" * 900 + "one.nii", "\ud800", " "])
def test_a_path_that_no_system_takes_is_missing(tmp_path, path):
    volume(tmp_path / "one.nii")
    table = pd.DataFrame({"path": ["one.nii", path], "name": ["a", "b"]})
    (tmp_path / "t.csv").write_bytes(table.to_csv(index=False).encode("utf-8", "surrogatepass"))
    try:
        cohort = gl.read_cohort(tmp_path / "t.csv")
    except CohortError as error:
        assert "not a readable table" in str(error) or "missing" in str(error)
    else:
        assert "a" in cohort.names and print(cohort.findings, cohort.table) is None


def test_paths_as_windows_writes_them(tmp_path):
    volume(tmp_path / "scans" / "one.nii")
    (tmp_path / "t.csv").write_text("path\nscans\\one.nii\n")
    assert len(gl.read_cohort(tmp_path / "t.csv").scan(0).hu) == 5


def test_tables_that_never_end_are_refused_before_they_are_read(tmp_path):
    row = b'<row><c t="inlineStr"><is><t>a</t></is></c></row>'
    openpyxl.Workbook().save(tmp_path / "small.xlsx")
    with zipfile.ZipFile(tmp_path / "small.xlsx") as small:
        parts = {name: small.read(name) for name in small.namelist()}
    start = b'<worksheet xmlns="http://schemas.openxmlformats.org/spreadsheetml/2006/main"><sheetData>'
    for rows, words in ((3_000_000, "MB when unpacked"), (150_000, "more than 100000 rows")):
        sheet = start + row * rows + b"</sheetData></worksheet>"
        with zipfile.ZipFile(tmp_path / "t.xlsx", "w", zipfile.ZIP_DEFLATED) as large:
            for name, content in {**parts, "xl/worksheets/sheet1.xml": sheet}.items():
                large.writestr(name, content)
        with pytest.raises(CohortError, match=words):
            read_table(tmp_path / "t.xlsx")
    (tmp_path / "t.csv").write_text("path\n" + "a\n" * 100_001)
    with pytest.raises(CohortError, match="more than 100000 rows"):
        read_table(tmp_path / "t.csv")
    (tmp_path / "t.csv").write_text(",".join(f"c{n}" for n in range(1001)) + "\n")
    with pytest.raises(CohortError, match="1000 columns"):
        read_table(tmp_path / "t.csv")
    with (tmp_path / "t.csv").open("wb") as file:
        file.truncate(65 << 20)
    with pytest.raises(CohortError, match="more than 64 MB"):
        read_table(tmp_path / "t.csv")


NO_TABLES = {
    "empty": b"",
    "zeros": b"\0" * 300,
    "ones": b"\xff" * 300,
    "heads of archives": b"PK\3\4" * 60,
    "random": np.random.default_rng(0).bytes(400),
    "open quotes": b'"path\n' * 9,
}


@pytest.mark.parametrize("content", NO_TABLES.values(), ids=NO_TABLES.keys())
@pytest.mark.parametrize("name", ["t.csv", "t.xlsx", "t.xls", "t.ods", "t.txt"])
def test_what_is_no_table_is_refused_in_one_sentence(tmp_path, content, name):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(CohortError) as refused:
        gl.read_cohort(tmp_path / name)
    assert str(refused.value).isprintable()


def test_a_column_that_comes_twice_is_refused(tmp_path):
    (tmp_path / "t.csv").write_text("path, path ,grade\na,b,1\n")
    with pytest.raises(CohortError, match="column 'path' more than once"):
        gl.read_cohort(tmp_path / "t.csv")


LOADERS = [gl.cov19_ctdb, gl.mosmed, gl.cohort.covid_ct_md, gl.cohort.stoic, gl.Cohort.from_folder]


def trap(root):
    """What lies about on disks: links to nowhere and in circles, pipes, bytes for names, tables that are none."""
    (root / "train" / "ct_scan_1").mkdir(parents=True)
    (root / "train" / "ct_scan_1" / "again").symlink_to(root / "train" / "ct_scan_1")
    (root / "loop").symlink_to(root)
    (root / "nowhere.nii.gz").symlink_to(root / "gone")
    os.mkfifo(root / "train" / "pipe")
    os.mkfifo(root / "1.dcm")
    (root / os.fsdecode(b"M\xe4rz.nii")).write_bytes(b"hello")
    (root / "ICASSP_severity_train_partition.xlsx").write_bytes(b"no table")
    (root / "dataset_registry.xlsx").mkdir()
    (root / "reference.csv").write_bytes(b"PatientID,probCOVID,probSevere\n1,x,inf\n")
    (root / "1.mha").write_bytes(b"")
    (root / "Cap Cases" / "P1").mkdir(parents=True)
    os.mkfifo(root / "Cap Cases" / "P1" / "2.dcm")
    (root / "studies" / "CT-1").mkdir(parents=True)
    (root / "studies" / "CT-1" / "study_0001.nii.gz").write_bytes(b"x")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes on this system")
@pytest.mark.parametrize("loader", LOADERS, ids=lambda loader: loader.__name__)
def test_loaders_raise_nothing_but_cohort_errors(tmp_path, loader, capsys):
    trap(tmp_path)
    for inside in [
        tmp_path,
        *(folder for folder in tmp_path.rglob("*") if folder.is_dir() and not folder.is_symlink()),
    ]:
        try:
            cohort = loader(inside)
        except CohortError as error:
            assert str(error).isprintable()
        else:
            print(cohort, cohort.findings, cohort.table.to_string())
            for row in cohort.table.to_dict("records"):
                assert cohort.identify_row(row)
    assert "Traceback" not in capsys.readouterr().out


@pytest.mark.skipif(os.name == "nt", reason="such names exist elsewhere")
def test_names_that_are_not_utf8_are_left_out_and_named(tmp_path):
    volume(tmp_path / "one.nii")
    volume(tmp_path / os.fsdecode(b"M\xe4rz.nii"))
    cohort = gl.Cohort.from_folder(tmp_path)
    assert cohort.names == ["one.nii"] and "M\ufffdrz.nii" in names(cohort)
    (tmp_path / "one.nii").unlink()
    with pytest.raises(CohortError, match="UTF-8"):
        gl.Cohort.from_folder(tmp_path)


def test_what_to_do_with_archives_and_pairs_is_said(tmp_path):
    volume(tmp_path / "one.nii")
    for name in ("more.zip", "old.hdr", "old.img"):
        (tmp_path / name).write_bytes(b"x")
    told = {finding.what.split(":")[0]: finding.names for finding in gl.Cohort.from_folder(tmp_path).findings}
    assert told["Archives"] == ("more.zip",) and told["Halves of Analyze or NIfTI pairs"] == ("old.hdr", "old.img")


def test_a_picture_beside_scans_is_no_scan(tmp_path):
    volume(tmp_path / "one.nii")
    slices(tmp_path / "jpg" / "ct_scan_1")
    for place in (tmp_path, tmp_path / "jpg"):
        slices(place / "new", 1)[0].rename(place / "logo.jpg")
        (place / "new").rmdir()
    cohort = gl.Cohort.from_folder(tmp_path)
    assert sorted(cohort.names) == ["jpg/ct_scan_1", "one.nii"] and "logo.jpg" in names(cohort)


def test_dicom_without_a_mark_is_found_in_a_folder(tmp_path):
    for path in write_slices(tmp_path / "study", chest()):
        path.rename(path.with_suffix(""))
    assert gl.Cohort.from_folder(tmp_path).names == ["study"]


def test_a_files_own_name_is_no_split(tmp_path):
    for name in ("train/test_004.nii.gz", "test/train_1.nii.gz"):
        volume(tmp_path / name)
    table = gl.Cohort.from_folder(tmp_path).table.set_index("name")
    assert table["split"].to_dict() == {"train/test_004.nii.gz": "train", "test/train_1.nii.gz": "test"}


def test_an_empty_table_says_so(tmp_path):
    (tmp_path / "t.csv").write_text("path,grade\n")
    with pytest.raises(CohortError, match="has no rows"):
        gl.read_cohort(tmp_path / "t.csv")
