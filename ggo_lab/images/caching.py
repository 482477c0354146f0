"""prepare: from a cohort to an ImageSet, each image made once and kept on disk."""

import errno
import hashlib
import json
import math
import mmap
import tempfile
import warnings
from collections.abc import Callable
from io import RawIOBase
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from ggo_lab.cohort import SPLITS, Cohort
from ggo_lab.cohort.parallel import for_each
from ggo_lab.errors import CohortError, GgoLabError, ScanError
from ggo_lab.images.image_set import ImageSet
from ggo_lab.images.recipe import Recipe
from ggo_lab.readers import OpenedScan
from ggo_lab.scan import Scan
from ggo_lab.storage import cache_folder, code_fingerprint, sweep_unfinished, write_whole, writing_to

# When one of these rooms changes, images in the cache are made anew.
_CODE_BEHIND_IMAGES = ("scan", "readers", "lungs", "images")


def prepare(cohort: Cohort, recipe: Recipe = Recipe(), jobs: int | None = None, progress: bool = True) -> ImageSet:
    """Make the images of a whole cohort, or take them from the cache.

    Each scan's image is stored as soon as it is made, so an interrupted run goes on where it stopped. An entry is
    found by the recipe, by the identity of the scan's file (path, size, time of change) and by the package's own
    code; one that is damaged is made again.

    Args:
        cohort: of scans that can be opened.
        recipe: how each becomes an image.
        jobs: processes (default: one per core). Runs through joblib: `joblib.parallel_config("dask")` moves it to a
            cluster.
        progress: show a bar while images are being made.

    Returns:
        An ImageSet ordered train, validation, test, then without split. A scan that cannot be used is left out,
        with a warning; `left_out` tells why.

    Raises:
        CohortError: an empty cohort, or one from which no scan could be used.
        GgoLabError: the cache cannot be written. What was made before is kept.
    """
    if len(cohort) == 0:
        raise CohortError("The cohort is empty: there is nothing to prepare.")
    place = {split: i for i, split in enumerate(SPLITS)}
    order = np.argsort(cohort.table["split"].map(place).fillna(len(SPLITS)), kind="stable")
    cohort = cohort.subset(order)
    rows = cohort.table.to_dict("records")
    folder = cache_folder() / "images"
    parts = [folder / f"{_key(recipe, cohort.identify_row(row))}.npz" for row in rows]
    with _open_shelf(folder) as file:
        slices, notes, reasons = _collect(cohort, rows, recipe, parts, file, jobs, progress)
        if not slices:
            raise CohortError(f"None of the {len(rows)} scans could be used; the first says: {reasons[0]}")
        # Copy-on-write: nobody can alter the file. Being temporary, it vanishes with the last array that uses it.
        # No np.memmap: joblib would tell its other processes to open the file by its name, and it has none.
        pages = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY))
        pixels = np.frombuffer(pages, np.uint8).reshape(-1, *_shape(recipe))
    left_out = pd.DataFrame([(rows[i]["name"], why) for i, why in reasons.items()], columns=["name", "reason"])
    if reasons:
        warnings.warn(f"{len(reasons)} of {len(rows)} scans were left out:\n{left_out.to_string()}", stacklevel=2)
    table = cohort.table.iloc[list(slices)][["name", "patient", "label", "split"]].reset_index(drop=True)
    table = table.assign(slices=list(slices.values()), notes=[notes[i] for i in slices])
    if doubtful := int((table["notes"] != "").sum()):
        warnings.warn(
            f"The lungs of {doubtful} of {len(table)} scans are doubtful: see `notes` in the table, and look at them.",
            stacklevel=2,
        )
    return ImageSet(pixels, table, recipe, left_out, cohort.task)


class _Part(NamedTuple):
    """One scan's image, uint8 (C, H, W), the slices it shows, and what is doubtful about its lungs."""

    pixels: np.ndarray
    slices: tuple[int, ...]
    notes: str


