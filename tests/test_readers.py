"""Labels, writing, and the real scans in every format that they come in."""

import os
import subprocess
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
from scan_files import (
    ORIENTATIONS,
    SPACING,
    as_itk,
    chest,
    has_note,
    write_enhanced,
    write_pictures,
    write_slices,
)

from ggo_lab.errors import ChoiceError, GgoLabError, ScanError
from ggo_lab.readers import read_labels, read_scan, write_nifti
from ggo_lab.scan import PADDING_HU, Scan, window


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.uint16, np.int32, np.float32, np.float64])
def test_labels_come_back_as_integers_whatever_they_are_stored_in(tmp_path, dtype):
    labels = np.random.default_rng(0).integers(0, 100, (5, 12, 14)).astype(dtype)
    image = nib.Nifti1Image(labels.T, np.diag([-1, -1, 1, 1])).as_reoriented(ORIENTATIONS[21])
    nib.save(image, tmp_path / "labels.nii.gz")
    read = read_labels(tmp_path / "labels.nii.gz")
    assert read.dtype.kind in "iu" and np.array_equal(read, labels)


def test_labels_that_are_no_labels_are_refused(tmp_path):
    nib.save(nib.Nifti1Image(np.full((4, 4, 4), 0.5, np.float32), np.eye(4)), tmp_path / "probability.nii.gz")
    with pytest.raises(ScanError, match="needs whole numbers"):
        read_labels(tmp_path / "probability.nii.gz")
    (tmp_path / "labels.png").touch()
    with pytest.raises(ScanError, match=r"NIfTI, MetaImage, NRRD files only"):
        read_labels(tmp_path / "labels.png")
    for name in (tmp_path / "none.nii.gz", "a\0b.nii.gz", "~nobody-of-this-name/a.nii.gz"):
        with pytest.raises(ScanError, match="no such file"):
            read_labels(name)
        with pytest.raises(ScanError, match="no such file"):
            read_scan(name)


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
def test_a_written_scan_is_read_back_exactly_and_shown_right_by_others(tmp_path, suffix):
    hu = chest()
    hu[0, 0, :3] = PADDING_HU, 32767, -1499
    path = write_nifti(Scan(hu, SPACING), tmp_path / "new" / f"scan{suffix}")
    assert path == tmp_path / "new" / f"scan{suffix}"
    scan = read_scan(path)
    assert np.array_equal(scan.hu, hu) and scan.spacing == SPACING and scan.notes == ()

    other = sitk.ReadImage(str(path))  # knows nothing of this package, and counts towards left, back and head
    assert np.array_equal(sitk.GetArrayFromImage(other), hu)
    assert other.GetDirection() == pytest.approx(np.eye(3).ravel())
    assert other.GetSpacing() == pytest.approx(SPACING[::-1])
    image = nib.load(path)
    assert nib.aff2axcodes(image.affine) == ("L", "P", "S")
    assert image.get_data_dtype() == np.int16
    assert np.allclose(image.get_qform(), image.get_sform()) and image.get_sform(coded=True)[1] == 1


@pytest.mark.parametrize(
    ("highest", "dtype"), [(1, np.uint8), (255, np.uint8), (256, np.int16), (-1, np.int16), (40000, np.int32)]
)
def test_labels_are_written_small_and_read_back_exactly(tmp_path, highest, dtype):
    labels = np.zeros((3, 4, 5), np.int64)
    labels[1, 2, 3] = highest
    path = write_nifti(labels, tmp_path / "labels.nii.gz", spacing=SPACING)
    assert nib.load(path).get_data_dtype() == dtype
    assert np.array_equal(read_labels(path), labels)


def test_a_mask_is_written_as_bytes(tmp_path):
    mask = chest() > 0
    path = write_nifti(mask, tmp_path / "mask.nii.gz", SPACING)
    assert nib.load(path).get_data_dtype() == np.uint8
    assert np.array_equal(read_labels(path).astype(bool), mask)


def test_an_estimate_stays_an_estimate(tmp_path):
    write_pictures(tmp_path / "p", window(chest(), -300, 1400), "{}.png")
    scan = read_scan(tmp_path / "p")
    again = read_scan(write_nifti(scan, tmp_path / "scan.nii.gz"))
    assert not again.is_hu and np.array_equal(again.hu, scan.hu)


def test_equal_scans_give_equal_bytes(tmp_path):
    for name in ("a.nii.gz", "b.nii.gz"):
        write_nifti(Scan(chest(), SPACING), tmp_path / name)
    assert (tmp_path / "a.nii.gz").read_bytes() == (tmp_path / "b.nii.gz").read_bytes()


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch):
    path = write_nifti(Scan(chest(), SPACING), tmp_path / "scan.nii.gz")
    before = path.read_bytes()

    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(GgoLabError, match=r"cannot be written \(No space left on device\)"):
        write_nifti(Scan(chest(seed=1), SPACING), path)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_what_cannot_be_written_is_refused(tmp_path):
    with pytest.raises(ChoiceError, match=r"ends in \.nii\.gz or \.nii"):
        write_nifti(chest(), tmp_path / "scan.mha", SPACING)
    with pytest.raises(ChoiceError, match="give spacing"):
        write_nifti(chest(), tmp_path / "scan.nii")
    for wrong in (chest().astype(np.float32), chest()[0]):
        with pytest.raises(ScanError, match="bool or integer array"):
            write_nifti(wrong, tmp_path / "scan.nii", SPACING)
    (tmp_path / "file").touch()
    with pytest.raises(GgoLabError, match="cannot be written"):
        write_nifti(chest(), tmp_path / "file" / "scan.nii", SPACING)


