"""From a scan to the one small image a 2-D network sees, and from a cohort to an ImageSet, cached on disk."""

import dataclasses
import hashlib
import json
import math
import tempfile
import warnings
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from io import RawIOBase
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
from PIL import Image

from ggo_lab.cohort import SPLITS, Cohort
from ggo_lab.cohort.parallel import for_each
from ggo_lab.errors import ChoiceError, CohortError, GgoLabError, check_choice
from ggo_lab.lungs import segment_lungs
from ggo_lab.scan import Scan, window
from ggo_lab.storage import cache_folder, code_fingerprint, sweep_unfinished, write_whole, writing_to

# When one of these rooms changes, images in the cache are made anew.
_CODE_BEHIND_IMAGES = ("scan", "readers", "lungs", "images")


@dataclass(frozen=True)
class Recipe:
    """How a scan becomes an image of shape (slices, size, size).

    The paper (arXiv:2303.16904) is Recipe(where="middle").
    """

    slices: int = 3  # channels of the image; networks pretrained on colour photographs want 3
    where: str = (
        "spread"  # "middle": neighbours at the scan's middle; "spread": even over the scan; "lungs": over the lungs
    )
    clip_hu: tuple[float, float] = (-1000.0, 400.0)  # black and white, HU; the paper's choice
    size: int = 224  # rows and columns of the image; what most ImageNet networks were trained at
    crop: str = "none"  # "none": the whole slice; "lungs": the square around the lungs

    def __post_init__(self):
        check_choice("where", self.where, ("middle", "spread", "lungs"))
        check_choice("crop", self.crop, ("none", "lungs"))
        object.__setattr__(self, "clip_hu", tuple(float(edge) for edge in self.clip_hu))
        if len(self.clip_hu) != 2 or not self.clip_hu[0] < self.clip_hu[1]:
            raise ChoiceError(
                f"clip_hu={self.clip_hu} is not (black, white) in HU, such as (-1000, 400).", self.clip_hu
            )
        if self.slices < 1 or self.size < 8:
            raise ChoiceError(f"slices={self.slices}, size={self.size}: at least 1 slice and 8 pixels are needed.")

    @property
    def needs_lungs(self) -> bool:
        """Whether the lungs must be found first, which costs more than all the rest."""
        return self.where == "lungs" or self.crop == "lungs"

    def to_dict(self) -> dict:
        """Plain values, for JSON."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, values: dict) -> "Recipe":
        """The inverse of to_dict."""
        return cls(**values)


def choose_slices(scan: Scan, recipe: Recipe, lungs: np.ndarray | None = None) -> tuple[int, ...]:
    """Choose the slices of the image, before anything is resampled.

    Args:
        lungs: bool (Z, Y, X), found here if the recipe needs them and they are not given.
    Returns: `recipe.slices` indices into axis 0, from feet to head; in a very short scan a slice may repeat.
    """
    first, end = 0, scan.shape[0]
    if recipe.where == "lungs":
        lungs = segment_lungs(scan) if lungs is None else lungs
        with_lung = np.flatnonzero(lungs.any(axis=(1, 2)))
        first, end = with_lung[0], with_lung[-1] + 1
    if recipe.where == "middle":
        chosen = (end - recipe.slices) // 2 + np.arange(recipe.slices)
    else:
        # The centres of equal parts: 3 slices stand at 1/6, 3/6 and 5/6 of the way up.
        chosen = np.floor(first + (end - first) * (np.arange(recipe.slices) + 0.5) / recipe.slices)
    return tuple(int(z) for z in np.clip(chosen, 0, scan.shape[0] - 1))


def scan_to_image(
    scan: Scan, recipe: Recipe, lungs: np.ndarray | None = None, slices: tuple[int, ...] | None = None
) -> np.ndarray:
    """Make the image of a scan.

    Args:
        lungs: bool (Z, Y, X), found here if the recipe needs them and they are not given.
        slices: indices to use instead of those that choose_slices gives.
    Returns: uint8 (C, H, W), C = recipe.slices, H = W = recipe.size; 0 = clip_hu[0] and below, 255 = clip_hu[1] and
        above. A slice that is not square is laid on a black square, so that anatomy is not stretched.
    """
    if recipe.needs_lungs and lungs is None:
        lungs = segment_lungs(scan)
    chosen = choose_slices(scan, recipe, lungs) if slices is None else slices
    black, white = recipe.clip_hu
    frame = _frame(scan, recipe, lungs)
    image = np.empty((len(chosen), recipe.size, recipe.size), np.uint8)
    for channel, z in enumerate(chosen):
        grey = window(_cut(scan.hu[z], frame, fill=scan.hu.min()), (black + white) / 2, white - black)
        image[channel] = _resize(grey, recipe.size)
    return image


def image_to_scan_grid(heat: np.ndarray, scan: Scan, recipe: Recipe, lungs: np.ndarray | None = None) -> np.ndarray:
    """Lay a map that was computed on the image back onto the scan's slices.

    Args:
        heat: float (H, W) on the image of this scan and recipe.
    Returns: float32 (Y, X); 0 where the image did not look.
    """
    if recipe.crop == "lungs" and lungs is None:
        lungs = segment_lungs(scan)
    top, left, side = _frame(scan, recipe, lungs)
    laid = np.zeros(scan.shape[1:], np.float32)
    square = np.asarray(Image.fromarray(np.asarray(heat, np.float32)).resize((side, side), Image.Resampling.BILINEAR))
    (rows, from_rows), (columns, from_columns) = _overlap(top, side, laid.shape[0]), _overlap(left, side, laid.shape[1])
    laid[rows, columns] = square[from_rows, from_columns]
    return laid


def _frame(scan: Scan, recipe: Recipe, lungs: np.ndarray | None) -> tuple[int, int, int]:
    """Top, left and side, in pixels, of the square of a slice that the image shows; it may reach over the edges."""
    if recipe.crop == "lungs":
        rows, columns = (np.flatnonzero(lungs.any(axis=axes)) for axes in ((0, 2), (0, 1)))
        margin = 5.0 / scan.spacing[2]  # 5 mm of chest wall around the lungs, so that the pleura stays visible
        top, bottom = rows[0] - margin, rows[-1] + 1 + margin
        left, right = columns[0] - margin, columns[-1] + 1 + margin
    else:
        top, left, (bottom, right) = 0.0, 0.0, scan.shape[1:]
    side = int(np.ceil(max(bottom - top, right - left)))
    return round((top + bottom - side) / 2), round((left + right - side) / 2), side


def _overlap(start: int, side: int, length: int) -> tuple[slice, slice]:
    """Where [start, start + side) meets [0, length): as a slice of the latter and of the former."""
    low, high = max(start, 0), min(start + side, length)
    return slice(low, high), slice(low - start, high - start)


def _cut(picture: np.ndarray, frame: tuple[int, int, int], fill: float) -> np.ndarray:
    """Cut the frame's square out of a (Y, X) picture, filling what lies outside it."""
    top, left, side = frame
    square = np.full((side, side), fill, picture.dtype)
    (rows, to_rows), (columns, to_columns) = (
        _overlap(top, side, picture.shape[0]),
        _overlap(left, side, picture.shape[1]),
    )
    square[to_rows, to_columns] = picture[rows, columns]
    return square


