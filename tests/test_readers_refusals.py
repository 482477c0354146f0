"""What is refused: one sentence that says what to do, and no library's error."""

import subprocess
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
from isal import igzip
from PIL import Image
from scan_files import SPACING, as_itk, chest, write_dicom, write_pictures

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
        data[42:48] = np.array([1500, 1500, 1500], "<i2").tobytes()
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
            Image.fromarray(grey[0][:5]).save(pictures[3])
        elif "truncated" in kind:
            pictures[3].write_bytes(pictures[3].read_bytes()[:-60])
        elif "text" in kind:
            pictures[3].write_text("hello")
        elif "16 bit" in kind:
            Image.fromarray(chest()[0].astype(np.uint16)).save(pictures[0])
        elif "both" in kind:
            write_pictures(path, grey, "{}.jpg")
        elif "blank" in kind:
            write_pictures(path, grey * 0, "{}.png")
    return path


BAD = {
    "nothing": "no such file or folder",
    "empty folder": "the folder is empty",
    "folder of text": "no DICOM, JPG or PNG slices among its 1 files, such as notes.txt",
    "folder of volumes": "such as one.nii.gz",
    "empty file": "empty .0 bytes",
    "other suffix": "not a kind of file that is read",
    "gzip text": "not a NIfTI file, whatever its name says",
    "nifti text": "not a NIfTI file, whatever its name says",
    "gzip of text": "not a NIfTI file, whatever its name says",
    "gzip truncated": "break off or are damaged",
    "gzip header only": "break off or are damaged",
    "gzip flipped": "break off or are damaged",
    "nifti truncated": "truncated or damaged",
    "nifti of absurd size": "claims 30000 x 30000 x 30000 voxels, more than any CT",
    "gzip that cannot hold it": "claims 1500 x 1500 x 1500 voxels of 2 bytes, and only",
    "nifti in 4-D": "4-D NIfTI",
    "nifti in colour": "colour",
    "nifti with NaN": "not numbers",
    "nifti with a flat affine": "orientation is not usable",
    "nifti in 12 bit": "intercept of -1024 were missing",
    "mha truncated": "truncated",
    "mha compressed truncated": "truncated",
    "mha absurd": "more than any CT",
    "mha negative": "cannot be read as MetaImage or NRRD|the header claims",
    "mha text": "cannot be read as MetaImage or NRRD",
    "mha colour": "3 values per voxel",
    "mha 4-D": "4 dimensions",
    "mha list": "spread over several files",
    "mhd without its raw file": "should lie in bad.raw beside it, which is missing",
    "nrrd truncated": "truncated",
    "nrrd compressed truncated": "truncated",
    "nrrd absurd": "more than any CT",
    "dicom text": "none of 1 DICOM files holds a picture",
    "dicom in colour": "which are colour",
    "dicom without places": "do not say where they lie",
    "picture colour": "a coloured picture",
    "picture size": "14 x 5 pixels, and the first slice has 14 x 12",
    "picture truncated": "not a whole JPG or PNG",
    "picture text": "not a whole JPG or PNG",
    "picture 16 bit": "mode I;16",
    "picture both": "both JPG and PNG",
    "picture blank": "every pixel is 0",
}


@pytest.mark.parametrize("kind", BAD)
def test_bad_input_ends_in_one_sentence(kind, tmp_path, capfd):
    path = bad_file(kind, tmp_path)
    with pytest.raises(ScanError, match=BAD[kind]) as caught:
        read_scan(path)
    message = str(caught.value)
    assert "\n" not in message and message.endswith(".") and message.startswith(str(tmp_path))
    assert Path(caught.value.subject).is_relative_to(path)
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
