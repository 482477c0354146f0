"""Scan, windows and the HU guard: right input passes, wrong input is named."""

import pickle

import numpy as np
import pytest

from ggo_lab.errors import ChoiceError, ScanError
from ggo_lab.readers import read_scan
from ggo_lab.scan import PADDING_HU, WINDOWS, Scan, as_window, check_hu, window


def thorax(shape=(12, 64, 64), noise=25.0, seed=0) -> np.ndarray:
    """A body of soft tissue and fat with two lungs, vessels and a spine in air, int16 HU."""
    rng = np.random.default_rng(seed)
    _, y, x = np.meshgrid(*(np.linspace(-1, 1, n) for n in shape), indexing="ij")
    hu = np.full(shape, -1000.0)
    hu[(x / 0.9) ** 2 + (y / 0.7) ** 2 < 1] = -100
    hu[(x / 0.82) ** 2 + (y / 0.62) ** 2 < 1] = 40
    lungs = ((np.abs(x) - 0.42) / 0.3) ** 2 + (y / 0.45) ** 2 < 1
    hu[lungs] = -850
    hu[lungs & (rng.random(shape) < 0.04)] = 30
    hu[x**2 + (y - 0.5) ** 2 < 0.01] = 600
    return np.rint(hu + rng.normal(0, noise, shape)).astype(np.int16)


LUNG_BOX = np.s_[:, 22:42, 12:26]


def test_the_thorax_of_these_tests_has_its_lungs_where_they_say():
    assert np.median(thorax()[LUNG_BOX]) < -800


@pytest.mark.parametrize(
    "make",
    [
        thorax,
        lambda: thorax(noise=90),
        lambda: thorax()[5:6],
        lambda: thorax()[:, :, :32],
        lambda: thorax()[LUNG_BOX],
        lambda: thorax().clip(-1000, 400),
        lambda: np.where(np.random.default_rng(1).random((12, 64, 64)) < 0.3, PADDING_HU, thorax()),
        lambda: np.where(thorax() > 20, 300, thorax()).astype(np.int16),
    ],
    ids=["whole", "noisy", "one slice", "right half", "lung only", "clipped", "padded", "contrast"],
)
def test_the_guard_lets_whole_and_partial_chests_pass(make):
    check_hu(make(), "chest")