def test_the_same_real_chest_as_nrrd_and_as_dicom(real_data):
    nrrd = read_scan(real_data / "cip_thorax" / "ct-64.nrrd")
    dicom = read_scan(real_data / "cip_thorax" / "ct-64-dicom")
    assert np.array_equal(nrrd.hu, dicom.hu) and nrrd.shape == (79, 64, 64)
    assert nrrd.spacing == pytest.approx((3.987342, 4.171872, 4.171872))
    assert dicom.spacing == pytest.approx(nrrd.spacing, abs=1e-4)
    assert nrrd.notes == () and dicom.notes == ()


def test_the_real_label_map_lies_on_its_scan(real_data):
    scan = read_scan(real_data / "cip_thorax" / "ct-64.nrrd")
    labels = read_labels(real_data / "cip_thorax" / "lm-64.nrrd")
    lungs = (labels & 0xFF >= 9) & (labels & 0xFF <= 14)
    assert lungs.shape == scan.shape
    assert np.median(scan.hu[lungs]) == pytest.approx(-919, abs=3)
    assert lungs.sum() * scan.voxel_ml == pytest.approx(4500, rel=0.03)


def test_a_real_chest_lies_on_canonical_axes(real_data):
    hu = read_scan(real_data / "cip_thorax" / "ct-64.nrrd").hu
    body = hu > -300
    # The spine is the densest, and lies behind the middle of the body.
    _, rows, _ = np.nonzero(hu[20:60] > 300)
    assert rows.mean() > np.nonzero(body[20:60])[1].mean()
    # The lungs narrow towards the head, where slices hold the least of them.
    lung = (hu > -980) & (hu < -700)
    assert lung[-6:].sum() < lung[20:26].sum()


def test_the_padding_of_a_real_slice_is_not_air(real_data):
    scan = read_scan(real_data / "lungmask_slice" / "0.dcm")
    assert scan.shape == (1, 512, 512) and scan.padding.mean() == pytest.approx(0.215, abs=0.001)
    assert scan.hu[~scan.padding].min() > -1100
    assert has_note(scan, "CT was assumed")


def test_the_real_half_chest_and_its_mask(real_data):
    scan = read_scan(real_data / "elastix_right_lung" / "3DCT_lung.mha")
    mask = read_labels(real_data / "elastix_right_lung" / "3DCT_lung_baseline_mask.mha")
    assert scan.shape == mask.shape == (129, 157, 115) and scan.spacing == (2.5, 1.366, 1.366)
    assert np.median(scan.hu[mask == 1]) == pytest.approx(-944, abs=2)
    assert mask.sum() * scan.voxel_ml == pytest.approx(3360, rel=0.01)


def test_two_real_slices_at_full_resolution(real_data):
    scan = read_scan(real_data / "cip_thorax" / "crop_ct_2slices.nrrd")
    assert scan.shape == (2, 349, 443) and scan.spacing == (0.5, 0.585938, 0.585938) and scan.is_hu


# Memory


MEMORY = """
import sys
import pydicom, scipy.ndimage, SimpleITK
from ggo_lab.readers import read_scan

def peak():
    # Not getrusage, whose peak a process takes over from the one that started it.
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) * 1024 for line in status if line.startswith("VmHWM"))

before = peak()
scan = read_scan(sys.argv[1])
print((peak() - before) / scan.hu.nbytes)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the peak is read from /proc")
@pytest.mark.parametrize("kind", ["float64.nii", "turned.nii.gz", "float32.nrrd", "slices", "enhanced.dcm"])
def test_reading_takes_at_most_two_and_a_half_times_the_array(tmp_path, kind):
    hu = np.tile(chest((4, 512, 512)), (15, 1, 1))  # 31 MB
    path = tmp_path / kind
    if kind == "float64.nii":
        nib.save(nib.Nifti1Image(hu.T.astype(np.float64), np.diag([-1, -1, 1, 1])), path)
    elif kind == "turned.nii.gz":
        nib.save(nib.Nifti1Image(hu, np.array([[0, 0, -1, 0], [0, -1, 0, 0], [1, 0, 0, 0], [0, 0, 0, 1]])), path)
    elif kind == "float32.nrrd":
        sitk.WriteImage(sitk.Cast(as_itk(hu), sitk.sitkFloat32), str(path))
    elif kind == "slices":
        write_slices(path, hu)
    else:
        write_enhanced(path, hu)
    assert 1 <= memory(path) <= 2.5


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the peak is read from /proc")
def test_unpacking_takes_hardly_more_than_the_array(tmp_path):
    path = write_nifti(np.tile(chest((4, 512, 512)), (15, 1, 1)), tmp_path / "scan.nii.gz", SPACING)
    assert 1 <= memory(path) <= 1.5


def memory(path: Path) -> float:
    """The memory that reading takes at most, in times the array's."""
    root = Path(__file__).parents[1]
    run = subprocess.run([sys.executable, "-c", MEMORY, str(path)], capture_output=True, text=True, cwd=root)
    assert run.returncode == 0, run.stderr
    return float(run.stdout)


def test_a_scan_larger_than_the_memory_is_refused(tmp_path, monkeypatch):
    def full(*_):
        raise MemoryError

    path = write_nifti(chest(), tmp_path / "scan.nii", SPACING)
    monkeypatch.setattr("ggo_lab.readers.stored._hu_of", full)
    with pytest.raises(ScanError, match="does not fit into this machine's memory"):
        read_scan(path)
