"""Values of a DICOM header, which may hold anything: texts, numbers, directions, padding and tables, or Unreadable."""

from functools import cache, lru_cache
from typing import Any

import numpy as np
import pydicom
from pydicom.datadict import dictionary_description, dictionary_VR, tag_for_keyword
from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset
from pydicom.tag import BaseTag
from pydicom.uid import UID

from ggo_lab.errors import printable

_FARTHEST = 1e6  # mm; no slice lies, and no number of a header is, beyond
# Value representations of text that needs no alphabet but ASCII, where it holds nothing else.
_TEXTS = frozenset(["AE", "AS", "CS", "DA", "DS", "DT", "IS", "LO", "LT", "PN", "SH", "ST", "TM", "UI", "UT"])
NOTHING = Dataset()  # made once: pydicom takes its time for each


class Unreadable(Exception):
    """Why a file holds no picture that can be read, in a few words."""


@cache
def _tag(keyword: str) -> BaseTag:
    tag = tag_for_keyword(keyword)
    assert tag is not None
    return BaseTag(tag)


@cache
def _kind(keyword: str) -> str:
    return dictionary_VR(_tag(keyword))


def has_value(header: Dataset, keyword: str) -> bool:
    """Return whether a header has an element."""
    return _tag(keyword) in header


def _stored(header: Dataset, keyword: str) -> tuple[bytes, str, bool] | None:
    """The bytes of an element, its value representation, and whether it is little-endian; None where it was parsed."""
    element = header.get_item(_tag(keyword))
    if isinstance(element, RawDataElement) and isinstance(element.value, bytes):
        return element.value, element.VR or _kind(keyword), element.is_little_endian
    return None


def first_item(header: Dataset, sequence: str) -> Dataset:
    """Return the first item of a sequence; an empty one where there is none."""
    items = header.get(sequence) if has_value(header, sequence) else None
    return items[0] if items else NOTHING


def text_in(header: Dataset, keyword: str) -> str:
    """Return a printable text, without the surrogates that bytes of another alphabet than the file says become."""
    if not has_value(header, keyword):
        return ""
    # Pydicom's way from bytes to values takes a hundred times as long.
    data, kind, _ = _stored(header, keyword) or (b"\x1b", "", False)
    if kind in _TEXTS and data.isascii() and b"\x1b" not in data:  # which changes the alphabet
        return _ascii_text(data)
    value = header.get(keyword)
    if value is None:
        return ""
    values = value if isinstance(value, list | pydicom.multival.MultiValue) else [value]
    return printable("\\".join(str(part) for part in values)).strip(" \ufffd")


@lru_cache(maxsize=4096)  # the files of a series say the same
def _ascii_text(stored: bytes) -> str:
    parts = (part.strip(" \0") for part in stored.decode("ascii").split("\\"))
    return printable("\\".join(parts)).strip(" \ufffd")


def unsigned_in(header: Dataset, keyword: str) -> int | None:
    """Return a whole number; None where there is none."""
    if not has_value(header, keyword):
        return None
    if (stored := _stored(header, keyword)) and stored[1] == "US" and len(stored[0]) == 2:
        return int.from_bytes(stored[0], "little" if stored[2] else "big")
    value = header.get(keyword)
    return None if value is None or value == "" else int(value)


def whole_in(header: Dataset, keyword: str) -> int:
    """Return a whole number; 0 where there is none."""
    if not has_value(header, keyword):
        return 0
    try:
        stored = _stored(header, keyword)
        return int(stored[0].strip(b" \0") if stored and stored[1] == "IS" else header.get(keyword) or 0)
    except (TypeError, ValueError):
        return 0


def numbers_in(header: Dataset | None, keyword: str, count: int) -> tuple[float, ...] | None:
    """Return so many decimal numbers, with points or commas; None for none, Unreadable for anything else."""
    if header is None or not has_value(header, keyword):
        return None
    value: Any = header.get_item(_tag(keyword)).value  # as it stands in the file: pydicom fails on what is no number
    if isinstance(value, bytes):
        value = value.decode("latin-1").strip(" \0")
    if value is None or value == "":
        return None
    several = isinstance(value, list | tuple | pydicom.multival.MultiValue)
    return _parsed_numbers("\\".join(map(str, value)) if several else str(value), keyword, count)


@lru_cache(maxsize=4096)
def _parsed_numbers(text: str, keyword: str, count: int) -> tuple[float, ...]:
    try:
        numbers = tuple(float(part.replace(",", ".")) for part in text.split("\\"))
    except ValueError:
        numbers = ()
    if len(numbers) != count or not all(abs(number) <= _FARTHEST for number in numbers):
        shown = printable(text[:60])
        raise Unreadable(f"with a {dictionary_description(keyword)} of {shown!r}, not {count} likely number(s)")
    return numbers


@lru_cache(maxsize=64)
def unit_ways(numbers: tuple[float, ...] | None) -> np.ndarray | None:
    """Return the two directions of a slice as columns of length 1; None unless they stand upright on each other."""
    if numbers is None:
        return None
    ways = np.array(numbers).reshape(2, 3).T
    lengths = np.linalg.norm(ways, axis=0)
    if np.abs(lengths - 1).max() > 0.1 or abs(ways[:, 0] @ ways[:, 1]) > 0.1:
        return None
    ways = ways / lengths
    ways.flags.writeable = False  # all slices of a series share it
    return ways


def padding_in(header: Dataset, allocated: int, signed: bool) -> tuple[int, int] | None:
    """Return the range of stored values that is declared as padding, in the type that the pixels have."""
    if not has_value(header, "PixelPaddingValue"):
        return None
    limits = []
    for keyword in ("PixelPaddingValue", "PixelPaddingRangeLimit"):
        try:
            value = int(header.get(keyword))
        except Exception:  # absent, or no number: then nothing is declared
            continue
        # It may be written with the other sign than the pixels.
        if signed and value >= 1 << (allocated - 1):
            value -= 1 << allocated
        elif not signed and value < 0:
            value += 1 << allocated
        limits.append(value)
    return (min(limits), max(limits)) if limits else None


def lut_in(header: Dataset, signed: bool) -> tuple[int, np.ndarray] | None:
    """Return the modality LUT, which stands for slope and intercept in some files."""
    table = first_item(header, "ModalityLUTSequence")
    if "LUTDescriptor" not in table:
        return None
    count, first, bits = (int(part) for part in table.LUTDescriptor)
    data = table.get("LUTData")
    if isinstance(data, bytes):
        order = "<" if UID(header.file_meta.TransferSyntaxUID).is_little_endian else ">"
        data = np.frombuffer(data, f"{order}u2" if len(data) >= 2 * (count % 65536 or 65536) else "u1")
    entries = np.atleast_1d(np.array(data, np.int64))
    if signed and first > 32767:
        first -= 65536
    if len(entries) < (count % 65536 or 65536):  # 0 stands for 65536
        raise Unreadable("with a modality LUT that is cut off")
    kind = text_in(table, "ModalityLUTType").upper()
    if kind.startswith("HU") and entries.max() > 32767 and bits == 16:  # HU below 0, as 16 bits without a sign
        entries = np.where(entries > 32767, entries - 65536, entries)
    return first, np.clip(entries, -32768, 65535).astype(np.int32)
