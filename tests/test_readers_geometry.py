"""Where slices and voxels lie: passes that share a series, jitter, gaps, multi-frame files, NIfTI."""

import nibabel as nib
import numpy as np
import pydicom
import pytest
import SimpleITK as sitk
from scan_files import SPACING, as_itk, chest, has_note, save, write_enhanced, write_slices
from scipy import ndimage

from ggo_lab.errors import ScanError
from ggo_lab.readers import open_scan, read_scan

AXES = np.diag([-SPACING[2], -SPACING[1], SPACING[0], 1])


def body(slices=12, seed=0) -> np.ndarray:
    """Int16 HU that change smoothly from slice to slice, as anatomy does."""
    noise = np.random.default_rng(seed).normal(0, 1, (slices, 24, 26))
    smooth = ndimage.gaussian_filter(noise, (2.5, 2, 2))
    return np.rint(-500 + 480 * smooth / np.abs(smooth).max()).astype(np.int16)


def write_pass(folder, hu, first_mm=0.0, step_mm=5.0, number=1, alter=lambda header, k: None):
    """Write one pass with pydicom; `number` counts the instances on from those of another pass."""
    for k, path in enumerate(write_slices(folder, hu)):
        header = pydicom.dcmread(path)
        header.ImagePositionPatient = [-10, -20, round(first_mm + k * step_mm, 4)]
        header.InstanceNumber = number + k
        header.SOPInstanceUID = header.file_meta.MediaStorageSOPInstanceUID = f"1.2.9.{number + k}"
        alter(header, k)
        save(header, path)


def told(header, keyword, value):
    setattr(header, keyword, value)


@pytest.mark.parametrize("apart_mm", [0.0, 1.3, 2.5])
@pytest.mark.parametrize(
    ("keyword", "values", "word"),
    [
        ("AcquisitionNumber", (1, 2), "Acquisition Number"),
        ("ConvolutionKernel", ("B31f", "B70f"), "Convolution Kernel"),
        ("TemporalPositionIdentifier", (1, 2), "Temporal Position"),
        (None, (0, 0), "order of Instance Numbers"),
    ],
)
def test_one_of_two_passes_is_read(tmp_path, apart_mm, keyword, values, word):
    passes = body(), body(seed=1)
    for n, hu in enumerate(passes):
        alter = (lambda header, k, n=n: told(header, keyword, values[n])) if keyword else (lambda header, k: None)
        write_pass(tmp_path / str(n), hu, n * apart_mm, number=1 + 100 * n, alter=alter)
    scan = read_scan(tmp_path)
    assert np.array_equal(scan.hu, passes[0]) and scan.spacing == pytest.approx(SPACING)
    assert has_note(scan, f"2 passes, told apart by {word}")


