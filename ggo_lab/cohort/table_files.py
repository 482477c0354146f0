"""Tables as people keep them: CSV of any separator and encoding, and Excel."""

import io
import os
import zipfile
from pathlib import Path

import numpy as np
import pandas as pd

from ggo_lab.cohort.columns import is_text
from ggo_lab.errors import CohortError

_OTHER_TABLES = (".xls", ".ods", ".numbers", ".xlsb")
# Tables of scans have hundreds or thousands of rows; what is larger is another table, or never ends.
_MOST_ROWS, _MOST_COLUMNS, _LARGEST_TABLE = 100_000, 1_000, 64 << 20
_NOTHING = ("", "NA", "N/A", "n/a", "#N/A", "NaN", "nan", "NULL", "null", "None", "<NA>")


def read_table(path: Path) -> pd.DataFrame:
    """Read a table from CSV (the header tells the separator) or from the first sheet of an Excel file.

    Args:
        path: a text of any usual encoding, or .xlsx.

    Returns:
        Names, patients and paths as text, so that patient 007 keeps its zeros and patient NA is one; what is numbers
        elsewhere as numbers. `attrs["encoding"]` tells how a text was decoded.

    Raises:
        CohortError: no such file, not a table, or one larger than any table of scans.
    """
    if not os.path.exists(path):
        raise CohortError(f"{path}: no such file; give a CSV with the columns path, grade, patient, split.", path)
    if not path.is_file():
        raise CohortError(f"{path}: not a file; give a CSV with the columns path, grade, patient, split.", path)
    if path.suffix.lower() in _OTHER_TABLES:
        raise CohortError(f"{path}: a spreadsheet of another kind than .xlsx; save it as .xlsx or .csv.", path)
    try:
        table = _excel(path) if path.suffix.lower() in (".xlsx", ".xlsm") else _text_table(path)
    except CohortError:
        raise
    except Exception as error:  # pandas and openpyxl raise errors of many kinds on what is no table
        raise CohortError(
            f"{path}: not a readable table ({error}); save it as plain comma-separated text.", path
        ) from None
    attrs = table.attrs
    if len(table) > _MOST_ROWS or len(table.columns) > _MOST_COLUMNS:
        raise _too_large(path, f"more than {_MOST_ROWS} rows or {_MOST_COLUMNS} columns")
    table = table.rename(columns=lambda column: str(column).strip())
    if doubled := table.columns[table.columns.duplicated()].tolist():
        raise CohortError(f"{path}: has the column {doubled[0]!r} more than once; keep one of them.", path)
    for column in table.columns:
        if not is_text(column):
            table[column] = _numbers_or_text(table[column], attrs.get("separator") == ";")
    table.attrs = attrs
    return table


def _excel(path: Path) -> pd.DataFrame:
    with zipfile.ZipFile(path) as archive:
        if sum(entry.file_size for entry in archive.infolist()) > _LARGEST_TABLE:
            raise _too_large(path, f"more than {_LARGEST_TABLE >> 20} MB when unpacked")
    how = {"keep_default_na": False, "na_values": [""]}
    text = {column: "string" for column in pd.read_excel(path, nrows=0).columns if is_text(column)}
    return pd.read_excel(path, dtype=text, nrows=_MOST_ROWS + 1, **how)


def _text_table(path: Path) -> pd.DataFrame:
    if path.stat().st_size > _LARGEST_TABLE:
        raise _too_large(path, f"more than {_LARGEST_TABLE >> 20} MB")
    text, encoding = _decoded(path.read_bytes())
    header = text.split("\n", 1)[0]
    separator = max(",;\t", key=header.count)
    table = pd.read_csv(
        io.StringIO(text),
        sep=separator,
        dtype="string",
        keep_default_na=False,
        na_values=[""],
        skipinitialspace=True,
        nrows=_MOST_ROWS + 1,
    )
    table.attrs.update(encoding=encoding, separator=separator)
    return table


def _decoded(content: bytes) -> tuple[str, str]:
    """The text and its encoding: UTF-8 and UTF-16 are recognised; what is neither is taken for Windows'."""
    for mark, encoding in ((b"\xff\xfe", "utf-16"), (b"\xfe\xff", "utf-16")):
        if content.startswith(mark):
            return content.decode(encoding), encoding
    for encoding in ("utf-16-le", "utf-16-be"):  # every second byte of plain letters is 0
        if content[encoding == "utf-16-le" : 40 : 2].strip(b"\0") == b"" and len(content) >= 4:
            return content.decode(encoding), encoding
    try:
        return content.decode("utf-8-sig"), "utf-8"
    except UnicodeDecodeError:
        return content.decode("cp1252", "replace"), "cp1252"


def _too_large(path: Path, what: str) -> CohortError:
    return CohortError(f"{path}: {what}, and a table of scans has a row a scan; give that table.", path)


def _numbers_or_text(column: pd.Series, with_commas: bool) -> pd.Series:
    """A column without names: numbers where all of it are, and what spreadsheets write for nothing as missing."""
    values = column.map(lambda value: pd.NA if isinstance(value, str) and value.strip() in _NOTHING else value)
    texts = values.map(lambda value: value.replace(",", ".") if with_commas and isinstance(value, str) else value)
    numbers = pd.to_numeric(texts.astype(object).where(texts.notna(), np.nan), errors="coerce")
    return numbers if numbers.notna().sum() == values.notna().sum() else values
