"""Damaged files: a short pass of the fuzzer, and what its long passes found."""

import bz2
import gzip
import subprocess
import sys
import zlib
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
from fuzz_readers import Findings, corpus, damaged, run
from scan_files import as_itk, chest, write_slices

from ggo_lab.errors import ScanError
from ggo_lab.readers import read_scan


def test_no_damage_ends_in_anything_but_a_scan_or_an_error():
    findings = run(count=300, seed=3)
    assert findings.faults == []
    assert sum(findings.outcomes.values()) == 300
    assert {kind for _, kind in findings.outcomes} == {"scan", "labels", "ScanError"}


def test_every_sample_of_the_fuzzer_is_read_before_it_is_damaged(tmp_path):
    for name, sample in corpus(tmp_path).items():
        read_scan(tmp_path / name / sample.opened)


def test_a_case_is_the_same_bytes_every_time(tmp_path):
    samples = corpus(tmp_path)
    assert damaged(samples, 1, 5) == damaged(samples, 1, 5) != damaged(samples, 2, 5)


@pytest.mark.parametrize(
    ("code", "fault"),
    [
        ("import os; os.abort()", "the process died with status -6"),
        ("import time; time.sleep(60)", "no end after"),
        ("raise KeyError(7)", "FAULT KeyError: 7"),
    ],
    ids=["crash", "hang", "other error"],
)
def test_the_fuzzer_sees_what_it_looks_for(tmp_path, monkeypatch, code, fault):
    """With a reader that fails on purpose, put before the real one in the child."""
    (tmp_path / "sitecustomize.py").write_text(
        f"import ggo_lab.readers\ndef broken(*_):\n    {code}\n"
        "ggo_lab.readers.read_scan = ggo_lab.readers.read_labels = broken\n"
    )
    root = Path(__file__).parents[1]
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}:{root}")
    monkeypatch.setattr("fuzz_readers.PATIENCE", 0.4)
    findings: Findings = run(count=1, seed=3)
    assert len(findings.faults) == 1 and fault in findings.faults[0]


def test_a_metaimage_header_that_crashed_metaio_is_refused(tmp_path):
    path = tmp_path / "a.mha"
    sitk.WriteImage(as_itk(chest()), str(path))
    for wrong in (b"NDims = 2147483647", b"NDims = -1", b"NDims = 99999999999999", b"NDims = nan"):
        path.write_bytes(path.read_bytes().replace(b"NDims = 3", wrong))
        with pytest.raises(ScanError, match="cannot be read as MetaImage or NRRD"):
            read_scan(path)
        path.write_bytes(path.read_bytes().replace(wrong, b"NDims = 3"))


@pytest.mark.parametrize("name", [b"a\x16.raw", b"a" * 400, b"a\0b", b"LO\x7fCAL"])
def test_a_damaged_name_of_a_data_file_is_not_repeated(tmp_path, name):
    path = tmp_path / "a.mhd"
    sitk.WriteImage(as_itk(chest()), str(path))
    path.write_bytes(path.read_bytes().replace(b"a.raw", name))
    with pytest.raises(ScanError, match="cannot be read as MetaImage or NRRD"):
        read_scan(path)


def test_bytes_to_skip_without_end_are_refused_at_once(tmp_path):
    header = "NRRD0004\ntype: short\ndimension: 3\nsizes: 14 12 5\nendian: little\nencoding: {}\nbyte skip: {}\n\n"
    voxels = {"raw": chest().tobytes(), "gzip": gzip.compress(bytes(10**6)), "bzip2": bz2.compress(bytes(10**6))}
    for encoding, skip in (
        ("raw", 10**12), ("raw", -7), ("gzip", 10**12), ("gzip", -1), ("bzip2", 99999999999), ("bzip2", 2**64)
    ):  # fmt: skip
        (tmp_path / "a.nrrd").write_bytes(header.format(encoding, skip).encode() + voxels[encoding])
        with pytest.raises(ScanError, match=f"says to skip {skip} bytes before the voxels, more than can be there"):
            read_scan(tmp_path / "a.nrrd")


