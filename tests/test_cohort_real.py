"""The real scans that come with the package: whole, cited, small, and without anything that names a person."""

from pathlib import Path

import nibabel
import numpy as np
import pytest

import ggo_lab as gl
from ggo_lab.cohort import real

FOLDER = Path(real.__file__).parent / "real_scans"


@pytest.fixture(scope="module")
def shipped():
    return gl.real_scans()


def test_a_whole_thorax_with_its_experts_lungs_and_single_slices(shipped):
    thorax, *slices = shipped
    assert thorax.scan.shape[0] > 100 and thorax.lungs.shape == thorax.scan.shape
    assert 3.5 < thorax.lungs.sum() * thorax.scan.voxel_ml / 1000 < 4.5  # litres, as drawn
    assert -800 < np.median(thorax.scan.hu[thorax.lungs]) < -700  # breathing freely
    assert len(slices) == 5 and all(real.scan.shape[0] == 1 and real.lungs is None for real in slices)


def test_every_scan_has_its_licence_and_citation_here_and_beside_the_files(shipped):
    said = (FOLDER / "README.md").read_text(encoding="utf-8")
    for real_scan in shipped:
        assert real_scan.licence.startswith("CC BY") and real_scan.licence in said
        assert "doi" in real_scan.citation and real_scan.citation in said


def test_no_header_names_anything_and_all_together_stay_small():
    files = sorted(FOLDER.glob("*.nii.gz"))
    assert len(files) == 7 and sum(file.stat().st_size for file in files) < 6e6
    for file in files:
        header = nibabel.load(file).header
        texts = [
            bytes(header[name].tobytes()).strip(b"\0") for name in ("descrip", "aux_file", "db_name", "intent_name")
        ]
        assert not any(texts) and not header.extensions, file.name
