"""Write a cohort as a public set lays its files out, for lessons about real folders and for tests of the loaders."""

import hashlib
import io
import json
import os
from collections.abc import Callable
from pathlib import Path

import pandas as pd
from PIL import Image

from ggo_lab.cohort.parallel import for_each
from ggo_lab.cohort.table import Cohort
from ggo_lab.errors import CohortError, check_choice
from ggo_lab.readers import write_nifti
from ggo_lab.scan import WINDOWS, Scan, window
from ggo_lab.storage import (
    home_filled_in,
    is_unfinished,
    sweep_unfinished,
    write_folder_whole,
    write_text_whole,
    write_whole,
)
from ggo_lab.tasks import GGO_SEVERITY, MOSMED, Task

_JPG_QUALITY = 95  # Pillow's advice for the finest; above it files grow and nothing is gained
_MARK = ".written_by_ggo_lab.json"  # which cohort a folder holds, and under which names


def write_as_cov19_ctdb(
    cohort: Cohort, folder: str | Path, edition: int = 2023, jobs: int | None = None, progress: bool = True
) -> Path:
    """Lay a cohort out as COV19-CT-DB: folders of numbered JPG slices, head first, and tables of grades.

    HU are lost, as there: the slices are 8-bit grey in the "paper" window. Scans without one of the four grades go to
    non-covid. Test scans keep no grade, and patients are not named. Interrupted, it goes on where it stopped when
    called again.

    Args:
        cohort: with a split for every scan, of the four grades or a finer task.
        folder: new, empty, or begun by the same call, which no longer runs.
        edition: 2023 (`ICASSP_severity_{train,validation}_partition.xlsx`) or 2022
            (`{train,val}_partition_covid_categories.csv`, with semicolons).
        jobs: processes (default: one per core).
        progress: show a bar.

    Returns:
        The folder, for cov19_ctdb.

    Raises:
        CohortError: scans without a split, or a folder that holds something else.
        ChoiceError: an unknown edition, or a task whose classes are not those of the four grades.
    """
    check_choice("edition", edition, (2022, 2023))
    splits, grades = cohort.table["split"], 1 + _labels_as(cohort, GGO_SEVERITY)
    if splits.isna().any():
        raise CohortError("Some scans have no split, and the layout needs one: call split_by_patient first.")
    names = [f"ct_scan_{number}" for number in cohort.table.groupby("split").cumcount()]
    places = []
    for name, split, grade in zip(names, splits, grades, strict=True):
        kind = "non-covid" if pd.isna(grade) else "" if split == "test" else "covid"
        places.append(Path(split, kind, name))
    root = _begin(cohort, folder, f"COV19-CT-DB {edition}", places)
    _write_each(_write_slices, cohort, root, [(place,) for place in places], jobs, progress)
    table = pd.DataFrame({"Name": names, "Category": grades})
    for split, short in (("train", "train"), ("validation", "val")):
        rows = table[(splits == split) & grades.notna()]
        if edition == 2023:
            _write_excel(rows, root / f"ICASSP_severity_{split}_partition.xlsx")
        else:
            text = rows.to_csv(sep=";", index=False)
            write_text_whole(root / f"{short}_partition_covid_categories.csv", text)
    return root


