"""Cohorts written as public sets lay them out, and read back through the loaders."""

import json
import os
import signal

import numpy as np
import pandas as pd
import pytest
from PIL import Image

import ggo_lab as gl
from ggo_lab.readers import nifti

N, SHAPE = 8, (8, 32, 32)


@pytest.fixture(scope="module")
def cohort():
    """Eight phantoms in all three splits, two of them without a label."""
    table = gl.phantom_cohort(N, seed=1, shape=SHAPE).table
    table["split"] = ["train"] * 3 + ["validation"] * 3 + ["test"] * 2
    table["label"] = [0, 1, None, 2, 3, None, 0, 1]
    scans = {name: gl.make_phantom(involvement=0.3, seed=i, shape=SHAPE) for i, name in enumerate(table["name"])}
    return gl.Cohort(table, lambda row: scans[row["name"]], lambda row: row["name"])


@pytest.mark.parametrize("edition", [2022, 2023])
def test_cov19_ctdb_goes_round(tmp_path, cohort, edition):
    root = gl.cohort.write_as_cov19_ctdb(cohort, tmp_path / "out", edition, jobs=1, progress=False)
    tables = sorted(p.name for p in root.iterdir() if p.is_file() and not p.name.startswith("."))
    if edition == 2023:
        assert tables == ["ICASSP_severity_train_partition.xlsx", "ICASSP_severity_validation_partition.xlsx"]
    else:
        assert tables == ["train_partition_covid_categories.csv", "val_partition_covid_categories.csv"]
        assert (root / tables[0]).read_text(encoding="utf-8") == "Name;Category\nct_scan_0;1\nct_scan_1;2\n"
    back = gl.cov19_ctdb(root)
    assert back.names == [
        *("train/ct_scan_0", "train/ct_scan_1", "validation/ct_scan_0", "validation/ct_scan_1"),
        *("test/ct_scan_0", "test/ct_scan_1"),
    ]
    assert back.labels.tolist() == [0, 1, 2, 3, -1, -1]
    assert not back.findings.of("wrong") and "2  Scans are without COVID-19" in repr(back.findings)
    for row, name in ((0, "train/ct_scan_0"), (7, "test/ct_scan_1")):
        written, read = cohort.scan(row).hu, back.scan(name).hu
        assert read.shape == written.shape, "the same slices"
        clipped = np.clip(written.astype(float), -1000, 400)
        assert np.abs(clipped - read).mean() < 15, "the right way up, within what JPG loses"
        assert np.abs(clipped[::-1] - read).mean() > 100, "which the wrong way up would not be"


def test_mosmed_goes_round(tmp_path, cohort):
    root = gl.cohort.write_as_mosmed(cohort, tmp_path / "out", jobs=1, progress=False)
    registry = pd.read_excel(root / "dataset_registry.xlsx")
    assert registry["category"].tolist() == ["CT-0", "CT-0", "CT-1", "CT-1", "CT-2", "CT-2", "CT-3", "CT-4"]
    back = gl.mosmed(root)
    assert back.names == [f"study_{n:04d}" for n in range(1, 9)]
    assert back.labels.tolist() == [0, 0, 1, 1, 2, 2, 3, 4] and not back.findings.of("wrong")
    names = json.loads((root / ".written_by_ggo_lab.json").read_text(encoding="utf-8"))["names"]
    for place, name in names.items():
        study = place.split("/")[-1].removesuffix(".nii.gz")
        scan = cohort.scan(name)
        assert np.array_equal(back.scan(study).hu, scan.hu)
        assert np.array_equal(gl.readers.read_labels(back.row(study)["mask"]), scan.truth.lesions)