@pytest.mark.parametrize("field", [b"kinds: \n", b"kinds: RGB-color\nsizes: \n"])
def test_fields_without_a_value_are_refused(tmp_path, field):
    path = tmp_path / "a.nrrd"
    sitk.WriteImage(as_itk(chest()), str(path))
    path.write_bytes(path.read_bytes().replace(b"encoding:", field + b"encoding:").replace(b"kinds: domain", b"#", 1))
    with pytest.raises(ScanError, match="cannot be read as MetaImage or NRRD"):
        read_scan(path)


def test_spacings_beyond_all_numbers_are_refused_in_silence(tmp_path, recwarn):
    path = tmp_path / "a.mha"
    sitk.WriteImage(as_itk(chest()), str(path))
    path.write_bytes(path.read_bytes().replace(b"ElementSpacing = 0.8", b"ElementSpacing = 1e308"))
    with pytest.raises(ScanError, match="orientation is not usable"):
        read_scan(path)
    assert not recwarn.list


def test_a_dicom_header_that_claims_gigabytes_costs_none(tmp_path):
    """GDCM's parser took the lengths of damaged elements at their word, up to 4 GB of them."""
    (path, *_) = write_slices(tmp_path, chest())
    data = path.read_bytes()
    path.write_bytes(data.replace(b"\x08\x00\x3e\x10LO\x04\x00", b"\x08\x00\x3e\x10UN\0\0\xfe\xff\xff\xff"))
    assert path.read_bytes() != data
    code = (
        "import resource, sys; from ggo_lab.readers import read_scan; read_scan(sys.argv[1]);"
        "resource.setrlimit(resource.RLIMIT_AS, (2 * 10**9,) * 2); print(len(read_scan(sys.argv[1]).hu))"
    )
    root = Path(__file__).parents[1]
    run = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, cwd=root)
    assert run.stdout == "4\n", run.stderr


@pytest.mark.parametrize("gigabytes", [0.6, 20])
def test_a_deflated_dicom_file_that_unpacks_to_gigabytes_is_refused(tmp_path, gigabytes):
    """Its header alone would do: pydicom inflates all of the file to read it."""
    (path,) = write_slices(tmp_path, chest((1, 12, 14)), "deflated")
    data = path.read_bytes()
    begin = data.index(b"1.2.840.10008.1.2.1.99") + 22  # what is said before lies plain
    whole = zlib.decompress(data[begin:], -zlib.MAX_WBITS)
    packer = zlib.compressobj(9, wbits=-zlib.MAX_WBITS)
    start = packer.compress(whole) + packer.flush(zlib.Z_FULL_FLUSH)
    megabyte = packer.compress(bytes(1 << 20)) + packer.flush(zlib.Z_FULL_FLUSH)  # it may be repeated
    path.write_bytes(data[:begin] + start + megabyte * int(1000 * gigabytes) + packer.flush())
    code = (
        "import resource, sys, time; from ggo_lab.errors import ScanError; from ggo_lab.readers import read_scan\n"
        "resource.setrlimit(resource.RLIMIT_AS, (2 * 10**9,) * 2)\n"
        "try: read_scan(sys.argv[1])\n"
        "except ScanError as error: print(error, time.process_time() < 10)"
    )
    root = Path(__file__).parents[1]
    run = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True, cwd=root)
    assert "of more than 512 MB when it is inflated" in run.stdout and run.stdout.endswith("True\n"), run.stderr


def test_nifti_offsets_that_are_no_numbers_are_refused(tmp_path):
    path = tmp_path / "a.nii"
    nib.save(nib.Nifti1Image(chest().T, np.eye(4)), path)
    data = bytearray(path.read_bytes())
    data[108:112] = np.float32(np.nan).tobytes()
    path.write_bytes(data)
    with pytest.raises(ScanError, match="voxels begin at nan"):
        read_scan(path)
