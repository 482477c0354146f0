"""Score a model on phantoms that no cohort contains, and that nothing has learnt from."""

import dataclasses
import io
from functools import cache
from pathlib import Path

import numpy as np
from PIL import Image

from ggo_lab.backbones import Backbone
from ggo_lab.cohort import Cohort, phantom_cohort
from ggo_lab.errors import ChoiceError, check_whole
from ggo_lab.evaluation import Report, evaluate, predict
from ggo_lab.images import ImageSet, Recipe, prepare

# A phantom's seed is 100,000 times its cohort's and more, so a cohort of another seed shares no patient with these.
CURTAIN_SEED = 20_230_316
PHANTOMS, SHAPE = 2000, (32, 128, 128)  # voxels (Z, Y, X) as in the course's cohort
SHIPPED_RECIPE = Recipe(size=SHAPE[1])  # of the slices that are shipped, whole; images of any size are made of them
SHIPPED = Path(__file__).parent / "phantoms.npz"  # by benchmarks/curtain.py


def behind_the_curtain(model: Backbone, n: int = 200) -> Report:
    """Judge a fitted model on phantoms that no cohort of another seed contains.

    A test split of two dozen scans guesses how good a network is, and its interval says how well it can guess. Of
    phantoms there are as many as one likes, so what the network is worth on them can be looked up.

    Args:
        model: fitted on phantoms; its recipe says which image of a scan it sees.
        n: phantoms, up to 2,000; see curtain_images.

    Returns:
        The report on them, with its intervals.
    """
    return evaluate(predict(model, curtain_images(model.fitted_recipe, n)))


def curtain_images(recipe: Recipe, n: int = 200) -> ImageSet:
    """Return images of phantoms that no cohort of another seed contains.

    Three slices of each of these phantoms come with the package, slightly compressed (made.json says how much):
    images of any size are made of them at once. For other recipes scans are made when they are first asked for, a third
    of a second each on a free core; their images stay in the cache.

    Args:
        recipe: how a scan becomes an image.
        n: phantoms, up to 2,000.

    Returns:
        All of them in the test split.

    Raises:
        ChoiceError: none, or more than there are.
    """
    n = check_whole("n", n, 1)
    if n > PHANTOMS:
        raise ChoiceError(f"n={n} phantoms cannot be had behind the curtain; there are {PHANTOMS}.", n)
    if dataclasses.replace(recipe, size=SHIPPED_RECIPE.size) == SHIPPED_RECIPE and n <= len(_shipped()[0]):
        return _of_shipped(recipe, n)
    return prepare(every_phantom().subset(np.arange(n)), recipe)


def _of_shipped(recipe: Recipe, n: int) -> ImageSet:
    """Make images of the slices that come with the package, in the same way as Cut.image does of a scan."""
    ends, pictures, slices = _shipped()
    pixels = np.empty((n, recipe.slices, recipe.size, recipe.size), np.uint8)
    for image, start, end in zip(pixels, [0, *ends], ends[:n], strict=False):
        packed = io.BytesIO(pictures[start:end].tobytes())
        stacked = np.asarray(Image.open(packed, formats=("WEBP",)).convert("L"))
        for channel, grey in zip(image, stacked.reshape(recipe.slices, -1, stacked.shape[1]), strict=True):
            channel[:] = Image.fromarray(grey).resize((recipe.size, recipe.size), Image.Resampling.BILINEAR)
    cohort = every_phantom()
    table = cohort.table.iloc[:n][["name", "patient", "label", "split"]].reset_index(drop=True)
    table = table.assign(slices=[tuple(slices.tolist())] * n, notes="")
    return ImageSet(pixels, table, recipe, task=cohort.task)


@cache
def _shipped() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Read what comes with the package: where each WebP picture ends, all of them, and which slices they show."""
    with np.load(SHIPPED) as stored:
        return stored["ends"], stored["webp"], stored["slices"]


@cache
def every_phantom() -> Cohort:
    """Return the cohort behind the curtain: no patient twice, all in the test split, each made when it is opened."""
    cohort = phantom_cohort(PHANTOMS, seed=CURTAIN_SEED, shape=SHAPE, second_scans=0)
    return Cohort(cohort.table.assign(split="test"), cohort.open_row, cohort.identify_row, task=cohort.task)