@pytest.mark.parametrize(
    ("make", "cause"),
    [
        (lambda: np.zeros((2, 8, 8), np.int16), "every voxel is 0"),
        (lambda: np.where(thorax() > 0, -2048, -3024), "every voxel is padding"),
        (lambda: window(thorax(), -300, 1400).astype(np.int16), "8-bit grey"),
        (lambda: (thorax() > -300).astype(np.int16), "mask or label map"),
        (lambda: thorax() // 300 + 5, "mask or label map"),
        (lambda: thorax().clip(-1024) + 1024, "intercept of -1024 were missing"),
        (lambda: thorax(noise=90) + 1024, "intercept of -1024 were missing"),
        (lambda: np.where(np.indices((12, 64, 64))[2] < 6, -2000, thorax() + 1024), "intercept of -1024 were missing"),
        (lambda: (thorax() + 1024)[LUNG_BOX], "intercept of -1024 were missing"),
        (lambda: -thorax(), "upside down"),
        (lambda: thorax() - 1024, "subtracted twice"),
        (lambda: np.where(thorax() < -476, PADDING_HU, thorax() - 1024), "subtracted twice"),
        (lambda: np.random.default_rng(0).normal(0, 3, (9, 20, 20)).round().astype(np.int16), "normalised"),
        (lambda: thorax().clip(-125, 225), "as dark as lung or air"),
        (lambda: thorax()[:, :3, :3], "as bright as a vessel"),
    ],
    ids=[
        *("constant", "all padding", "8-bit", "mask", "labels", "12-bit", "noisy 12-bit", "12-bit with padding"),
        *("12-bit lung only", "inverted", "double intercept", "double, already padded", "normalised", "mediastinal"),
        "air only",
    ],
)
def test_the_guard_names_the_cause(make, cause):
    with pytest.raises(ScanError, match=cause) as caught:
        check_hu(make(), "ward 3/scan")
    assert str(caught.value).startswith("ward 3/scan: ")
    assert caught.value.subject == "ward 3/scan"


REAL = [
    "cip_thorax/ct-64.nrrd",
    "cip_thorax/crop_ct_2slices.nrrd",
    "elastix_right_lung/3DCT_lung.mha",
    "lungmask_slice/0.dcm",
]


@pytest.mark.parametrize("name", REAL)
def test_the_guard_on_real_scans_and_their_slabs(real_data, name):
    hu = read_scan(real_data / name).hu
    check_hu(hu, name)
    for first in range(0, len(hu), 7):
        check_hu(hu[first : first + 7], name)
    half = hu.shape[2] // 2
    check_hu(hu[:, :, half:], name)
    check_hu(hu[:, :, :half], name)


@pytest.mark.parametrize("name", REAL)
def test_the_guard_refuses_real_scans_that_were_spoiled(real_data, name):
    hu = read_scan(real_data / name).hu
    for spoiled in (hu.clip(-1024) + 1024, window(hu, -300, 1400).astype(np.int16), -hu.clip(-1000)):
        with pytest.raises(ScanError):
            check_hu(spoiled, name)


def test_the_guard_recognises_a_double_intercept_on_a_real_scan(real_data):
    with pytest.raises(ScanError, match="subtracted twice"):
        check_hu(read_scan(real_data / "cip_thorax/ct-64.nrrd").hu - 1024, "twice")


def test_window_maps_its_ends_to_black_and_white_in_any_shape():
    level, width = WINDOWS["lung"]
    hu = np.array([[-32768, -1350], [150, 32767]], np.int16)
    assert window(hu, level, width).tolist() == [[0, 0], [255, 255]]
    assert window(hu, level, width).dtype == np.uint8
    assert np.all(np.diff(window(np.arange(-1400, 200), level, width).astype(int)) >= 0)


def test_the_papers_window_is_its_clip():
    level, width = WINDOWS["paper"]
    assert (level - width / 2, level + width / 2) == (-1000, 400)


def test_windows_by_name_and_by_numbers():
    assert as_window("bone") is WINDOWS["bone"]
    assert as_window((40, 80)) == (40.0, 80.0)
    with pytest.raises(ChoiceError, match="'lung', 'mediastinum', 'bone', 'paper'"):
        as_window("lungs")
    with pytest.raises(ChoiceError, match="not above 0 HU"):
        as_window((40, 0))


def test_a_scan_refuses_what_is_no_scan():
    good = np.zeros((2, 3, 4), np.int16)
    for bad in (good.astype(np.float32), good[0], good[:0]):
        with pytest.raises(ScanError, match="int16 HU of shape"):
            Scan(bad, (1, 1, 1))
    for spacing in ((1, 1), (1, 1, 0), (1, 1, float("nan")), (1, -1, 1)):
        with pytest.raises(ScanError, match="three distances"):
            Scan(good, spacing)


def test_padding_is_not_air_and_voxels_have_a_volume():
    scan = Scan(np.array([[[-3024, PADDING_HU, -1255, -1000, 40]]], np.int16), (5.0, 0.5, 0.8), "ward-7")
    assert scan.padding.tolist() == [[[True, True, False, False, False]]]
    assert scan.voxel_ml == pytest.approx(0.002)
    assert repr(scan) == "Scan('ward-7', 1 x 1 x 5 voxels of 5 x 0.5 x 0.8 mm (z, y, x))"
    assert scan.renamed("b").name == "b" and scan.name == "ward-7"


def test_errors_keep_their_subject_between_processes():
    error = pickle.loads(pickle.dumps(ScanError("no", "a/path")))
    assert (str(error), error.subject) == ("no", "a/path")
