"""Folders of JPG or PNG slices, as challenges share them: 8-bit grey, so HU can only be estimated."""

import re
from pathlib import Path

import numpy as np
from PIL import Image

from ggo_lab.errors import ScanError, check_choice
from ggo_lab.readers.stored import Stored, check_size
from ggo_lab.scan import Window, as_window

PICTURE_SUFFIXES = (".jpg", ".jpeg", ".png")

# Assumed where no spacing is given: a chest fits into a field of view of 350 mm (0.68 mm at 512 pixels), and is
# 300 mm long; slices are 1 to 8 mm apart.
_WIDTH_MM, _LENGTH_MM = 350.0, 300.0
_DISTANCES_MM = (1.0, 8.0)
_GREY_MODES = ("L", "LA")
_COLOUR_MODES = ("RGB", "RGBA", "P", "PA")  # may hold grey all the same
_SAME_GREY = 8  # levels; JPEG compression lets the channels of grey drift apart a little


def read_pictures(
    files: list[Path], path: Path, grey_window: str | Window | tuple[float, float], first_slice: str
) -> Stored:
    """Read slices in natural order of their names (2 before 10) and estimate HU from the window that made the grey.

    Args:
        files: one picture a slice, each upright in radiological view.
        path: what the user gave, for messages.
        grey_window: name, or (level, width) in HU.
        first_slice: "head" or "feet".
    """
    check_choice("first_slice", first_slice, ("head", "feet"))
    level, width = as_window(grey_window)
    suffixes = {file.suffix.lower().replace("jpeg", "jpg") for file in files}
    if len(suffixes) > 1:
        raise ScanError(f"{path}: holds both JPG and PNG files; leave one kind there, or slices may come twice.", path)
    files = sorted(files, key=lambda file: natural(file.name))
    first = _grey(files[0], None)
    shape = (len(files), *first.shape)
    check_size(shape, 1, sum(file.stat().st_size for file in files), True, path)
    grey = np.empty(shape, np.uint8)
    grey[0] = first
    for z, file in enumerate(files[1:], 1):
        grey[z] = _grey(file, first.shape)
    if grey.min() == grey.max():
        raise ScanError(
            f"{path}: every pixel is {grey.min()}, so there is nothing to see; export the pictures again.", path
        )
    if first_slice == "head":
        grey = grey[::-1]

    table = np.rint(level - width / 2 + np.arange(256) * (width / 255)).astype(np.int16)
    steps = np.diag([_WIDTH_MM / max(first.shape)] * 2 + [np.clip(_LENGTH_MM / len(files), *_DISTANCES_MM)])
    notes = (
        f"The HU are an estimate: grey 0 to 255 was taken for the window of level {level:g} and width {width:g} HU.",
        f"The first picture, {files[0].name}, was taken to lie nearest the {first_slice}, and the "
        "patient's right on the pictures' left.",
        f"Pictures have no spacing: {_WIDTH_MM:g} mm across and {_LENGTH_MM:g} mm from the first slice to the last "
        f"were assumed, with slices {_DISTANCES_MM[0]:g} to {_DISTANCES_MM[1]:g} mm apart.",
    )
    return Stored(table[grey], steps, is_hu=False, notes=notes)


def natural(name: str) -> list[str | int]:
    """Sort key under which slice2 comes before slice10."""
    return [int(part) if part.isdecimal() else part for part in re.split(r"(\d+)", name.lower())]


def _grey(file: Path, shape: tuple[int, int] | None) -> np.ndarray:
    """The grey (Y, X) of one picture; ScanError for colours and for another shape than the one expected."""
    try:
        with Image.open(file) as picture:
            if shape is not None and picture.size[::-1] != shape:
                raise ScanError(
                    f"{file}: {picture.size[0]} x {picture.size[1]} pixels, and the first slice has {shape[1]} x "
                    f"{shape[0]}; keep the slices of one scan only in the folder.",
                    file,
                )
            if picture.mode in _GREY_MODES:
                return np.asarray(picture.convert("L"))
            if picture.mode not in _COLOUR_MODES:
                raise ScanError(
                    f"{file}: a picture of mode {picture.mode}, and 8-bit grey is read; if it holds HU with more bits, "
                    "convert the scan to .nii.gz.",
                    file,
                )
            colours = np.asarray(picture.convert("RGB"))
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise ScanError(f"{file}: not a whole JPG or PNG picture ({error}); copy it again.", file) from error
    if int(np.ptp(colours, axis=2).max()) > _SAME_GREY:
        raise ScanError(f"{file}: a coloured picture, and CT slices are grey; give them without overlays.", file)
    return colours[..., 1]
