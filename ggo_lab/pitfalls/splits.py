"""Mistakes between the splits: a patient on both sides, and the same scan twice."""

from dataclasses import replace

import numpy as np
import pandas as pd

from ggo_lab.cohort import SPLITS
from ggo_lab.errors import ChoiceError, check_whole
from ggo_lab.images import ImageSet
from ggo_lab.pitfalls.verdict import Verdict

_BLOCKS = 16  # rows and columns of the thumbnail by which images are compared
_ALIKE = 1.5  # mean grey values by which thumbnails of one scan may differ once it is stored again as JPG


def plant_slice_split(
    images: ImageSet, fractions: tuple[float, float, float] = (0.6, 0.2, 0.2), seed: int = 0
) -> ImageSet:
    """Make every slice an image of its own and deal slices, not patients, to the splits.

    Returns:
        C times as many images; each shows one slice in all its channels.
    """
    n, channels = images.pixels.shape[:2]
    pixels = np.repeat(np.asarray(images.pixels).reshape(n * channels, 1, *images.pixels.shape[2:]), channels, axis=1)
    table = images.table.loc[np.repeat(np.arange(n), channels)].reset_index(drop=True)
    table["name"] = [f"{name}-slice-{i % channels}" for i, name in enumerate(table["name"])]
    drawn = np.random.default_rng(check_whole("seed", seed)).permutation(n * channels) / (n * channels)
    table["split"] = np.array(SPLITS)[np.searchsorted(np.cumsum(fractions)[:2], drawn, side="right")]
    return replace(images, pixels=pixels, table=table)


def find_shared_patients(images: ImageSet) -> Verdict:
    """Look for patients that are in more than one split."""
    splits = images.table.dropna(subset="split").groupby("patient")["split"].nunique()
    shared = splits.index[splits > 1].tolist()
    such = f", such as {shared[0]}" if shared else ""
    return Verdict(bool(shared), f"{len(shared)} of {len(splits)} patients are in more than one split{such}.")


def plant_duplicates(images: ImageSet, n: int = 5, seed: int = 0) -> ImageSet:
    """Copy scans of the train split into the test split under new names and patients, slightly noisy, as if new."""
    train = np.flatnonzero(images.table["split"] == "train")
    if not 1 <= n <= len(train):
        raise ChoiceError(
            f"n={n} scans cannot be copied from a train split of {len(train)}; give 1 to {len(train)}.", n
        )
    rng = np.random.default_rng(check_whole("seed", seed))
    rows = rng.choice(train, n, replace=False)
    noise = rng.integers(-2, 3, (n, *images.pixels.shape[1:]))
    copies = np.clip(images.pixels[rows].astype(int) + noise, 0, 255).astype(np.uint8)
    table = images.table.iloc[rows].assign(split="test")
    table["name"], table["patient"] = "again-" + table["name"], "again-" + table["patient"]
    both = pd.concat([images.table, table], ignore_index=True)
    return replace(images, pixels=np.concatenate([images.pixels, copies]), table=both)


def find_duplicates(images: ImageSet) -> Verdict:
    """Look for images of one split that are all but the same as one of another, mirrored or not.

    Names and patients are not looked at, and a hash of the bytes would miss a scan that was stored again: thumbnails
    are compared.
    """
    thumbnails = _thumbnails(np.asarray(images.pixels))
    mirrored = _thumbnails(np.asarray(images.pixels)[..., ::-1])
    split, names = images.table["split"].to_numpy(object), images.names
    pairs = []
    for i in range(len(images)):
        others = np.array([j for j in range(i) if split[j] != split[i]], int)
        gaps = [np.abs(kind[others] - thumbnails[i]).mean(axis=1) for kind in (thumbnails, mirrored)]
        pairs += [(names[j], names[i]) for j in others[np.minimum(*gaps) < _ALIKE]]
    such = f", such as {pairs[0][0]} and {pairs[0][1]}" if pairs else ""
    return Verdict(bool(pairs), f"{len(pairs)} pairs of images in different splits are all but the same{such}.")


def _thumbnails(pixels: np.ndarray) -> np.ndarray:
    """Mean grey values of blocks, float64 (N, C * 16 * 16)."""
    edges = [np.linspace(0, side, min(side, _BLOCKS) + 1).astype(int)[:-1] for side in pixels.shape[2:]]
    sums = np.add.reduceat(np.add.reduceat(pixels.astype(np.float64), edges[0], axis=2), edges[1], axis=3)
    sizes = [np.diff([*edge, side]) for edge, side in zip(edges, pixels.shape[2:], strict=True)]
    return (sums / np.outer(*sizes)).reshape(len(pixels), -1)