def _resize(grey: np.ndarray, size: int) -> np.ndarray:
    """Resize uint8 (H, W) to (size, size); Pillow's bilinear filter averages over the area when it shrinks."""
    return np.asarray(Image.fromarray(grey).resize((size, size), Image.Resampling.BILINEAR))


@dataclass(frozen=True, eq=False)
class ImageSet:
    """The images of a cohort.

    Attributes:
        pixels: uint8 (N, C, H, W).
        table: N rows: name, patient, grade (1..4, missing where unknown), split, slices (the chosen indices).
        recipe: how they were made.
        left_out: name and reason of each scan of the cohort that could not be used.
    """

    pixels: np.ndarray
    table: pd.DataFrame
    recipe: Recipe
    left_out: pd.DataFrame = dataclasses.field(default_factory=lambda: pd.DataFrame(columns=["name", "reason"]))

    def __post_init__(self):
        if self.pixels.ndim != 4 or self.pixels.dtype != np.uint8 or len(self.pixels) != len(self.table):
            raise CohortError(
                f"An ImageSet needs uint8 pixels (N, C, H, W) and N rows; found {self.pixels.dtype} "
                f"{self.pixels.shape} and {len(self.table)} rows."
            )

    def __len__(self) -> int:
        return len(self.table)

    @property
    def names(self) -> list[str]:
        """The scans' names."""
        return self.table["name"].tolist()

    @property
    def patients(self) -> list[str]:
        """The patient of each scan."""
        return self.table["patient"].tolist()

    @property
    def indices(self) -> np.ndarray:
        """int64 (N,): grade - 1, as networks count; -1 where the grade is unknown."""
        return self.table["grade"].fillna(0).to_numpy(np.int64) - 1

    def subset(self, rows: np.ndarray) -> "ImageSet":
        """The images of the given rows: a boolean mask or positions."""
        positions = np.arange(len(self))[rows]
        contiguous = len(positions) > 0 and np.array_equal(positions, np.arange(positions[0], positions[-1] + 1))
        # A run of rows stays a view of the file on disk; anything else is copied into memory.
        pixels = self.pixels[positions[0] : positions[-1] + 1] if contiguous else self.pixels[positions]
        return ImageSet(pixels, self.table.iloc[positions].reset_index(drop=True), self.recipe, self.left_out)

    def _of_split(self, split: str) -> "ImageSet":
        return self.subset((self.table["split"] == split).to_numpy(bool, na_value=False))

    @property
    def train(self) -> "ImageSet":
        """The images that networks learn from."""
        return self._of_split("train")

    @property
    def validation(self) -> "ImageSet":
        """The images that choose when to stop and which state to keep."""
        return self._of_split("validation")

    @property
    def test(self) -> "ImageSet":
        """The images that are looked at once, at the end."""
        return self._of_split("test")

    def __repr__(self) -> str:
        splits = ", ".join(f"{n} {split}" for split in SPLITS if (n := int((self.table["split"] == split).sum())))
        out = f"; {len(self.left_out)} scans left out, see .left_out" if len(self.left_out) else ""
        shape = " x ".join(str(n) for n in self.pixels.shape[1:])
        return f"ImageSet of {len(self)} images of {shape} ({splits or 'no splits'}){out}"


def image_set_of(scan: Scan, recipe: Recipe) -> ImageSet:
    """Make an ImageSet of one scan, to predict on it; its grade is that of its truth, or unknown."""
    lungs = segment_lungs(scan) if recipe.needs_lungs else None
    slices = choose_slices(scan, recipe, lungs)
    grade = None if scan.truth is None else scan.truth.grade
    table = pd.DataFrame(
        {"name": [scan.name], "patient": [scan.name], "grade": [grade], "split": [None], "slices": [slices]}
    )
    table["grade"] = table["grade"].astype("Int64")
    return ImageSet(scan_to_image(scan, recipe, lungs, slices)[None], table, recipe)


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
        pixels = np.memmap(file, np.uint8, "c", shape=(len(slices), *_shape(recipe)))
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
