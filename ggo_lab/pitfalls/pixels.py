"""Mistakes in the pixels: a label painted into the image, and HU scaled by the wrong slope."""

from dataclasses import replace

import numpy as np
from skimage.filters import threshold_otsu
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from ggo_lab.errors import ChoiceError, CohortError
from ggo_lab.images import ImageSet
from ggo_lab.pitfalls.verdict import ALARM, Verdict, beside_chance
from ggo_lab.scan import Scan

# Mean recall; on clean phantoms the best single pixel stays far below (see benchmarks/pitfalls.py).
_TELLING = 0.9
# Room for fat (-100) or contrast beside muscle (40), and for scans that show more lung (-850) than air (-1000), HU.
_TISSUE_HU, _AIR_TO_TISSUE_HU = (-130.0, 130.0), (700.0, 1180.0)
_SPIKE = 0.02  # share of the voxels that hold one and the same lowest value: padding, or a clip


def plant_label_pixel(images: ImageSet, step: int = 60) -> ImageSet:
    """Write each scan's label into the last pixel of its image, as arrays of the paper's public code held it.

    Args:
        images: whose copies are written into.
        step: grey values between one class and the next.
    """
    most = 255 // len(images.task)
    if not 1 <= step <= most:
        raise ChoiceError(
            f"step={step}: {len(images.task)} classes must fit into 255 grey values; give 1 to {most}.", step
        )
    pixels = np.array(images.pixels)
    pixels[:, :, -1, -1] = (step * (images.labels + 1))[:, None]  # 0 where the label is unknown
    return replace(images, pixels=pixels)


def find_label_leak(train: ImageSet, judged: ImageSet, corner: int = 4, seed: int = 0) -> Verdict:
    """Train a linear classifier on the corners alone, where there is no patient; whatever it can grade by is a leak.

    It learns on `train` and is judged on `judged`, against what it reaches when the labels of `judged` are shuffled.

    Args:
        train: images whose labels are known.
        judged: images of other patients, labels known.
        corner: rows and columns of each of the four corners of every channel.
        seed: of the shuffling.

    Raises:
        CohortError: fewer than two classes in one of them, or unknown ones.
        ChoiceError: corners that are empty or overlap.
    """
    _check_labels(train, judged)
    probe = make_pipeline(StandardScaler(), LogisticRegression(class_weight="balanced", max_iter=2000))
    probe.fit(_corners(train, corner), train.labels)
    chance = beside_chance(judged.labels, probe.predict(_corners(judged, corner)), seed)
    return Verdict(
        chance.p < ALARM,
        f"from {corner} x {corner} pixels in each corner a linear classifier reaches a mean recall of {chance}; where "
        "there is no patient there should be no label.",
    )


def find_telling_pixel(train: ImageSet, judged: ImageSet, seed: int = 0) -> Verdict:
    """Grade scans by one single pixel, the best of all; no pixel of a patient knows how ill both lungs are.

    Unlike find_label_leak it finds a leak anywhere in the image. Where a pixel lies plays no part: with the pixels of
    all images shuffled in one order, which destroys all anatomy, it finds the same.

    Args:
        train: chooses the pixel and the value it has for each class.
        judged: says how well that does.
        seed: of the shuffling of labels.

    Raises:
        CohortError: fewer than two classes in one of them, or unknown ones.
    """
    _check_labels(train, judged)
    train_pixels, judged_pixels = (np.asarray(images.pixels).reshape(len(images), -1) for images in (train, judged))
    grades = np.unique(train.labels)
    means = np.stack([train_pixels[train.labels == index].mean(axis=0) for index in grades])
    recall = np.zeros(train_pixels.shape[1])
    for index in grades:
        said = np.abs(train_pixels[train.labels == index, None] - means).argmin(axis=1)
        recall += (grades[said] == index).mean(axis=0) / len(grades)
    best = int(recall.argmax())
    said = grades[np.abs(judged_pixels[:, best, None] - means[:, best]).argmin(axis=1)]
    chance = beside_chance(judged.labels, said, seed)
    channel, row, column = np.unravel_index(best, train.pixels.shape[1:])
    return Verdict(
        chance.recall >= _TELLING and chance.p < ALARM,
        f"the pixel in row {row} and column {column} of channel {channel} alone grades with a mean recall of {chance}; "
        f"{_TELLING:.2f} and more is nothing that one pixel of a patient could know.",
    )


def _check_labels(*sets: ImageSet) -> None:
    for images in sets:
        if len(set(images.labels)) < 2 or (images.labels < 0).any():
            raise CohortError("The probe needs scans of known label, of two classes or more, on both sides.")


def corner_mask(side: tuple[int, int], corner: int) -> np.ndarray:
    """Mark the four corners of an image of (H, W) pixels, bool (H, W); refuse corners that are none."""
    if not 1 <= corner <= min(side) // 2:
        raise ChoiceError(
            f"corner={corner} pixels do not fit {side[0]} x {side[1]} pixels; give 1 to {min(side) // 2}.", corner
        )
    rows, columns = (np.minimum(np.arange(n), np.arange(n)[::-1]) < corner for n in side)
    return np.outer(rows, columns)


def _corners(images: ImageSet, corner: int) -> np.ndarray:
    return np.asarray(images.pixels)[:, :, corner_mask(images.pixels.shape[2:], corner)].reshape(len(images), -1) * 1.0


def plant_wrong_slope(scan: Scan, slope: float = 0.5, intercept: float = 0.0) -> Scan:
    """Scale a scan's values as a reader does that takes the wrong slope and intercept from a header."""
    hu = np.clip(np.round(scan.hu * slope + intercept), -32768, 32767).astype(np.int16)
    return replace(scan, hu=hu)


def find_wrong_slope(scan: Scan) -> Verdict:
    """See whether soft tissue and air lie where Hounsfield's scale puts them: muscle near 40, air at -1000.

    Coarser mistakes (masks, 8-bit pictures) are for check_hu; this one also finds those that still look like CT.
    """
    lowest = scan.hu == scan.hu.min()
    # Padding, once it is scaled wrongly, is no longer known by its value; but no air is the same in so many voxels.
    values = scan.hu[~lowest] if lowest.mean() > _SPIKE else scan.hu.ravel()
    edge = threshold_otsu(values)
    air, tissue = _commonest(values[values <= edge]), _commonest(values[values > edge])
    fits = _TISSUE_HU[0] <= tissue <= _TISSUE_HU[1] and _AIR_TO_TISSUE_HU[0] <= tissue - air <= _AIR_TO_TISSUE_HU[1]
    return Verdict(
        not fits,
        f"the commonest value is {air:.0f} among dark voxels and {tissue:.0f} among bright ones; in HU air or lung "
        "lies at -1000 to -800 and soft tissue at -100 to 60.",
    )


def _commonest(values: np.ndarray, width: int = 20) -> float:
    """The middle of the fullest bin of `width` HU."""
    low = int(values.min())
    counts = np.bincount((values.astype(int) - low) // width)
    return low + (int(counts.argmax()) + 0.5) * width