@pytest.mark.parametrize("write", [gl.cohort.write_as_cov19_ctdb, gl.cohort.write_as_mosmed])
def test_an_interrupted_writing_goes_on_where_it_stopped(tmp_path, cohort, write):
    opened = []

    def open_row(row):
        opened.append(row["name"])
        if len(opened) == 4:
            raise KeyboardInterrupt
        return cohort.open_row(row)

    counted = gl.Cohort(cohort.table, open_row, cohort.identify_row)
    with pytest.raises(KeyboardInterrupt):
        write(counted, tmp_path / "out", jobs=1, progress=False)
    write(counted, tmp_path / "out", jobs=1, progress=False)
    assert len(opened) == 4 + N - 3, "three were whole before the interruption"
    clean = write(cohort, tmp_path / "clean", jobs=1, progress=False)

    def bytes_of(root):
        return {p.relative_to(root): p.read_bytes() for p in root.rglob("*") if p.suffix in (".jpg", ".gz")}

    assert bytes_of(tmp_path / "out") == bytes_of(clean)
    write(counted, tmp_path / "out", jobs=1, progress=False)
    assert len(opened) == 4 + N - 3, "a finished folder is left as it is"


def kill_self(*_, **__):
    os.kill(os.getpid(), signal.SIGKILL)


def half_a_picture(picture, path, **_):
    path.write_bytes(b"half")
    kill_self()


# What is patched in the process that dies, and so the moment at which it dies.
MOMENTS = {
    "while the mark gets its name": (os, "replace", kill_self),
    "while a slice is written": (Image.Image, "save", half_a_picture),
    "while a study is written": (nifti.Nifti1Image, "to_stream", kill_self),
}


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs a system that can copy a process")
@pytest.mark.parametrize("moment", MOMENTS)
def test_killed_at_any_moment_the_next_call_finishes_and_leaves_nothing_else(tmp_path, cohort, moment, monkeypatch):
    write = gl.cohort.write_as_mosmed if "study" in moment else gl.cohort.write_as_cov19_ctdb
    child = os.fork()
    if child == 0:
        try:
            monkeypatch.setattr(*MOMENTS[moment])
            write(cohort, tmp_path / "out", jobs=1, progress=False)
        finally:
            os._exit(0)
    assert os.WIFSIGNALED(os.waitpid(child, 0)[1]), "the process outlived its moment: the test tests nothing"
    assert list((tmp_path / "out").rglob(".unfinished-*")), "nor does it without something half-written"
    write(cohort, tmp_path / "out", jobs=1, progress=False)
    write(cohort, tmp_path / "clean", jobs=1, progress=False)

    def content_of(root):
        files = [path for path in root.rglob("*") if path.suffix != ".xlsx"]  # these bear the time of writing
        return {path.relative_to(root): path.is_file() and path.read_bytes() for path in files}

    assert content_of(tmp_path / "out") == content_of(tmp_path / "clean")


def test_a_full_disk_says_so_and_leaves_nothing_half_written(tmp_path, cohort, monkeypatch):
    def no_space(picture, path, **_):
        path.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(Image.Image, "save", no_space)
        with pytest.raises(gl.GgoLabError, match="No space left"):
            gl.cohort.write_as_cov19_ctdb(cohort, tmp_path / "out", jobs=1, progress=False)
    assert not [path for path in (tmp_path / "out").rglob("*") if path.is_file() and path.suffix != ".json"]
    assert len(gl.cov19_ctdb(gl.cohort.write_as_cov19_ctdb(cohort, tmp_path / "out", jobs=1, progress=False))) == 6


def test_a_folder_with_something_else_is_refused(tmp_path, cohort):
    (tmp_path / "mine.txt").write_text("do not touch")
    with pytest.raises(gl.CohortError, match="something else"):
        gl.cohort.write_as_mosmed(cohort, tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["mine.txt"]
    gl.cohort.write_as_mosmed(cohort.subset([0]), tmp_path / "out", progress=False)
    with pytest.raises(gl.CohortError, match="something else"):
        gl.cohort.write_as_mosmed(cohort.subset([1]), tmp_path / "out")


def test_scans_without_a_split_and_unknown_editions_are_refused(tmp_path, cohort):
    with pytest.raises(gl.CohortError, match="split_by_patient"):
        gl.cohort.write_as_cov19_ctdb(gl.Cohort(cohort.table.assign(split=None), None, None), tmp_path / "out")
    with pytest.raises(gl.ChoiceError, match="edition=2021"):
        gl.cohort.write_as_cov19_ctdb(cohort, tmp_path / "out", 2021)
    assert list(tmp_path.iterdir()) == []
