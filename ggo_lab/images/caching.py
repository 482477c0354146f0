"""prepare: from a cohort to an ImageSet, each image made once and kept on disk."""

import hashlib
import json
import math
import mmap
import tempfile
import warnings
import zipfile
import zlib
from collections.abc import Callable
from io import RawIOBase
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from ggo_lab.cohort import SPLITS, Cohort
from ggo_lab.cohort.parallel import for_each
from ggo_lab.errors import CohortError, GgoLabError
from ggo_lab.images.image_set import ImageSet
from ggo_lab.images.recipe import Recipe, choose_slices, scan_to_image
from ggo_lab.lungs import segment_lungs
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
        jobs: processes (default: one per core). Runs through joblib: `joblib.parallel_config("dask")` moves it to a
            cluster.
        progress: show a bar while images are being made.
    Returns: an ImageSet ordered train, validation, test, then without split. A scan that cannot be used is left out,
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
        slices, reasons = _collect(cohort, rows, recipe, parts, file, jobs, progress)
        if not slices:
            raise CohortError(f"None of the {len(rows)} scans could be used; the first says: {reasons[0]}")
        # Copy-on-write: nobody can alter the file. Being temporary, it vanishes with the last array that uses it.
        # No np.memmap: joblib would tell its other processes to open the file by its name, and it has none.
        pages = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY))
        pixels = np.frombuffer(pages, np.uint8).reshape(-1, *_shape(recipe))
    left_out = pd.DataFrame([(rows[i]["name"], why) for i, why in reasons.items()], columns=["name", "reason"])
    if reasons:
        warnings.warn(f"{len(reasons)} of {len(rows)} scans were left out:\n{left_out.to_string()}", stacklevel=2)
    table = cohort.table.iloc[list(slices)][["name", "patient", "grade", "split"]].reset_index(drop=True)
    return ImageSet(pixels, table.assign(slices=list(slices.values())), recipe, left_out)


class _Part(NamedTuple):
    """One scan's image, uint8 (C, H, W), and the slices it shows."""

    pixels: np.ndarray
    slices: tuple[int, ...]


def _collect(
    cohort: Cohort,
    rows: list[dict],
    recipe: Recipe,
    parts: list[Path],
    file: RawIOBase,
    jobs: int | None,
    progress: bool,
) -> tuple[dict[int, tuple[int, ...]], dict[int, str]]:
    """Lay the images side by side in one file, taken from the cache or made, each read or written once.

    Returns: the slices of each row whose image is in the file, in the rows' order, and why others are not.
    """
    size, slices, reasons = math.prod(_shape(recipe)), {}, {}

    def put(i: int, made: _Part) -> None:
        slices[i] = made.slices
        _write_at(file, i * size, made.pixels.tobytes(), parts[i].parent)

    for i, part in enumerate(parts):
        if (stored := _read_part(part, recipe)) is not None:
            put(i, stored)
    absent = [i for i in range(len(rows)) if i not in slices]
    tasks = [(cohort.open_row, rows[i], recipe, parts[i]) for i in absent]
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
    return {i: slices[i] for i in kept}, reasons


def _open_shelf(folder: Path) -> RawIOBase:
    """Open a file without a name in the cache, which vanishes even if the process is killed.

    Unbuffered, so that a full disk shows where something is written, and not once more when the file is closed.
    """
    with writing_to(folder):
        folder.mkdir(parents=True, exist_ok=True)
        sweep_unfinished(folder)
        return tempfile.TemporaryFile(dir=folder, buffering=0)


def _write_at(file: RawIOBase, offset: int, content: bytes, folder: Path) -> None:
    with writing_to(folder):
        file.seek(offset)
        while content:  # an unbuffered file may take a part of it only
            content = content[file.write(content) :]


def _make_part(open_row: Callable[[dict], Scan], row: dict, recipe: Recipe, path: Path) -> _Part | str:
    """Make and store one scan's image; give the reason where the scan cannot be used."""
    try:
        scan = open_row(row)
        lungs = segment_lungs(scan) if recipe.needs_lungs else None
    except GgoLabError as error:
        return str(error)
    slices = choose_slices(scan, recipe, lungs)
    part = _Part(scan_to_image(scan, recipe, lungs, slices), slices)
    write_whole(path, lambda file: np.savez(file, pixels=part.pixels, slices=np.array(slices)))
    return part


def _read_part(path: Path, recipe: Recipe) -> _Part | None:
    """Read one scan's image; None where there is none or it is damaged (the zip's checksums tell)."""
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as stored:
            part = _Part(stored["pixels"], tuple(int(z) for z in stored["slices"]))
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error):
        return None
    return part if part.pixels.dtype == np.uint8 and part.pixels.shape == _shape(recipe) else None


def _shape(recipe: Recipe) -> tuple[int, int, int]:
    return recipe.slices, recipe.size, recipe.size


def _key(recipe: Recipe, identity: str) -> str:
    return hashlib.sha256(
        json.dumps([recipe.to_dict(), identity, code_fingerprint(*_CODE_BEHIND_IMAGES)]).encode()
    ).hexdigest()[:32]
