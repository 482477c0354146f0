"""Mistakes in the pixels: a label painted into the image, and HU scaled by the wrong slope."""

from dataclasses import replace

import numpy as np
from skimage.filters import threshold_otsu
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import recall_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from ggo_lab.errors import ChoiceError, CohortError
from ggo_lab.images import ImageSet
from ggo_lab.pitfalls.finding import Finding
from ggo_lab.scan import Scan

_SHUFFLES = 999
_ALARM = 0.01  # of clean images, the share in which the probe may cry wolf
# Room for fat (-100) or contrast beside muscle (40), and for scans that show more lung (-850) than air (-1000), HU.
_TISSUE_HU, _AIR_TO_TISSUE_HU = (-130.0, 130.0), (700.0, 1180.0)
_SPIKE = 0.02  # share of the voxels that hold one and the same lowest value: padding, or a clip


def plant_label_pixel(images: ImageSet, step: int = 60) -> ImageSet:
    """Write each scan's grade into the last pixel of its image, as arrays of the paper's public code held it.

    Args:
        step: grey values between one grade and the next, 1 to 63.
    """
    if not 1 <= step <= 63:
        raise ChoiceError(f"step={step}: four grades must fit into 255 grey values; give 1 to 63.", step)
    pixels = np.array(images.pixels)
    pixels[:, :, -1, -1] = (step * (images.indices + 1))[:, None]  # 0 where the grade is unknown
    return replace(images, pixels=pixels)


def find_label_leak(train: ImageSet, judged: ImageSet, corner: int = 4, seed: int = 0) -> Finding:
    """Train a linear classifier on the corners alone, where there is no patient; whatever it can grade by is a leak.

    It learns on `train` and is judged on `judged`, against what it reaches when the grades of `judged` are shuffled.

    Args:
        train, judged: images of different patients, grades known.
        corner: rows and columns of each of the four corners of every channel.
        seed: of the shuffling.
    Raises:
        CohortError: fewer than two grades in one of them.
    """
    for images in (train, judged):
        if len(set(images.indices)) < 2 or (images.indices < 0).any():
            raise CohortError("The probe needs scans of known grade, of two grades or more, on both sides.")
    probe = make_pipeline(StandardScaler(), LogisticRegression(class_weight="balanced", max_iter=2000))
    probe.fit(_corners(train, corner), train.indices)
    said, true = probe.predict(_corners(judged, corner)), judged.indices
    found = recall_score(true, said, labels=np.unique(true), average="macro")
    rng = np.random.default_rng(seed)
    right = np.array([said == index for index in range(4)])[true]  # right[i, j]: said j would suit the grade of i
    weight = (1 / np.bincount(true, minlength=4).clip(1))[true] / len(set(true))
    shuffled = [weight @ right[np.arange(len(true)), rng.permutation(len(true))] for _ in range(_SHUFFLES)]
    p = (1 + np.sum(np.array(shuffled) >= found - 1e-9)) / (1 + _SHUFFLES)
    return Finding(
        bool(p < _ALARM),
        f"from {corner} x {corner} pixels in each corner a linear classifier reaches a mean recall of "
        f"{found:.2f}, with shuffled grades {np.mean(shuffled):.2f} (p = {p:.3f}); where there is no patient there "
        "should be no grade.",
    )


def _corners(images: ImageSet, corner: int) -> np.ndarray:
    ends = np.r_[0:corner, -corner:0]
    return np.asarray(images.pixels)[:, :, ends][:, :, :, ends].reshape(len(images), -1).astype(float)


def plant_wrong_slope(scan: Scan, slope: float = 0.5, intercept: float = 0.0) -> Scan:
    """Scale a scan's values as a reader does that takes the wrong slope and intercept from a header."""
    hu = np.clip(np.round(scan.hu * slope + intercept), -32768, 32767).astype(np.int16)
    return replace(scan, hu=hu)


def find_wrong_slope(scan: Scan) -> Finding:
    """See whether soft tissue and air lie where Hounsfield's scale puts them: muscle near 40, air at -1000.

    Coarser mistakes (masks, 8-bit pictures) are for check_hu; this one also finds those that still look like CT.
    """
    lowest = scan.hu == scan.hu.min()
    # Padding, once it is scaled wrongly, is no longer known by its value; but no air is the same in so many voxels.
    values = scan.hu[~lowest] if lowest.mean() > _SPIKE else scan.hu.ravel()
    edge = threshold_otsu(values)
    air, tissue = _commonest(values[values <= edge]), _commonest(values[values > edge])
    fits = _TISSUE_HU[0] <= tissue <= _TISSUE_HU[1] and _AIR_TO_TISSUE_HU[0] <= tissue - air <= _AIR_TO_TISSUE_HU[1]
    return Finding(
        not fits,
        f"the commonest value is {air:.0f} among dark voxels and {tissue:.0f} among bright ones; in HU air or lung "
        "lies at -1000 to -800 and soft tissue at -100 to 60.",
    )


def _commonest(values: np.ndarray, width: int = 20) -> float:
    """The middle of the fullest bin of `width` HU."""
    low = int(values.min())
    counts = np.bincount((values.astype(int) - low) // width)
    return low + (int(counts.argmax()) + 0.5) * width