def _collect(
    cohort: Cohort,
    rows: list[dict],
    recipe: Recipe,
    parts: list[Path],
    file: RawIOBase,
    jobs: int | None,
    progress: bool,
) -> tuple[dict[int, tuple[int, ...]], dict[int, str], dict[int, str]]:
    """Lay the images side by side in one file, taken from the cache or made, each read or written once.

    Returns:
        The slices of each row whose image is in the file, in the rows' order; what is doubtful about it; and why
        others are not there.
    """
    size, slices, notes, reasons = math.prod(_shape(recipe)), {}, {}, {}

    def put(i: int, made: _Part) -> None:
        slices[i], notes[i] = made.slices, made.notes
        _write_at(file, i * size, made.pixels.tobytes(), parts[i].parent)

    for i, part in enumerate(parts):
        if (stored := _read_part(part, recipe)) is not None:
            put(i, stored)
    absent = [i for i in range(len(rows)) if i not in slices]
    tasks = [(cohort.open_row, cohort.peek_row, rows[i], recipe, parts[i]) for i in absent]
    for i, made in zip(absent, for_each(_make_part, tasks, "images", jobs, progress), strict=True):
        if isinstance(made, _Part):
            put(i, made)
        else:
            reasons[i] = made
    kept = sorted(slices)
    for place, i in enumerate(kept):
        if place != i:  # close the gaps that scans left out have made
            file.seek(i * size)
            _write_at(file, place * size, file.read(size), parts[i].parent)
    file.truncate(len(kept) * size)
    return {i: slices[i] for i in kept}, notes, reasons


def _open_shelf(folder: Path) -> RawIOBase:
    """Open a file without a name in the cache, which vanishes even if the process is killed.

    Unbuffered, so that a full disk shows where something is written, and not once more when the file is closed.
    """
    with writing_to(folder):
        try:
            folder.mkdir(parents=True, exist_ok=True)
            sweep_unfinished(folder)
            return tempfile.TemporaryFile(dir=folder, buffering=0)
        except OSError as error:
            if error.errno not in (errno.EROFS, errno.EACCES, errno.EPERM) or not folder.is_dir():
                raise
            return tempfile.TemporaryFile(buffering=0)  # what a cache holds that may only be read is good all the same


def _write_at(file: RawIOBase, offset: int, content: bytes, folder: Path) -> None:
    with writing_to(folder):
        file.seek(offset)
        while content:  # an unbuffered file may take a part of it only
            content = content[file.write(content) :]


def _make_part(
    open_row: Callable[[dict], Scan],
    peek_row: Callable[[dict], OpenedScan] | None,
    row: dict,
    recipe: Recipe,
    path: Path,
) -> _Part | str:
    """Make and store one scan's image; give the reason where the scan cannot be used."""
    try:
        if peek_row is None or recipe.needs_lungs:
            part = _part_of(open_row(row), recipe)
        else:
            opened = peek_row(row)
            try:
                part = _part_of(opened, recipe)
            except ScanError:  # a slice that is damaged, or shows no lung: the whole scan may be sound
                part = _part_of(opened.whole(), recipe)
    except GgoLabError as error:
        return str(error)
    write_whole(path, lambda file: np.savez(file, pixels=part.pixels, slices=np.array(part.slices), notes=part.notes))
    return part


def _part_of(scan: Scan | OpenedScan, recipe: Recipe) -> _Part:
    cut = recipe.cut(scan)
    return _Part(cut.image(), cut.slices, " ".join(cut.notes))


def _read_part(path: Path, recipe: Recipe) -> _Part | None:
    """Read one scan's image; None where there is none or it is damaged (the zip's checksums tell)."""
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as stored:
            part = _Part(stored["pixels"], tuple(int(z) for z in stored["slices"]), str(stored["notes"]))
    except Exception:  # numpy and zipfile raise errors of many kinds on damaged files
        return None
    return part if part.pixels.dtype == np.uint8 and part.pixels.shape == _shape(recipe) else None


def _shape(recipe: Recipe) -> tuple[int, int, int]:
    return recipe.slices, recipe.size, recipe.size


def _key(recipe: Recipe, identity: str) -> str:
    return hashlib.sha256(
        json.dumps([recipe.to_dict(), identity, code_fingerprint(*_CODE_BEHIND_IMAGES)]).encode()
    ).hexdigest()[:32]