def write_as_mosmed(cohort: Cohort, folder: str | Path, jobs: int | None = None, progress: bool = True) -> Path:
    """Lay a cohort out as MosMedData: studies by category, masks of lesions where the truth is known, a registry.

    The grades mild to critical are CT-1 to CT-4; scans without a label are CT-0. Splits and patients are not kept, as
    there. Interrupted, it goes on where it stopped when called again.

    Args:
        cohort: of GGO_SEVERITY or MOSMED.
        folder: new, empty, or begun by the same call, which no longer runs.
        jobs: processes (default: one per core).
        progress: show a bar.

    Returns:
        The folder, for mosmed.

    Raises:
        CohortError: a folder that holds something else.
    """
    category = _labels_as(cohort, MOSMED).fillna(0)
    number = category.rank(method="first").astype(int)  # the set counts its studies from CT-0 to CT-4
    studies = [Path("studies", f"CT-{c}", f"study_{n:04d}.nii.gz") for c, n in zip(category, number, strict=True)]
    masks = [Path("masks", f"study_{n:04d}_mask.nii.gz") for n in number]
    root = _begin(cohort, folder, "MosMedData", studies)
    _write_each(_write_study, cohort, root, list(zip(studies, masks, strict=True)), jobs, progress)
    registry = pd.DataFrame(
        {
            "study_id": [study.name.removesuffix(".nii.gz") for study in studies],
            "category": [f"CT-{c}" for c in category],
            "study_file": [study.as_posix() for study in studies],
            "mask_file": [mask.as_posix() if (root / mask).exists() else None for mask in masks],
        }
    )
    _write_excel(registry.sort_values("study_id"), root / "dataset_registry.xlsx")
    return root


def _labels_as(cohort: Cohort, task: Task) -> pd.Series:
    """Return the labels as those of another task, missing where that has none."""
    return cohort.table["label"].map(pd.Series(task.labels_from(cohort.task), dtype="Int64")).astype("Int64")


def _begin(cohort: Cohort, folder: str | Path, layout: str, places: list[Path]) -> Path:
    """Mark a new or empty folder as this cohort's; one that bears the same mark is gone on with."""
    root = home_filled_in(folder)
    rows = cohort.table.to_dict("records")
    content = [[*map(str, (r["name"], r["label"], r["split"])), cohort.identify_row(r)] for r in rows]
    made = {
        "layout": layout,
        "cohort": hashlib.sha256(json.dumps(content).encode()).hexdigest(),
        "names": {place.as_posix(): row["name"] for place, row in zip(places, rows, strict=True)},
    }
    mark, text = root / _MARK, json.dumps(made)
    if os.path.exists(root) and not all(is_unfinished(path) for path in root.iterdir()):
        if not mark.is_file() or mark.read_text(encoding="utf-8") != text:
            raise CohortError(f"{root}: holds something else already; give a new folder, or delete this one.", root)
    else:
        write_text_whole(mark, text)
    sweep_unfinished(root, older_than_s=0)  # of a call that was killed: one call at a time writes here
    return root


def _write_each(
    write: Callable[..., None],
    cohort: Cohort,
    root: Path,
    places: list[tuple[Path, ...]],
    jobs: int | None,
    progress: bool,
) -> None:
    """Write the scans that are not there yet; what is there is whole, for each is renamed when it is finished."""
    rows = cohort.table.to_dict("records")
    absent = [i for i, (place, *_) in enumerate(places) if not (root / place).exists()]
    tasks = [(write, cohort.open_row, rows[i], [root / place for place in places[i]]) for i in absent]
    for _ in for_each(_open_and_write, tasks, "scans", jobs, progress):
        pass


def _open_and_write(write: Callable[..., None], open_row: Callable[[dict], Scan], row: dict, paths: list[Path]) -> None:
    write(open_row(row), *paths)


def _write_slices(scan: Scan, folder: Path) -> None:
    def fill(temporary: Path) -> None:
        for number, hu in enumerate(scan.hu[::-1]):
            picture = Image.fromarray(window(hu, *WINDOWS["paper"]))
            picture.save(temporary / f"{number}.jpg", quality=_JPG_QUALITY)

    write_folder_whole(folder, fill)


def _write_study(scan: Scan, study: Path, mask: Path) -> None:
    # The study comes last: where it is, its mask is too.
    if scan.truth is not None and scan.truth.lesions.any():
        write_nifti(scan.truth.lesions, mask, spacing=scan.spacing)
    write_nifti(scan, study)


def _write_excel(table: pd.DataFrame, path: Path) -> None:
    content = io.BytesIO()
    table.to_excel(content, index=False)
    write_whole(path, lambda file: file.write(content.getvalue()))
