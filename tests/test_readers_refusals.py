"""What is refused: one sentence that says what to do, and no library's error."""

import subprocess
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pydicom
import pytest
import SimpleITK as sitk
from isal import igzip
from PIL import Image
from scan_files import SPACING, as_itk, chest, says, table, write_dicom, write_pictures, write_slices

from ggo_lab.errors import ChoiceError, GgoLabError, ScanError
from ggo_lab.readers import read_scan, write_nifti
from ggo_lab.scan import window


def bad_file(kind: str, folder: Path) -> Path:
    """Make one kind of bad input and give its path."""
    good = folder / "good.nii.gz"
    nib.save(nib.Nifti1Image(chest().T, np.diag([-1, -1, 1, 1])), good)
    path = folder / {"nifti": "bad.nii", "gzip": "bad.nii.gz"}.get(kind.split()[0], "bad")
    if kind == "nothing":
        return folder / "nothing.nii.gz"
    if kind == "empty folder":
        path.mkdir()
    elif kind == "folder of text":
        path.mkdir()
        (path / "notes.txt").write_text("hello")
    elif kind == "folder of volumes":
        path.mkdir()
        good.rename(path / "one.nii.gz")
    elif kind == "empty file":
        path = folder / "bad.nii.gz"
        path.touch()
    elif kind == "other suffix":
        path = folder / "bad.docx"
        path.write_bytes(b"word" * 99)
    elif kind in ("archive", "analyze"):
        path = folder / ("bad.zip" if kind == "archive" else "bad.img")
        path.write_bytes(b"PK" * 300)
    elif kind == "pictures in folders":
        for number in range(3):
            write_pictures(path / f"ct_scan_{number}", window(chest(), -300, 1400))
    elif kind in ("gzip text", "nifti text"):
        path.write_text("this is a text, renamed. " * 40)
    elif kind == "gzip of text":
        path.write_bytes(igzip.compress(b"this is a text, renamed. " * 40))
    elif kind == "gzip truncated":
        path.write_bytes(good.read_bytes()[:-200])
    elif kind == "gzip header only":
        path.write_bytes(good.read_bytes()[:30])
    elif kind == "gzip flipped":
        data = bytearray(good.read_bytes())
        data[len(data) // 2] ^= 255
        path.write_bytes(data)
    elif kind == "nifti truncated":
        path.write_bytes(igzip.decompress(good.read_bytes())[:-1])
    elif kind == "nifti of absurd size":
        data = bytearray(igzip.decompress(good.read_bytes()))
        data[42:48] = np.array([30000, 30000, 30000], "<i2").tobytes()
        path.write_bytes(data)
    elif kind == "gzip that cannot hold it":
        data = bytearray(igzip.decompress(good.read_bytes()))
        data[42:48] = np.array([1000, 1000, 1000], "<i2").tobytes()
        path.write_bytes(igzip.compress(bytes(data)))
    elif kind == "nifti in 4-D":
        nib.save(nib.Nifti1Image(np.stack([chest().T] * 2, -1), np.eye(4)), path)
    elif kind == "nifti in colour":
        colours = np.zeros((4, 4, 4), [("R", "u1"), ("G", "u1"), ("B", "u1")])
        nib.save(nib.Nifti1Image(colours, np.eye(4)), path)
    elif kind == "nifti with NaN":
        values = chest().T.astype(np.float32)
        values[3, 3, 3] = np.nan
        nib.save(nib.Nifti1Image(values, np.eye(4)), path)
    elif kind == "nifti with a flat affine":
        image = nib.Nifti1Image(chest().T, np.diag([-1, -1, 1, 1]))
        image.header["srow_z"] = image.header["srow_x"]
        nib.save(image, path)
        data = bytearray(path.read_bytes())
        data[312:328] = data[280:296]  # the header's srow_z gets the values of srow_x
        path.write_bytes(data)
    elif kind == "nifti in 12 bit":
        nib.save(nib.Nifti1Image((chest().T + 1024).astype(np.uint16), np.eye(4)), path)
    elif kind.startswith("mha"):
        path = folder / "bad.mha"
        sitk.WriteImage(as_itk(chest()), str(path), useCompression="compressed" in kind)
        data = path.read_bytes()
        if "truncated" in kind:
            path.write_bytes(data[:-100])
        elif "absurd" in kind:
            path.write_bytes(data.replace(b"DimSize = 14 12 5", b"DimSize = 14000 12000 50000"))
        elif "negative" in kind:
            path.write_bytes(data.replace(b"DimSize = 14 12 5", b"DimSize = 14 -12 5"))
        elif "text" in kind:
            path.write_text("hello")
        elif "colour" in kind:
            sitk.WriteImage(sitk.Compose([as_itk(chest())] * 3), str(path))
        elif "4-D" in kind:
            sitk.WriteImage(sitk.JoinSeries([as_itk(chest())] * 2), str(path))
        elif "list" in kind:
            path.write_bytes(data[: data.index(b"ElementDataFile")] + b"ElementDataFile = LIST\na.raw\n")
    elif kind == "mhd without its raw file":
        path = folder / "bad.mhd"
        sitk.WriteImage(as_itk(chest()), str(path))
        (folder / "bad.raw").unlink()
    elif kind.startswith("nrrd"):
        path = folder / "bad.nrrd"
        sitk.WriteImage(as_itk(chest()), str(path), useCompression="compressed" in kind)
        path.write_bytes(path.read_bytes()[:-300])
        if "absurd" in kind:
            path.write_bytes(path.read_bytes().replace(b"sizes: 14 12 5", b"sizes: 14000 12000 50000"))
    elif kind == "gzip too short":
        path.write_bytes(igzip.compress(igzip.decompress(good.read_bytes())[:-8]))
    elif kind == "nifti header damaged":
        nib.save(nib.Nifti1Image(chest().T, np.eye(4)), path)
        data = bytearray(path.read_bytes())
        data[70:72] = b"\x99\x99"  # the code of the number type
        path.write_bytes(data)
    elif kind == "nifti header of a pair":
        nib.save(nib.Nifti1Pair(chest().T, np.eye(4)), folder / "bad.img")
        (folder / "bad.hdr").rename(path)
    elif kind.startswith("guard"):
        path = folder / "bad.nii"
        nib.save(nib.Nifti1Image(not_hu(kind).T, np.eye(4)), path)
    elif kind == "dicom unreadable":
        for file in write_slices(path, chest(), "JPEG 2000")[:3]:
            header = pydicom.dcmread(file)
            header.PixelData = pydicom.encaps.encapsulate([b"damaged " * 40])
            header.save_as(file)
    elif kind == "dicom of two patients":
        write_slices(path, chest()[:2])
        write_dicom(path, chest()[2:], patient="p2")
    elif kind == "dicom MR":
        write_dicom(path, chest(), modality="MR")
    elif kind == "dicom localizer":
        write_dicom(path, chest()[:1], t0008_0008="ORIGINAL\\PRIMARY\\LOCALIZER")
    elif kind == "dicom coronal":
        write_dicom(path, chest(), direction=(1, 0, 0, 0, 0, -1))
    elif kind == "dicom unknown series":
        write_dicom(path, chest())
    elif kind == "dicom twice":
        write_dicom(path, chest(), z=[0, 5, 5, 10, 15])
    elif kind == "dicom without intercept":
        write_slices(path, chest(), RescaleIntercept=0)
    elif kind == "dicom text":
        path = folder / "bad.dcm"
        path.write_text("hello")
    elif kind == "dicom in colour":
        path = folder / "bad.dcm"
        rgb = sitk.GetImageFromArray(np.zeros((1, 8, 8, 3), np.uint8), isVector=True)
        rgb.SetMetaData("0008|0060", "CT")
        sitk.WriteImage(rgb, str(path))
    elif kind == "dicom without places":
        write_dicom(path, chest())
        for file in path.iterdir():  # another, unknown tag in place of Image Position
            file.write_bytes(file.read_bytes().replace(b"\x20\x00\x32\x00", b"\x20\x00\x33\x00"))
    elif kind.startswith("picture"):
        grey = window(chest(), -300, 1400)
        pictures = write_pictures(path, grey, "{}.png")
        if "colour" in kind:
            red = np.stack([grey[0], grey[0] // 2, grey[0] // 4], -1)
            Image.fromarray(red).save(pictures[3])
        elif "size" in kind:
            for n in (1, 2, 3):
                Image.fromarray(grey[0][: 4 + n]).save(pictures[n])
        elif "truncated" in kind:
            path = pictures[3]
            path.write_bytes(path.read_bytes()[:-60])
        elif "text" in kind:
            path = pictures[3]
            path.write_text("hello")
        elif "16 bit" in kind:
            Image.fromarray(chest()[0].astype(np.uint16)).save(pictures[0])
        elif "both" in kind:
            write_pictures(path, grey, "{}.jpg")
        elif "blank" in kind:
            write_pictures(path, grey * 0, "{}.png")
    return path


def not_hu(kind: str) -> np.ndarray:
    """Voxels (Z, Y, X) that are no HU of a chest CT, in the way that the kind says."""
    parts = [-1000, -850, 40, -100]  # air, lung, soft tissue, fat
    rng = np.random.default_rng(0)
    hu = rng.choice(parts, (5, 40, 40), p=[0.5, 0.3, 0.12, 0.08]) + rng.normal(0, 20, (5, 40, 40))
    made = {
        "guard constant": hu * 0 + 7,
        "guard padding": hu * 0 + np.where(hu > 0, -2048, -3024),
        "guard 0 to 255": window(hu, -300, 1400),
        "guard mask": hu * 0 + (hu > -500),
        "guard 0 to 4095": (hu + 1024).clip(0, 4095),
        "guard double intercept": hu - 1024,
        "guard normalised": (hu - hu.mean()) / hu.std(),
        "guard narrow window": hu.clip(-125, 225),
        "guard air": hu.clip(-1060, -900),
    }
    return np.rint(made[kind]).astype(np.int16)


REFUSED = dict(table("What is refused"))
# Which bad inputs, as bad_file makes them, belong to each row.
KINDS = {
    "no such file": ["nothing"],
    "an empty folder": ["empty folder"],
    "a folder of other files": ["folder of text"],
    "a folder of whole volumes": ["folder of volumes"],
    "an empty file": ["empty file"],
    "another kind of file": ["other suffix"],
    "an archive": ["archive"],
    "half of an Analyze pair": ["analyze"],
    "pictures in several folders": ["pictures in folders"],
    "NIfTI by its name only": ["gzip text", "nifti text", "gzip of text"],
    "a damaged or truncated `.nii.gz`": ["gzip truncated", "gzip header only", "gzip flipped"],
    "a damaged NIfTI header": ["nifti header damaged"],
    "the header of a NIfTI pair": ["nifti header of a pair"],
    "a truncated volume": ["nifti truncated", "gzip that cannot hold it", "mha truncated", "nrrd truncated"],
    "fewer voxels than the header claims": ["gzip too short"],
    "a header of absurd size": ["nifti of absurd size", "mha absurd", "nrrd absurd"],
    "a header of negative size": ["mha negative"],
    "a NIfTI, MetaImage or NRRD in time": ["nifti in 4-D", "mha 4-D"],
    "a NIfTI in colour": ["nifti in colour"],
    "NaN or infinite voxels": ["nifti with NaN"],
    "axes that do not span a volume": ["nifti with a flat affine"],
    "a damaged MetaImage or NRRD": ["mha compressed truncated", "mha text", "nrrd compressed truncated"],
    "a MetaImage or NRRD in colour": ["mha colour"],
    "a MetaImage or NRRD in several files": ["mha list"],
    "a header without its data file": ["mhd without its raw file"],
    "DICOM without a picture": ["dicom text"],
    "DICOM slices that cannot be decoded": ["dicom unreadable"],
    "DICOM of several patients": ["dicom of two patients"],
    "DICOM that is no CT": ["dicom MR", "dicom localizer", "dicom in colour"],
    "DICOM without an axial series": ["dicom coronal"],
    "DICOM without the series that `series=` asks for": ["dicom unknown series"],
    "DICOM without positions": ["dicom without places"],
    "two pictures of one place": ["dicom twice"],
    "pictures in colour": ["picture colour"],
    "pictures of different sizes": ["picture size"],
    "a damaged picture": ["picture truncated", "picture text"],
    "pictures of 16 bit": ["picture 16 bit"],
    "JPG and PNG together": ["picture both"],
    "blank pictures": ["picture blank"],
    "a missing intercept, 0 to 4095": ["nifti in 12 bit", "dicom without intercept", "guard 0 to 4095"],
    "an intercept subtracted twice": ["guard double intercept"],
    "8-bit grey, 0 to 255": ["guard 0 to 255"],
    "a mask or label map": ["guard mask"],
    "values normalised for a network": ["guard normalised"],
    "a narrow window": ["guard narrow window"],
    "nothing but air": ["guard air"],
    "nothing but padding": ["guard padding"],
    "one value everywhere": ["guard constant"],
}


def test_every_row_of_the_table_of_refusals_is_tested():
    assert set(REFUSED) == set(KINDS)


@pytest.mark.parametrize(("row", "kind"), [(row, kind) for row, kinds in KINDS.items() for kind in kinds])
def test_bad_input_ends_in_the_sentence_of_its_row(row, kind, tmp_path, capfd):
    path = bad_file(kind, tmp_path)
    with pytest.raises(ScanError) as caught:
        read_scan(path, series="bone" if kind == "dicom unknown series" else None)
    message = str(caught.value)
    subject = Path(caught.value.subject)
    assert subject.is_relative_to(path) and message.startswith(f"{subject}: ")
    assert says(message.removeprefix(f"{subject}: "), REFUSED[row])
    assert "\n" not in message and message.endswith(".")
    assert capfd.readouterr().err == ""


def test_a_file_that_may_not_be_read_says_so(tmp_path, monkeypatch):
    path = write_nifti(chest(), tmp_path / "locked.nii.gz", SPACING)

    def refuse(*_):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(ScanError, match=r"locked\.nii\.gz: cannot be opened \(Permission denied\)"):
        read_scan(path)
    monkeypatch.setattr(Path, "stat", refuse)
    with pytest.raises(ScanError, match="Permission denied"):
        read_scan(path)


def test_choices_are_checked(tmp_path):
    write_nifti(chest(), tmp_path / "a.nii", SPACING)
    with pytest.raises(ChoiceError, match="holds no DICOM"):
        read_scan(tmp_path / "a.nii", series="lung")
    write_pictures(tmp_path / "p", window(chest(), -300, 1400), "{}.png")
    with pytest.raises(ChoiceError, match="'head', 'feet'"):
        read_scan(tmp_path / "p", first_slice="top")
    with pytest.raises(ChoiceError, match="'paper'"):
        read_scan(tmp_path / "p", grey_window="wide")
    with pytest.raises(GgoLabError, match="three distances"):
        read_scan(tmp_path / "p", spacing=(1, 2))


def test_libraries_keep_silent_about_what_was_read(tmp_path):
    """ITK warns on stderr about slices that are 0.0005 mm off; it must not reach the user, nor stay switched off."""
    write_dicom(tmp_path, chest(), z=[0, 5.0004, 10, 14.9996, 20])
    code = (
        "import sys, SimpleITK as sitk; from ggo_lab.readers import read_scan; read_scan(sys.argv[1]);"
        "assert sitk.ProcessObject.GetGlobalWarningDisplay()"
    )
    root = Path(__file__).parents[1]
    run = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, cwd=root)
    assert (run.returncode, run.stdout, run.stderr) == (0, "", "")