def test_numbers_of_acquisitions_alone_mean_nothing(tmp_path):
    hu = body()
    write_pass(tmp_path / "each", hu, alter=lambda header, k: told(header, "AcquisitionNumber", k + 1))
    write_pass(tmp_path / "turns", hu, alter=lambda header, k: told(header, "AcquisitionNumber", k % 2))
    write_pass(tmp_path / "blocks", hu, alter=lambda header, k: told(header, "AcquisitionNumber", k // 4))
    for name in ("each", "turns", "blocks"):
        scan = read_scan(tmp_path / name)
        assert np.array_equal(scan.hu, hu) and scan.notes == ()


def test_blocks_that_overlap_a_little_are_one_volume(tmp_path):
    hu = body(20)
    write_pass(tmp_path / "1", hu[:11], alter=lambda header, k: told(header, "AcquisitionNumber", 1))
    again = hu[10:] + np.int16(3)  # the slice of the overlap is another picture
    write_pass(tmp_path / "2", again, 50.0, number=30, alter=lambda header, k: told(header, "AcquisitionNumber", 2))
    scan = read_scan(tmp_path)
    assert len(scan.hu) == 20 and scan.spacing == pytest.approx(SPACING)
    assert has_note(scan, "passes over the same places more than once")


def test_a_pass_that_is_not_told_apart_is_refused(tmp_path):
    hu = body(6)
    write_pass(
        tmp_path, hu, alter=lambda header, k: told(header, "ImagePositionPatient", [0, 0, [0, 5, 5, 10, 15, 20][k]])
    )
    with pytest.raises(ScanError, match="different pictures of the same place"):
        read_scan(tmp_path)


@pytest.mark.parametrize("jitter", [2e-6, 2e-4, 2e-3])
@pytest.mark.parametrize("turn", [0.0, 0.0175, 0.00125])
def test_directions_and_sizes_that_jitter_are_one_stack(tmp_path, jitter, turn):
    def shake(header, k):
        sine = turn + (jitter if k % 2 else -jitter)
        cosine = np.sqrt(1 - sine**2)
        header.ImageOrientationPatient = [f"{n:.7f}" for n in (cosine, sine, 0, -sine, cosine, 0)]
        header.PixelSpacing = [0.7 + k % 2 * 1e-6, 0.8]

    hu = body()
    write_pass(tmp_path, hu, alter=shake)
    scan = read_scan(tmp_path)
    assert np.array_equal(scan.hu, hu) and scan.spacing == pytest.approx(SPACING, rel=1e-3)


def test_pictures_of_one_place_over_time_are_not_the_chest(tmp_path):
    def stay(header, k):
        header.ImagePositionPatient, header.SeriesInstanceUID = [-10, -20, 20], "1.2.3.77"
        header.SeriesDescription = "Monitoring"

    hu = body()
    write_pass(tmp_path / "chest", hu)
    write_pass(tmp_path / "bolus", body(30, 1), number=500, alter=stay)
    scan = read_scan(tmp_path)
    assert np.array_equal(scan.hu, hu) and has_note(scan, "'Monitoring' (30 slices)")


def test_pictures_of_one_place_in_the_chest_s_own_series(tmp_path):
    hu = body()
    write_pass(tmp_path / "chest", hu, number=100, alter=lambda header, k: told(header, "AcquisitionNumber", 99))

    def stay(header, k):
        header.ImagePositionPatient, header.AcquisitionNumber = [-10, -20, 21], k + 1

    write_pass(tmp_path / "bolus", body(30, 1), alter=stay)
    scan = read_scan(tmp_path)
    assert np.array_equal(scan.hu, hu) and has_note(scan, "30 slices of others were left out")


def test_what_else_the_series_holds_is_called_what_it_is(tmp_path):
    hu = body()
    write_pass(tmp_path / "chest", hu)
    write_pass(tmp_path / "other", body(3, 1), number=50, alter=lambda h, k: told(h, "PixelSpacing", [0.4, 0.4]))
    coronal = [1, 0, 0, 0, 0, -1]
    write_pass(tmp_path / "up", body(2, 2), number=60, alter=lambda h, k: told(h, "ImageOrientationPatient", coronal))
    scan = read_scan(tmp_path)
    assert np.array_equal(scan.hu, hu)
    assert has_note(scan, "3 with pixels of 0.4 x 0.4 mm, 2 of another orientation")
    assert not has_note(scan, "localizers")


PLACES = {"top": "header", "shared": "SharedFunctionalGroupsSequence", "each": "PerFrameFunctionalGroupsSequence"}


@pytest.mark.parametrize("where", ["top", "shared", "bare"])
@pytest.mark.parametrize(
    "group", ["PixelValueTransformationSequence", "PixelMeasuresSequence", "PlaneOrientationSequence"]
)
def test_multi_frame_attributes_stand_anywhere(tmp_path, group, where):
    path = write_enhanced(tmp_path / "a.dcm", chest())
    header = pydicom.dcmread(path)
    shared = header.SharedFunctionalGroupsSequence[0]
    frames = list(header.PerFrameFunctionalGroupsSequence)
    item = (shared if group in shared else frames[0])[group].value[0]
    for part in (shared, *frames):
        if group in part:
            del part[group]
    if where == "shared":
        setattr(shared, group, pydicom.Sequence([item]))
    else:
        (header if where == "top" else shared).update(item)
    save(header, path)
    scan = read_scan(path)
    assert np.array_equal(scan.hu, chest()) and scan.spacing == pytest.approx(SPACING)


def test_a_volume_in_several_multi_frame_files(tmp_path):
    hu = chest((9, 12, 14))
    for n, part in enumerate(np.split(hu, 3)):
        path = write_enhanced(tmp_path / f"{n}.dcm", part, z=[5.0 * (3 * n + k) for k in range(3)])
        header = pydicom.dcmread(path)
        header.InstanceNumber, header.ConcatenationUID, header.InConcatenationNumber = n + 1, "1.2.3.5", n + 1
        header.SOPInstanceUID = header.file_meta.MediaStorageSOPInstanceUID = f"1.2.3.6.{n}"
        save(header, path)
    scan = read_scan(tmp_path)
    assert np.array_equal(scan.hu, hu) and scan.spacing == pytest.approx(SPACING) and scan.notes == ()


def nifti(path, sform=None, qform=None, pixdim=None):
    """Write NIfTI with nibabel; an affine that is not given has the code 0."""
    image = nib.Nifti1Image(chest().T, AXES)
    image.set_qform(qform, 0 if qform is None else 1)
    image.set_sform(sform, 0 if sform is None else 1)
    if pixdim is not None:
        image.header["pixdim"][1:4] = pixdim
    nib.save(image, path)
    return path


def test_the_three_geometries_of_nifti_are_compared(tmp_path):
    path, unit = tmp_path / "a.nii", np.diag([-1.0, -1.0, 1.0, 1.0])
    scan = read_scan(nifti(path, unit, AXES))
    assert scan.spacing == pytest.approx(SPACING) and has_note(scan, "placeholder")
    scan = read_scan(nifti(path, unit, pixdim=(0.8, 0.7, 5)))
    assert scan.spacing == pytest.approx(SPACING) and has_note(scan, "1 x 1 x 1 mm (x, y, z), and pixdim 0.8 x 0.7 x 5")
    scan = read_scan(nifti(path, AXES, np.diag([-0.8, -0.7, 2.5, 1])))
    assert scan.spacing == pytest.approx(SPACING) and has_note(scan, "pixdim 0.8 x 0.7 x 2.5 mm")
    scan = read_scan(nifti(path, AXES, np.diag([0.8, -0.7, 5, 1])))
    assert has_note(scan, "turn the scan differently (LPS and RPS)")
    assert has_note(read_scan(nifti(path, np.eye(4), pixdim=(1, 1, 1))), "what programs write that know none")
    for same in ((AXES, AXES), (AXES, None), (None, AXES)):
        assert read_scan(nifti(path, *same)).notes == ()


@pytest.mark.parametrize("degrees", [-25.0, 8.0, 20.0])
@pytest.mark.parametrize("kind", ["nii", "nrrd", "dicom"])
def test_a_tilted_gantry_keeps_the_distance_between_planes(tmp_path, degrees, kind):
    hu, angle = chest(), np.radians(degrees)
    z, y, x = SPACING
    # Slices lean back, and the table moves along the body.
    ways = np.transpose([[x, 0, 0], [0, y * np.cos(angle), y * np.sin(angle)], [0, 0, z / np.cos(angle)]])
    if kind == "nii":
        affine = np.eye(4)
        affine[:3, :3] = np.diag([-1, -1, 1]) @ ways
        nib.save(nib.Nifti1Image(hu.T, affine), path := tmp_path / "a.nii.gz")
    elif kind == "nrrd":
        vectors = " ".join(f"({','.join(f'{v:.9f}' for v in way)})" for way in ways.T)
        text = f"NRRD0004\ntype: short\ndimension: 3\nspace: LPS\nsizes: 14 12 5\nspace directions: {vectors}\n"
        path = tmp_path / "a.nrrd"
        path.write_bytes(f"{text}endian: little\nencoding: raw\n\n".encode() + hu.tobytes())
    else:
        path = tmp_path

        def lean(header, k):
            header.ImageOrientationPatient = [1, 0, 0, 0, round(np.cos(angle), 8), round(np.sin(angle), 8)]
            header.ImagePositionPatient = [-10, -20, round(k * ways[2, 2], 6)]

        write_pass(path, hu, alter=lean)
    scan = read_scan(path)
    assert np.array_equal(scan.hu, hu) and scan.spacing == pytest.approx(SPACING, rel=1e-5)
    assert scan.voxel_ml == pytest.approx(abs(np.linalg.det(ways)) / 1000, rel=1e-5)
    assert has_note(scan, f"The gantry was tilted by {abs(degrees):.1f} degrees")


def disc(radius: int) -> np.ndarray:
    y, x = np.indices((80, 80)) - 39.5
    inside = np.hypot(y, x) < radius
    hu = np.where(inside, 40, -1000)
    hu[np.hypot(y, x - 10) < radius / 3] = -850
    return np.stack([hu] * 3).astype(np.int16)


@pytest.mark.parametrize("suffix", ["nii.gz", "mha", "nrrd"])
def test_a_body_that_no_adult_has_is_noted(tmp_path, suffix):
    for step, words in ((0.2, "mm small"), (1.6, "96 mm wide"), (15.0, "900 mm wide"), (5.0, None)):
        sitk.WriteImage(as_itk(disc(30), (5, step, step)), str(path := tmp_path / f"{step}.{suffix}"))
        scan = read_scan(path)
        assert has_note(scan, words) if words else scan.notes == ()


def test_spacings_that_disagree_in_one_header_are_noted(tmp_path):
    sitk.WriteImage(as_itk(chest()), str(path := tmp_path / "a.mha"))
    path.write_bytes(path.read_bytes().replace(b"ElementSpacing", b"ElementSize = 1 1 1\nElementSpacing"))
    assert has_note(read_scan(path), "ElementSpacing is 0.8 x 0.7 x 5 mm and ElementSize 1 x 1 x 1 mm")
    sitk.WriteImage(as_itk(chest()), str(path := tmp_path / "a.nrrd"))
    path.write_bytes(path.read_bytes().replace(b"encoding:", b"spacings: 1 1 1\nencoding:"))
    assert has_note(read_scan(path), "The spacings are 1 1 1")


@pytest.mark.parametrize("kind", ["nii", "nii.gz", "mha", "nrrd", "dicom", "turned"])
def test_some_slices_are_those_of_the_whole(tmp_path, kind):
    hu = chest((9, 12, 14))
    path = tmp_path / f"a.{kind}"
    if kind == "dicom":
        write_slices(path, hu)
    elif kind == "turned":  # the slices lie along the file's fastest axis
        path = tmp_path / "a.nii"
        nib.save(nib.Nifti1Image(hu, np.array([[0, 0, -1, 0], [0, -1, 0, 0], [1, 0, 0, 0], [0, 0, 0, 1]])), path)
    elif kind.startswith("nii"):
        nib.save(nib.Nifti1Image(hu[::-1].T, np.diag([-0.8, -0.7, -5, 1])), path)
    else:
        sitk.WriteImage(as_itk(hu), str(path), useCompression=kind == "nrrd")
    opened = open_scan(path)
    whole = opened.whole()
    assert opened.shape == whole.shape == (9, 12, 14) and opened.spacing == whole.spacing
    for slices in ([4], [7, 2, 2], [0, 8], range(9)):
        assert np.array_equal(opened.read(slices), whole.hu[list(slices)])
