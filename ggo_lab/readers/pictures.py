"""Folders of JPG or PNG slices, as challenges share them: 8-bit grey, so HU can only be estimated."""

import io
import os
import re
import struct
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import imagecodecs
import numpy as np
from PIL import Image

from ggo_lab.errors import ScanError, check_choice, printable
from ggo_lab.readers.stored import Stored, check_size, listed
from ggo_lab.scan import Window, as_window

PICTURE_SUFFIXES = (".jpg", ".jpeg", ".png")

# Pillow asks all its decoders otherwise, whatever a file is called, and one of them hands PostScript to Ghostscript: a
# program inside 1.png would be run.
_DECODERS = ("JPEG", "PNG")
_READ_BYTES = os.O_RDONLY | getattr(os, "O_BINARY", 0)  # on Windows, line ends change otherwise
_PNG = b"\x89PNG\r\n\x1a\n"
_HEADER = 512  # bytes; a JPEG's size stands behind its tables, and only thumbnails are longer
_JPEG_END = b"\xff\xd9"
_SEGMENT = struct.Struct(">HHBHHB").unpack_from  # marker, length; in a frame's header bits, rows, columns, colours
_FRAME_HEADERS = (0xFFC0, 0xFFC1, 0xFFC2)  # baseline to progressive (ITU T.81, B.2.2)
_PIXELS_FOLLOW = 0xFFDA
_NUMBER = re.compile(r"((?:(?<![^\s_(\[=])-)?(?:(?<![\d.])\d+\.\d+(?!\.?\d)|\d+))")
# Assumed where no spacing is given: a chest fits into a field of view of 350 mm (0.68 mm at 512 pixels), and is
# 300 mm long; slices are 1 to 8 mm apart.
_WIDTH_MM, _LENGTH_MM = 350.0, 300.0
_DISTANCES_MM = (1.0, 8.0)
_GREY_MODES = ("L", "LA")
_COLOUR_MODES = ("RGB", "RGBA", "P", "PA")  # may hold grey all the same
_SAME_GREY = 8  # levels; JPEG compression lets the channels of grey drift apart a little
_LEAST_ALIKE = 0.8  # of the pictures of a folder, at least, that are slices where others are not
_MOST_PIXELS = 64_000_000  # of a picture; 8000 x 8000, and no CT has more than 2048 x 2048


def open_pictures(
    files: list[str], path: Path, grey_window: str | Window | tuple[float, float], first_slice: str
) -> Stored:
    """Open slices in natural order of their names (2 before 10), whose HU are estimated from the window of their grey.

    Args:
        files: one picture a slice, each upright in radiological view.
        path: what the user gave, for messages.
        grey_window: name, or (level, width) in HU.
        first_slice: "head" or "feet".
    """
    check_choice("first_slice", first_slice, ("head", "feet"))
    level, width = as_window(grey_window)
    notes: list[str] = []
    # By names, for paths take longer to compare. All lie in one folder.
    by_name = {os.path.basename(file): file for file in files}
    names = _slices_of_one_kind(list(by_name), path, notes)
    sizes, unreadable, bytes_read = _sizes([by_name[name] for name in names], names)
    counted = Counter(sizes.values())
    if not counted:
        file = by_name[names[0]]
        raise ScanError(f"{file}: not a whole JPG or PNG picture ({unreadable[names[0]]}); copy it again.", Path(file))
    (size, count) = max(counted.items(), key=lambda item: item[1])
    odd = [f"{name} ({its[1]} x {its[0]})" for name, its in sizes.items() if its != size]
    if 2 * count <= len(names):
        what = f"only {count} of {len(names)} pictures have one size ({size[1]} x {size[0]} pixels)"
        others = listed([*odd, *unreadable])
        raise ScanError(f"{path}: {what}, others not: {others}; keep the slices of one scan only in the folder.", path)
    if odd:
        notes.append(f"{len(odd)} pictures are not {size[1]} x {size[0]} pixels and were left out: {listed(odd)}.")
    if unreadable:
        named = listed(list(unreadable))
        notes.append(f"{len(unreadable)} files are no whole JPG or PNG picture and were left out: {named}.")
    names = [name for name, its in sizes.items() if its == size]
    files = [by_name[name] for name in names]
    # What was read of the files is nearly always enough for what they claim.
    bytes_there = bytes_read if len(files) * size[0] * size[1] < 1000 * bytes_read else sum(map(os.path.getsize, files))
    check_size((len(files), *size), 1, bytes_there, True, path)
    if first_slice == "head":
        files.reverse()
        names.reverse()

    def planes(wanted: Sequence[int]) -> Iterator[np.ndarray | None]:
        for k in wanted:
            try:
                yield _grey(files[k], size)
            except _NotWhole as error:
                if len(files) == 1:
                    raise ScanError(
                        f"{files[k]}: not a whole JPG or PNG picture ({error}); copy it again.", path
                    ) from error
                yield None

    steps = np.diag([_WIDTH_MM / max(size)] * 2 + [np.clip(_LENGTH_MM / len(files), *_DISTANCES_MM)])
    first = names[-1] if first_slice == "head" else names[0]
    notes += [
        f"The HU are an estimate: grey 0 to 255 was taken for the window of level {level:g} and width {width:g} HU.",
        f"The first picture, {printable(first)}, was taken to lie nearest the {first_slice}, and the patient's "
        "right on the pictures' left.",
        f"Pictures have no spacing: {_WIDTH_MM:g} mm across and {_LENGTH_MM:g} mm from the first slice to the last "
        f"were assumed, with slices {_DISTANCES_MM[0]:g} to {_DISTANCES_MM[1]:g} mm apart.",
    ]
    return Stored((len(files), *size), steps, planes, width / 255, level - width / 2, (), False, notes, names)


