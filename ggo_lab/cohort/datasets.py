"""Public sets of CT scans as they unpack: MosMedData, COVID-CT-MD and STOIC2021."""

import re
from collections import defaultdict
from pathlib import Path

import pandas as pd

from ggo_lab.cohort.columns import renamed
from ggo_lab.cohort.files import (
    bears_dicom_mark,
    cohort_of_files,
    existing_folder,
    files_in,
    no_other_errors,
    read_table,
    walk,
)
from ggo_lab.cohort.findings import Finding, about
from ggo_lab.cohort.table import Cohort
from ggo_lab.errors import CohortError, few
from ggo_lab.tasks import DIAGNOSIS, MOSMED, SEVERE_OUTCOME

# Studies of each category, CT-0 (no sign of disease) to CT-4 (Morozov et al. 2020, arXiv:2005.06465).
_MOSMED_STUDIES = (254, 684, 125, 45, 2)
_STUDY = re.compile(r"^(study_\d+)(_mask)?\.nii(\.gz)?$", re.IGNORECASE)
_CATEGORY = re.compile(r"^CT-([0-4])$", re.IGNORECASE)
# Patients of each diagnosis (Afshar et al. 2021, doi:10.1038/s41597-021-00900-3).
_COVID_CT_MD_PATIENTS = {"COVID-19": 169, "CAP": 60, "normal": 76}
# "COVID-19 Cases" in the archive, "COVID-19 subjects" in its description.
_DIAGNOSIS = re.compile(r"^(covid[-_ ]?19|cap|normal)([-_ ](cases|subjects|patients))?$", re.IGNORECASE)
_DIAGNOSES = {"covid": "COVID-19", "cap": "CAP", "normal": "normal"}  # by how the folder's name begins
_STOIC_PATIENTS = 2000  # in the public training set (stoic2021.grand-challenge.org)


@no_other_errors
def mosmed(folder: str | Path) -> Cohort:
    """Read MosMedData COVID19_1110: `studies/CT-k/study_NNNN.nii.gz`, `masks/`, `dataset_registry.xlsx`.

    Returns:
        A Cohort of the five classes of MOSMED without splits (call `split_by_patient`); `.graded_as(GGO_SEVERITY)`
        makes CT-1 to CT-4 mild to critical and leaves CT-0, without signs of disease, without a label. Column
        `category` holds "CT-0" to "CT-4", and `mask` the path of an expert's lesion mask (50 studies; read_labels opens
        it) or nothing. A study whose folder and registry disagree is left out.

    Raises:
        CohortError: no such folder, or no study in it.
    """
    root = existing_folder(folder)
    studies, masks, again = _mosmed_files(root)
    registered = _mosmed_registry(root)
    rows = []
    torn: list[str] = []
    unknown: list[str] = []
    for study, path in studies.items():
        places = [match.group(1) for part in path.parts if (match := _CATEGORY.match(part))]
        categories = {*places[-1:], *registered.get(study, "")}
        if len(categories) == 1:
            category = int(categories.pop())
            rows.append((study, category, f"CT-{category}", str(path), masks.get(study, pd.NA)))
        else:
            (torn if categories else unknown).append(study)
    if not rows:
        raise CohortError(
            f"{root}: none of its {len(studies)} studies has a category; keep the folders CT-0 to CT-4.", root
        )
    table = pd.DataFrame(rows, columns=["name", "label", "category", "path", "mask"])
    counts = tuple(int((table["category"] == f"CT-{k}").sum()) for k in range(5))
    findings = [
        _counted("studies", counts, _MOSMED_STUDIES, "CT-0/1/2/3/4"),
        Finding("fine", "found", f"{int(table['mask'].notna().sum())} masks of lesions, drawn by experts."),
        *about(torn, "wrong", "does not match", "Studies lie in another folder than the registry says: left out."),
        *about(unknown, "wrong", "left out", "Studies lie in no folder CT-0 to CT-4."),
        *about(again, "look", "left out", "Files repeat another one's name."),
        *about(sorted({*masks} - {*studies}), "look", "missing", "Masks belong to no study that is here."),
    ]
    if registered:
        absent, extra = sorted({*registered} - {*studies}), sorted({*studies} - {*registered})
        findings += about(absent, "wrong", "missing", "Registered studies have no file.")
        findings += about(extra, "look", "does not match", "Studies are not in the registry.")
    else:
        what = "No dataset_registry.xlsx: the folders CT-0 to CT-4 alone tell the categories."
        findings.append(Finding("look", "missing", what))
    what = "The set names no patients: each study counts as a patient of its own."
    return cohort_of_files(table, [*findings, Finding("look", "patients", what)], MOSMED)


