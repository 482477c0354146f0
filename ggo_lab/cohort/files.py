"""Cohorts of files: read_cohort takes a table of your own."""

import json
from pathlib import Path

import pandas as pd

from ggo_lab.cohort.table import Cohort
from ggo_lab.errors import CohortError
from ggo_lab.readers import read_scan
from ggo_lab.scan import Scan


def read_cohort(csv: str | Path) -> Cohort:
    """Read a cohort from a CSV file of your own.

    Args:
        csv: columns `path` (of a file or folder that read_scan opens; relative to the CSV's folder) and, where known,
            `name` (default: the path), `patient` (default: the name), `grade` (1..4) and `split`.
    Returns: a Cohort; without a `split` column, call `split_by_patient` next.
    Raises:
        CohortError: no such file, no `path` column, no row, or none of the named scans exists.
    """
    csv = Path(csv)
    try:
        table = pd.read_csv(csv, sep=None, engine="python", dtype={"name": "string", "patient": "string"})
    except FileNotFoundError:
        raise CohortError(
            f"{csv}: no such file; give a CSV with the columns path, grade, patient, split.", csv
        ) from None
    except (ValueError, OSError) as error:
        raise CohortError(f"{csv}: not a readable CSV ({error}); save it as plain comma-separated text.", csv) from None
    if "path" not in table:
        raise CohortError(f"{csv}: no column 'path'; found {list(table.columns)}.", csv)
    if table["path"].isna().any() or table.empty:
        raise CohortError(f"{csv}: {int(table['path'].isna().sum())} of {len(table)} rows have a path missing.", csv)
    table["name"] = table["name"] if "name" in table else table["path"]
    table["patient"] = table["patient"] if "patient" in table else table["name"]
    for column in ("grade", "split"):
        if column not in table:
            table[column] = pd.NA
    table["path"] = [str((csv.parent / path).resolve()) for path in table["path"]]
    if not any(Path(path).exists() for path in table["path"]):
        raise CohortError(
            f"{csv}: none of its {len(table)} scans exists; the first is looked for at {table['path'][0]}.", csv
        )
    return Cohort(table, _read_row, _identify_path)


def _read_row(row: dict) -> Scan:
    return read_scan(row["path"])


def _identify_path(row: dict) -> str:
    """A file's or folder's path, sizes and times of change."""
    path = Path(row["path"])
    files = sorted(path.rglob("*")) if path.is_dir() else [path]
    return json.dumps([str(path), [[str(f), f.stat().st_size, f.stat().st_mtime_ns] for f in files if f.is_file()]])