def natural(name: str) -> list[str | float]:
    """Give a sort key under which slice2 comes before slice10, -5 before 3, and 1.25 before 1.5.

    A minus counts where it begins the name or follows a blank, an underscore, a bracket or a sign of equality; between
    letters and digits it is a hyphen. Numbers with more than one point, such as UIDs, are compared part by part.
    """
    return _key(_parts(name))


def _parts(name: str) -> list[str]:
    """A name in pieces; every second is a number."""
    return _NUMBER.split(name.lower())


def _key(parts: list[str]) -> list[str | float]:
    """A name's parts, every second of which is a number, as they are compared."""
    return [part if n % 2 == 0 else float(part) if "." in part else int(part) for n, part in enumerate(parts)]


def _in_order(parts_of: dict[str, list[str]]) -> list[str]:
    """The names by the numbers in them; a minus that all of them have behind a blank is a hyphen there."""
    parts = list(parts_of.values())
    for n in range(1, min(map(len, parts)), 2):
        if all(part[n].startswith("-") and part[n - 1][-1:] not in ("", "=") for part in parts):
            for part in parts:
                part[n - 1], part[n] = part[n - 1] + "-", part[n][1:]
    return [name for _, name in sorted((_key(part), name) for name, part in parts_of.items())]


class _NotWhole(Exception):
    """A picture that breaks off, or is damaged."""


def _slices_of_one_kind(names: list[str], path: Path, notes: list[str]) -> list[str]:
    """The pictures that are slices, in natural order; notes on those that are none by their names or kind."""
    stems = {name: name.rpartition(".")[0] for name in names}
    parts = {name: _parts(stem) for name, stem in stems.items()}
    patterns = {name: tuple(pieces[::2]) for name, pieces in parts.items()}  # the name without its numbers
    usual, count = Counter(patterns.values()).most_common(1)[0]
    if len(names) > count > _LEAST_ALIKE * len(names):
        stray = [name for name in names if patterns[name] != usual]
        notes.append(f"{len(stray)} pictures named otherwise than the slices were left out: {listed(stray)}.")
        names = [name for name in names if patterns[name] == usual]
    kind_of = {name: ".png" if name.lower().endswith("png") else ".jpg" for name in names}
    kinds = Counter(kind_of.values())
    if len(kinds) > 1:
        kind, count = kinds.most_common(1)[0]
        others = [name for name in names if kind_of[name] != kind]
        doubled = {stems[name] for name in names if kind_of[name] == kind} & {stems[name] for name in others}
        if 10 * len(others) > count or doubled:
            raise ScanError(
                f"{path}: holds both JPG and PNG files; leave one kind there, or slices may come twice.", path
            )
        notes.append(f"{len(others)} pictures of another kind than {kind} were left out: {listed(others)}.")
        names = [name for name in names if kind_of[name] == kind]
    return _in_order({name: parts[name] for name in names})


