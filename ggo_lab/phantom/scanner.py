"""The scanner: blur, noise, couch and padding."""

from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from ggo_lab.phantom.grid import AIR_HU, Grid
from ggo_lab.scan import PADDING_HU

_LOWEST_HU = -1024  # 12-bit scanners store no lower value inside the field of view


@dataclass(frozen=True)
class Scanner:
    """What the scanner's operator chose.

    Attributes:
        noise_hu: standard deviation of the noise in soft tissue, HU.
        blur_px: sd of the point spread in the slice, pixels.
        grain_px: correlation length of the noise in the slice, pixels (smooth kernels 0.8, sharp ones 0.4).
        padded: whether the corners outside the circular field of view hold padding.
        couch_gap_mm: distance from the back to the couch, mm.
    """

    noise_hu: float
    blur_px: float
    grain_px: float
    padded: bool
    couch_gap_mm: float


def sample_scanner(rng: np.random.Generator) -> Scanner:
    """Draw a scanner protocol; noise from model-based reconstruction to plain filtered back projection."""
    return Scanner(
        noise_hu=float(rng.uniform(10, 28)),
        blur_px=float(rng.uniform(0.4, 0.6)),
        grain_px=float(rng.uniform(0.45, 0.75)),
        padded=bool(rng.random() < 0.4),
        couch_gap_mm=float(rng.uniform(1, 6)),
    )


def draw_couch(hu: np.ndarray, grid: Grid, back_mm: float, scanner: Scanner) -> None:
    """Draw the couch's curved shell and foam into the air behind the patient, in place.

    Args:
        hu: float32 (Z, Y, X), HU.
        back_mm: y of the patient's back, mm.
    """
    y, x = grid.axis(1)[:, None], grid.axis(2)[None, :]
    depth = y - (back_mm + scanner.couch_gap_mm - (x / 240) ** 2 * 26)
    pixel = grid.spacing[1]
    shell = np.clip(1.6 / pixel - np.abs(depth - 3) / pixel + 0.5, 0, 1) + np.clip(
        1.4 / pixel - np.abs(depth - 26) / pixel + 0.5, 0, 1
    )
    couch = np.where((depth > 3) & (depth < 26), 50.0, 0.0) + np.clip(shell, 0, 1) * 760
    couch = np.where(np.abs(x) < 215, couch, 0).astype(np.float32)
    rows = slice(int(np.argmax(couch.any(axis=1))), None)
    region = hu[:, rows]
    np.copyto(region, AIR_HU + couch[rows], where=region < AIR_HU + couch[rows])


def expose(hu: np.ndarray, grid: Grid, scanner: Scanner, rng: np.random.Generator) -> np.ndarray:
    """Turn the ideal patient into what the scanner stores: blur, correlated noise, clipping, padding, int16.

    Args:
        hu: float32 (Z, Y, X), HU; used as scratch memory.
    Returns: int16 (Z, Y, X), HU.
    """
    sigma = (0, scanner.blur_px, scanner.blur_px)
    ndimage.gaussian_filter(hu, sigma, output=hu, truncate=3)
    noise = rng.standard_normal(hu.shape, np.float32)
    grain = (0, scanner.grain_px, scanner.grain_px)
    ndimage.gaussian_filter(noise, grain, output=noise, truncate=3)
    noise *= np.float32(scanner.noise_hu / noise[0].std())
    hu += noise
    np.clip(np.rint(hu, out=hu), _LOWEST_HU, 3071, out=hu)
    stored = hu.astype(np.int16)
    if scanner.padded:
        _, y, x = grid.mesh()
        half = grid.spacing[1] * min(grid.shape[1:]) / 2
        middle = (
            grid.origin[1] + grid.spacing[1] * (grid.shape[1] - 1) / 2,
            grid.origin[2] + grid.spacing[2] * (grid.shape[2] - 1) / 2,
        )
        outside = (y[0] - middle[0]) ** 2 + (x[0] - middle[1]) ** 2 > half**2
        stored[:, outside] = PADDING_HU
    return stored