@no_other_errors
def covid_ct_md(folder: str | Path) -> Cohort:
    """Read COVID-CT-MD: a folder of DICOM slices a patient, in a folder for each diagnosis.

    Returns:
        A Cohort of DIAGNOSIS without splits: the set tells diagnoses, not severity. Column `diagnosis` holds
        "COVID-19", "CAP" (community-acquired pneumonia) or "normal".

    Raises:
        CohortError: no such folder, or no patient in it.
    """
    root = existing_folder(folder)
    rows, empty, others = [], [], []
    for place in [folder for folder, _, _ in walk(root) if _DIAGNOSIS.match(folder.name)]:
        diagnosis = next(name for start, name in _DIAGNOSES.items() if place.name.lower().startswith(start))
        for patient in sorted(p for p in place.iterdir() if not p.name.startswith(".")):
            if not patient.is_dir():
                others.append(patient.relative_to(root))
            elif any(bears_dicom_mark(file) for file in files_in(patient)):
                rows.append((patient.name, diagnosis, str(patient)))
            else:
                empty.append(patient.relative_to(root))
    if not rows:
        raise CohortError(
            f"{root}: no patient's DICOM files in a folder such as 'COVID-19 Cases', 'Cap Cases' or 'Normal Cases'.",
            root,
        )
    table = pd.DataFrame(rows, columns=["name", "diagnosis", "path"])
    table["label"] = [DIAGNOSIS.label_of(diagnosis) for diagnosis in table["diagnosis"]]
    counts = tuple(int((table["diagnosis"] == name).sum()) for name in _COVID_CT_MD_PATIENTS)
    labels = [path.relative_to(root) for path in files_in(root) if path.suffix.lower() in (".npy", ".csv")]
    findings = [
        _counted("patients", counts, tuple(_COVID_CT_MD_PATIENTS.values()), "COVID-19/CAP/normal"),
        *about(empty, "wrong", "empty", "Patients' folders hold no DICOM file."),
        *about(others, "look", "left out", "Files are no patient's folder."),
        *about(labels, "fine", "left out", "Tables of slice and lobe labels are not read."),
        Finding("look", "labels", "The set tells a diagnosis, not severity."),
    ]
    return cohort_of_files(table, findings, DIAGNOSIS)