def _sizes(files: list[str], names: list[str]) -> tuple[dict[str, tuple[int, int]], dict[str, str], int]:
    """Rows and columns of each picture by its header, why others have none, and how many bytes were read of them."""
    sizes, unreadable, bytes_read = {}, {}, 0
    for file, name in zip(files, names, strict=True):
        try:
            # The system's own calls: a file object takes as long again to make, and there are hundreds.
            opened = os.open(file, _READ_BYTES)
            try:
                start = os.read(opened, _HEADER)
            finally:
                os.close(opened)
            bytes_read += len(start)
            if header := _size_in_header(start):
                size = header[:2]
            else:
                with Image.open(file, formats=_DECODERS) as picture:
                    size = picture.size[::-1]
            if not 0 < size[0] * size[1] <= _MOST_PIXELS:
                raise ValueError(f"{size[1]} x {size[0]} pixels")
            sizes[name] = size
        except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
            unreadable[name] = printable(str(error)) if file not in str(error) else "no JPEG or PNG header"
    return sizes, unreadable, bytes_read


def _size_in_header(start: bytes) -> tuple[int, int, int] | None:
    """Rows, columns and colours in the first bytes of a file, 0 colours where they are left open; None: ask Pillow.

    Ten times as fast as it is.
    """
    if start[:8] == _PNG and start[12:16] == b"IHDR":
        return int.from_bytes(start[20:24], "big"), int.from_bytes(start[16:20], "big"), 0
    if start[:2] != b"\xff\xd8":
        return None
    for marker, _, _, rows, columns, colours in _segments(start):
        if marker in _FRAME_HEADERS:
            return rows, columns, colours
    return None


def _segments(start: bytes, at: int = 2) -> Iterator[tuple[int, ...]]:
    """The parts of a JPEG's header, one after another: see _SEGMENT."""
    last = len(start) - 10
    while at <= last:
        found = _SEGMENT(start, at)
        if found[0] < 0xFF00:
            return
        yield found
        at += 2 + found[1]


def _is_whole_grey_jpeg(data: bytes, size: tuple[int, int]) -> bool:
    """Whether libjpeg can be asked itself, without Pillow's detours, a tenth of all that an image takes.

    It fills in what a picture that breaks off lacks, and is silent: all of the header must be there, and the end.
    """
    if data[:2] != b"\xff\xd8" or not data.endswith(_JPEG_END):
        return False
    known = False
    for marker, _, _, rows, columns, colours in _segments(data):
        known = known or (marker == _FRAME_HEADERS[0] and (rows, columns, colours) == (*size, 1))
        if marker == _PIXELS_FOLLOW:
            return known
    return False


def _grey(file: str, size: tuple[int, int]) -> np.ndarray:
    """The grey (Y, X) of one picture; _NotWhole where it is damaged, ScanError for colours."""
    try:
        with open(file, "rb") as stream:
            data = stream.read()
        if _is_whole_grey_jpeg(data, size):
            grey: np.ndarray = imagecodecs.jpeg8_decode(data)
            if grey.shape != size:
                raise _NotWhole("its size is another one than its header's")
            return grey
        with Image.open(io.BytesIO(data), formats=_DECODERS) as picture:
            if picture.size[::-1] != size:
                raise _NotWhole("its size is another one than its header's")
            if picture.mode in _GREY_MODES:
                return np.asarray(picture if picture.mode == "L" else picture.convert("L"))
            if picture.mode not in _COLOUR_MODES:
                raise ScanError(
                    f"{file}: a picture of mode {picture.mode}, and 8-bit grey is read; if it holds HU with more bits, "
                    "convert the scan to .nii.gz.",
                    Path(file),
                )
            colours = np.asarray(picture.convert("RGB"))
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError, imagecodecs.Jpeg8Error) as error:
        raise _NotWhole(printable(str(error))) from error
    if int(np.ptp(colours, axis=2).max()) > _SAME_GREY:
        raise ScanError(f"{file}: a coloured picture, and CT slices are grey; give them without overlays.", Path(file))
    return colours[..., 1]
