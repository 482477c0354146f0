"""Only JPEG and PNG are decoded as pictures, whatever else bears their name; no file makes another program run."""

import io
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scan_files import chest, write_pictures

from ggo_lab.errors import ScanError
from ggo_lab.readers import read_scan
from ggo_lab.scan import window

ROOT = Path(__file__).parents[1]
POSTSCRIPT = (
    b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 14 12\n%%EndComments\n(opened) (w) file closefile\nshowpage\n"
)
# The same behind the header that old DOS files have: where PostScript begins, and its length.
DOS_EPS = (
    b"\xc5\xd0\xd3\xc6" + (30).to_bytes(4, "little") + len(POSTSCRIPT).to_bytes(4, "little") + bytes(18) + POSTSCRIPT
)
READ = """
import sys
from ggo_lab.errors import GgoLabError
from ggo_lab.readers import read_scan
from ggo_lab.cohort import cov19_ctdb, read_cohort
from ggo_lab import Cohort
for path in sys.argv[1:]:
    for call in (read_scan, cov19_ctdb, read_cohort, lambda path: Cohort.from_folder(path).check(contents=True)):
        try:
            call(path)
        except GgoLabError as error:
            pass
"""


@pytest.fixture
def called(tmp_path):
    """A program in the place of each interpreter of pictures, which leaves its name in a folder when it is called."""
    programs, calls = tmp_path / "bin", tmp_path / "calls"
    programs.mkdir()
    calls.mkdir()
    for name in ("gs", "gswin32c", "gswin64c", "magick", "convert", "djpeg", "inkscape", "xdg-open"):
        program = programs / name
        program.write_text(f'#!/bin/sh\ntouch "{calls / name}"\n')
        program.chmod(0o755)
    environment = {**os.environ, "PATH": f"{programs}{os.pathsep}{os.environ['PATH']}"}
    return environment, calls


def test_postscript_in_a_picture_is_not_run(tmp_path, called):
    environment, calls = called
    inputs = []
    for number, (name, content) in enumerate(
        [("1.png", POSTSCRIPT), ("1.jpg", POSTSCRIPT), ("1.jpeg", DOS_EPS), ("1.PNG", DOS_EPS)]
    ):
        folder = tmp_path / f"set{number}" / "train" / f"ct_scan_{number}"
        folder.mkdir(parents=True)
        (folder / name).write_bytes(content)
        inputs += [folder.parents[1], folder, folder / name]
    # The stand-in is seen: Pillow calls it where any format may be opened.
    plain = f"from PIL import Image; Image.open({str(inputs[2])!r}).load()"
    subprocess.run([sys.executable, "-c", plain], env=environment, capture_output=True, timeout=60)
    assert [path.name for path in calls.iterdir()] == ["gs"]
    (calls / "gs").unlink()

    ended = subprocess.run(
        [sys.executable, "-c", READ, *map(str, inputs)], env=environment, capture_output=True, text=True, cwd=ROOT
    )
    assert ended.returncode == 0, ended.stderr
    assert not list(calls.iterdir())


def test_no_place_in_the_package_lets_pillow_choose_the_decoder():
    calls = [
        line for file in (ROOT / "ggo_lab").rglob("*.py") for line in file.read_text(encoding="utf-8").splitlines()
    ]
    calls = [line for line in calls if "Image.open(" in line]
    assert len(calls) >= 3 and all("formats=" in line for line in calls)


@pytest.mark.parametrize("kind", ["BMP", "GIF", "TIFF", "WEBP", "PPM", "TGA", "ICO", "PCX", "SGI", "JPEG2000", "PDF"])
@pytest.mark.parametrize("name", ["1.png", "1.jpg"])
def test_other_pictures_under_the_name_are_refused(tmp_path, kind, name):
    content = io.BytesIO()
    Image.fromarray(window(chest()[0], -300, 1400)).save(content, kind)
    (tmp_path / name).write_bytes(content.getvalue())
    with pytest.raises(ScanError, match=f"{name}: not a whole JPG or PNG"):
        read_scan(tmp_path)


def test_a_jpg_that_is_called_png_is_what_it_is(tmp_path):
    grey = window(chest(), -300, 1400)
    write_pictures(tmp_path, grey, "{}.jpg")
    right = read_scan(tmp_path).hu
    for path in list(tmp_path.iterdir()):
        path.rename(path.with_suffix(".png"))
    assert np.array_equal(read_scan(tmp_path).hu, right)
