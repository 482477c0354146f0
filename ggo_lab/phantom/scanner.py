"""The scanner: protocol, couch, blur, noise, motion, padding, and the 8-bit grey that some collections keep."""

from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from ggo_lab.phantom.grid import AIR_HU, Grid
from ggo_lab.phantom.steady import exp, sin
from ggo_lab.scan import PADDING_HU, WINDOWS, window

_LOWEST_HU = -1024  # 12-bit scanners store no lower value inside the field of view


@dataclass(frozen=True)
class Kernel:
    """How a reconstruction kernel renders edges and noise.

    Attributes:
        blur_mm: sd of the point spread in the slice, mm.
        grain_mm: sd of the smoothing that gives the noise its grain, mm.
        edge: how much of what the blur takes away is added back; above 0, edges overshoot.
    """

    blur_mm: float
    grain_mm: float
    edge: float


# Point spreads of about 0.3 to 0.9 mm: body kernels resolve 6 to 8 line pairs per cm, lung kernels 10 and more.
KERNELS = {
    "smooth": Kernel(blur_mm=0.85, grain_mm=0.85, edge=0.0),
    "standard": Kernel(blur_mm=0.6, grain_mm=0.6, edge=0.0),
    "sharp": Kernel(blur_mm=0.4, grain_mm=0.3, edge=0.6),
}
_KERNEL_SHARES = {"smooth": 0.25, "standard": 0.45, "sharp": 0.30}
_OVERSHOOT_MM = 1.0  # width of the rim that a sharp kernel draws along edges
# Sd in the aorta: 11.4 HU from model-based reconstruction, 18.4 hybrid, 37.5 HU from filtered back projection at
# routine dose; at a quarter of it 16.4, 32.6 and 80: the power of the dose by which each grows.
_NOISE_HU = (11.0, 40.0)
_NOISE_POWER = ((11.4, 18.4, 37.5), (0.262, 0.413, 0.547))
_LOW_DOSE, _LOW_DOSES = 0.15, (0.25, 0.6)  # share of the scans made at low dose, and how low
_SLICE_MM = (1.0, 8.0)
_THIN_SLICES = 0.35  # share of the scans whose slices are thinner than the distance between them


@dataclass(frozen=True)
class Scanner:
    """What the scanner's operator chose.

    Attributes:
        slice_mm: thickness of a slice, mm; None: as the distance between slices.
        kernel: name in KERNELS.
        dose: relative to a routine scan.
        noise_hu: standard deviation of the noise in the middle of the chest, HU.
        padded: whether the corners outside the circular field of view hold padding.
        couch_gap_mm: distance from the back to the couch, mm.
        motion_mm: how far the heart's beat shifts the lung beside it during a slice, mm; 0: not seen.
    """

    slice_mm: float | None
    kernel: str
    dose: float
    noise_hu: float
    padded: bool
    couch_gap_mm: float
    motion_mm: float


def sample_scanner(
    rng: np.random.Generator,
    slice_mm: float | None = None,
    kernel: str | None = None,
    dose: float | None = None,
    noise_hu: float | None = None,
    padded: bool | None = None,
    motion: bool = False,
) -> Scanner:
    """Draw a scanner protocol; what is given is kept, and changes nothing else that is drawn."""
    thin, thin_mm = rng.random() < _THIN_SLICES, float(rng.uniform(_SLICE_MM[0], 2.5))
    drawn_kernel = str(rng.choice(list(_KERNEL_SHARES), p=list(_KERNEL_SHARES.values())))
    drawn_noise = float(rng.uniform(*_NOISE_HU))
    later = rng.spawn(1)[0]  # what was added last, drawn apart from what others rest on
    low, low_dose = later.random() < _LOW_DOSE, float(later.uniform(*_LOW_DOSES))
    dose = (low_dose if low else 1.0) if dose is None else float(dose)
    drawn_noise *= dose ** -np.interp(drawn_noise, *_NOISE_POWER)
    drawn_padded, gap, shift = bool(rng.random() < 0.4), float(rng.uniform(1, 6)), float(rng.uniform(3, 6))
    return Scanner(
        slice_mm=slice_mm if slice_mm is not None else (thin_mm if thin else None),
        kernel=kernel or drawn_kernel,
        dose=dose,
        noise_hu=float(drawn_noise if noise_hu is None else noise_hu),
        padded=drawn_padded if padded is None else bool(padded),
        couch_gap_mm=gap,
        motion_mm=shift if motion else 0.0,
    )