@no_other_errors
def stoic(folder: str | Path) -> Cohort:
    """Read STOIC2021's public training set: `data/mha/ID.mha` and `metadata/reference.csv`.

    Returns:
        A Cohort of SEVERE_OUTCOME without splits, one scan a patient. Columns `covid` and `severe` hold 0 or 1: a
        positive RT-PCR test, and intubation or death within a month, which is an outcome and no reading of the scan.

    Raises:
        CohortError: no such folder, no scan or no reference.csv in it.
    """
    root = existing_folder(folder)
    files = list(files_in(root))
    scans = {path.stem: path for path in files if path.suffix.lower() == ".mha"}
    reference = next((path for path in files if path.name == "reference.csv"), None)
    if not scans or reference is None:
        raise CohortError(
            f"{root}: {len(scans)} .mha files and {'no' if reference is None else 'a'} reference.csv; give the folder "
            "that holds both data/mha and metadata.",
            root,
        )
    outcomes, renames = renamed(
        read_table(reference), {"PatientID": ("patient", "id"), "probCOVID": (), "probSevere": ()}, reference
    )
    if not {"PatientID", "probCOVID", "probSevere"} <= set(outcomes.columns):
        raise CohortError(
            f"{reference}: needs the columns PatientID, probCOVID and probSevere; found {list(outcomes.columns)}.",
            reference,
        )
    outcomes["name"] = outcomes["PatientID"].astype("string")
    outcomes = outcomes.drop_duplicates("name").set_index("name")
    table = pd.DataFrame({"name": list(scans), "path": [str(path) for path in scans.values()]})
    for column, theirs in (("covid", "probCOVID"), ("severe", "probSevere")):
        table[column] = table["name"].map(_probability(outcomes[theirs])).round().astype("Int64")
    absent = [name for name in outcomes.index if name not in scans]
    unnamed = table.loc[~table["name"].isin(outcomes.index), "name"]
    odd = table.loc[((table["severe"] == 1) & (table["covid"] == 0)).fillna(False), "name"]
    findings = [
        _counted("scans", (len(scans),), (_STOIC_PATIENTS,), "all"),
        *renames,
        *about(absent, "wrong", "missing", "Patients of reference.csv have no .mha file."),
        *about(unnamed, "wrong", "does not match", "Scans are not in reference.csv: their outcome is unknown."),
        *about(odd, "look", "does not match", "Patients are severe, and their test for COVID-19 was negative."),
        Finding("look", "labels", "Severe means intubation or death within a month, an outcome and no reading."),
    ]
    return cohort_of_files(table.assign(label=table["severe"]), findings, SEVERE_OUTCOME)


def _probability(column: pd.Series) -> pd.Series:
    """The numbers from 0 to 1 of a column; others are missing."""
    numbers = pd.to_numeric(column, errors="coerce").astype(float)
    return numbers.where(numbers.between(0, 1))


def _mosmed_files(root: Path) -> tuple[dict[str, Path], dict[str, str], list[Path]]:
    """Studies and masks by the study's name, and the files that repeat another one's name."""
    found = defaultdict(list)
    for path in files_in(root):
        if match := _STUDY.match(path.name):
            found[match.group(1).lower(), bool(match.group(2))].append(path)
    studies = {study: paths[0] for (study, is_mask), paths in found.items() if not is_mask}
    masks = {study: str(paths[0]) for (study, is_mask), paths in found.items() if is_mask}
    if not studies:
        raise CohortError(f"{root}: no study_NNNN.nii.gz in it; give the folder that holds studies/ and masks/.", root)
    return studies, masks, [path.relative_to(root) for paths in found.values() for path in paths[1:]]


def _mosmed_registry(root: Path) -> dict[str, str]:
    """The category, "0" to "4", of each study in dataset_registry.xlsx, by the name of its file."""
    path = next((path for path in files_in(root) if path.name == "dataset_registry.xlsx"), None)
    if path is None:
        return {}
    table, _ = renamed(read_table(path), {"study_file": ("study", "file"), "category": ("class",)}, path)
    if not {"study_file", "category"} <= set(table.columns):
        raise CohortError(f"{path}: needs the columns study_file and category; found {few(table.columns)}.", path)
    registered = {}
    for file, category in zip(table["study_file"].astype(str), table["category"].astype(str), strict=True):
        study, graded = _STUDY.match(file.replace("\\", "/").rsplit("/", 1)[-1]), _CATEGORY.match(category.strip())
        if study and graded:
            registered[study.group(1).lower()] = graded.group(1)
    return registered


def _counted(what: str, counts: tuple[int, ...], published: tuple[int, ...], order: str) -> Finding:
    """Say how many there are, and whether as many were published."""
    ours, theirs = ("/".join(map(str, n)) for n in (counts, published))
    if counts == published:
        return Finding("fine", "found", f"{sum(counts)} {what} ({order}: {ours}), as published.")
    return Finding("look", "found", f"{sum(counts)} {what} ({order}: {ours}); published: {sum(published)} ({theirs}).")