def draw_couch(hu: np.ndarray, grid: Grid, back_mm: float, scanner: Scanner) -> None:
    """Draw the couch's curved shell and foam into the air behind the patient, in place.

    Args:
        hu: float32 (Z, Y, X), HU.
        grid: the voxels that are drawn.
        back_mm: y of the patient's back, mm.
        scanner: its settings.
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


def blur_by_motion(hu: np.ndarray, grid: Grid, centre_mm: tuple, reach_mm: float, shift_mm: float) -> None:
    """Double the outlines around the beating heart, in place: each slice shows two positions at once.

    Args:
        hu: float32 (Z, Y, X), HU.
        grid: the voxels that are drawn.
        centre_mm: (x, y, z) of the heart's left border, mm.
        reach_mm: distance over which the motion fades, mm.
        shift_mm: distance between the two positions, mm.
    """
    x0, y0, z0 = centre_mm
    box = grid.box((z0 - 60, y0 - 90, x0 - 80), (z0 + 60, y0 + 90, x0 + 80))
    z, y, x = (grid.axis(a)[box[a]] for a in range(3))
    part = hu[box]
    pixels = shift_mm / 2 / grid.spacing[1]
    for plane, height in zip(part, z, strict=True):
        # Slices are taken at different phases of the heartbeat: some freeze it, others catch it moving.
        phase = np.abs(sin(height / 7.0)) * exp(-(((height - z0) / reach_mm) ** 2))
        weight = exp(-(((x[None] - x0) / reach_mm) ** 2) - ((y[:, None] - y0) / (1.5 * reach_mm)) ** 2)
        weight = np.minimum(1.3 * phase * weight, 1).astype(np.float32)
        double = 0.5 * (_shifted(plane, pixels) + _shifted(plane, -pixels))
        plane += weight * (double - plane)


def _shifted(plane: np.ndarray, pixels: float) -> np.ndarray:
    """A plane moved sideways and, half as far, backwards, by a fraction of a pixel."""
    return ndimage.shift(plane, (pixels / 2, pixels), order=1, mode="nearest")


def expose(hu: np.ndarray, grid: Grid, scanner: Scanner, rng: np.random.Generator) -> np.ndarray:
    """Turn the ideal patient into what the scanner stores: blur, correlated noise, clipping, padding, int16.

    Args:
        hu: float32 (Z, Y, X), HU; used as scratch memory.
        grid: the voxels that are drawn.
        scanner: its settings.
        rng: the source of chance.

    Returns:
        int16 (Z, Y, X), HU.
    """
    kernel, pixel = KERNELS[scanner.kernel], grid.spacing[1]
    _smooth_slices(hu, kernel.blur_mm / pixel)
    if kernel.edge:
        _sharpen(hu, kernel.edge, pixel)
    noise = rng.standard_normal(hu.shape, np.float32)
    _smooth_slices(noise, kernel.grain_mm / pixel)
    strength = np.float32(scanner.noise_hu / noise[0].std(dtype=np.float64))
    uneven = _noise_map(grid)
    stored = np.empty(hu.shape, np.int16)
    for plane, grain, out in zip(hu, noise, stored, strict=True):  # plane by plane stays in the processor's cache
        grain *= strength
        grain *= uneven
        plane += grain
        np.clip(np.rint(plane, out=plane), _LOWEST_HU, 3071, out=plane)
        out[:] = plane
    if scanner.padded:
        stored[:, _outside_circle(grid)] = PADDING_HU
    return stored


def _smooth_slices(volume: np.ndarray, sigma_px: float) -> None:
    """Smooth every slice with a Gaussian, in place; the edge goes on beyond the border."""
    reach = max(1, int(np.ceil(2.5 * sigma_px)))
    weights = exp(-0.5 * (np.arange(reach + 1) / sigma_px) ** 2)
    weights = (weights / (2 * weights.sum() - weights[0])).astype(np.float32)
    rows, columns = volume.shape[1:]
    tall = np.empty((rows + 2 * reach, columns), np.float32)
    wide = np.empty((rows, columns + 2 * reach), np.float32)
    total, pair = np.empty((2, rows, columns), np.float32)

    for plane in volume:  # plane by plane stays in the processor's cache
        tall[reach:-reach], tall[:reach], tall[-reach:] = plane, plane[0], plane[-1]
        np.multiply(plane, weights[0], out=total)
        for away in range(1, reach + 1):
            np.add(tall[reach - away :][:rows], tall[reach + away :][:rows], out=pair)
            total += np.multiply(pair, weights[away], out=pair)
        wide[:, reach:-reach], wide[:, :reach], wide[:, -reach:] = total, total[:, :1], total[:, -1:]
        np.multiply(total, weights[0], out=plane)
        for away in range(1, reach + 1):
            np.add(wide[:, reach - away :][:, :columns], wide[:, reach + away :][:, :columns], out=pair)
            plane += np.multiply(pair, weights[away], out=pair)


def _sharpen(hu: np.ndarray, edge: float, pixel: float) -> None:
    """Add back part of what a wider blur takes away, so that edges overshoot, in place."""
    for plane in hu:
        wide = plane.copy()
        _smooth_slices(wide[None], _OVERSHOOT_MM / pixel)
        plane += np.float32(edge) * (plane - wide)


def _noise_map(grid: Grid) -> np.ndarray:
    """Noise relative to the middle of the chest, float32 (Y, X): rays through the middle cross more tissue."""
    _, y, x = grid.mesh()
    return (0.82 + 0.18 * exp(-((x / 130) ** 2) - ((y - 10) / 100) ** 2))[0].astype(np.float32)


def _outside_circle(grid: Grid) -> np.ndarray:
    """Bool (Y, X): pixels outside the largest circle that fits into the picture."""
    _, y, x = grid.mesh()
    half = grid.spacing[1] * min(grid.shape[1:]) / 2
    middle = [grid.origin[a] + grid.spacing[a] * (grid.shape[a] - 1) / 2 for a in (1, 2)]
    return ((y - middle[0]) ** 2 + (x - middle[1]) ** 2 > half**2)[0]


def as_grey(hu: np.ndarray) -> np.ndarray:
    """Pass HU through 8-bit grey and back, as a folder of JPG slices keeps them; padding becomes air.

    Returns:
        int16, hu's shape: at most 256 values between -1000 and 400 HU, an estimate of the HU.
    """
    level, width = WINDOWS["paper"]
    table = np.rint(level - width / 2 + np.arange(256) * (width / 255)).astype(np.int16)
    return table[window(hu, level, width)]
