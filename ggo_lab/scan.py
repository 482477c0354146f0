"""One CT scan in memory: HU on canonical axes, its spacing, what is known of its truth; windows; the HU guard."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ggo_lab.errors import ChoiceError, ScanError, check_choice, plain, shown

# Scanners fill the corners outside their circular field of view with values no tissue can have (-2000, -2048,
# -3024 are seen). Readers write all of them as PADDING_HU, so that they are never taken for air (-1000).
PADDING_HU = -2048
PADDING_BELOW_HU = -1500  # between the lowest noisy air seen in real scans (-1255) and the highest padding (-2000)


class Window(NamedTuple):
    """A grey-scale window: HU below level - width/2 are black, above level + width/2 white."""

    level: float
    width: float

    @property
    def black(self) -> float:
        """The HU at and below which everything is black."""
        return self.level - self.width / 2

    @property
    def white(self) -> float:
        """The HU at and above which everything is white."""
        return self.level + self.width / 2


# Level and width in HU. The first three are the radiological conventions; "paper" is the clip to [-1000, 400] of
# arXiv:2303.16904, written as a window.
WINDOWS: dict[str, Window] = {
    "lung": Window(-600, 1500),
    "mediastinum": Window(50, 350),
    "bone": Window(400, 1800),
    "paper": Window(-300, 1400),
}


def as_window(choice: "str | Window | tuple[float, float]") -> Window:
    """Turn a window's name or a (level, width) pair in HU into a Window."""
    if isinstance(plain(choice), str):
        return WINDOWS[check_choice("window", choice, WINDOWS)]
    try:
        level, width = (float(value) for value in choice)
    except (TypeError, ValueError, OverflowError):
        raise ChoiceError(
            f"window {shown(choice)} is neither a name ({', '.join(WINDOWS)}) nor (level, width) in HU.", choice
        ) from None
    if not np.isfinite([level, width]).all():
        raise ChoiceError(f"window {choice!r} holds what is no number; the lung window is (-600, 1500).", choice)
    if not width > 0:
        raise ChoiceError(
            f"window width {width!r} is not above 0 HU; the lung window is level -600, width 1500.", width
        )
    return Window(level, width)


def window(hu: np.ndarray, level: float, width: float) -> np.ndarray:
    """Map HU to display grey in [0, 255].

    Args:
        hu: any shape, HU.
        level: centre of the window, HU.
        width: full width of the window, HU.

    Returns:
        Uint8, same shape.

    >>> window(np.array([-2000, -1350, -600, 150, 900]), -600, 1500)
    array([  0,   0, 128, 255, 255], dtype=uint8)
    """
    grey = (np.asarray(hu, np.float32) - (level - width / 2)) * np.float32(255.0 / width)
    np.clip(grey, 0, 255, out=grey)
    grey += 0.5
    return grey.astype(np.uint8)


@dataclass(frozen=True, eq=False)
class Truth:
    """What is known exactly about a phantom, or marked by an expert on a real scan.

    Attributes:
        lungs, lesions: bool (Z, Y, X) on the scan's grid. Lesions lie inside the lungs.
        involvement: lesion volume / lung volume, 0..1.
        masks: further bool masks by name (phantoms: "airways", "vessels", "left_lung", "right_lung", ...).
        drawn: what the phantom's maker chose, in plain values with units in the keys.
    """

    lungs: np.ndarray
    lesions: np.ndarray
    involvement: float
    masks: dict[str, np.ndarray] = field(default_factory=dict)
    drawn: dict[str, object] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class Scan:
    """One chest CT.

    Attributes:
        hu: int16 (Z, Y, X). Axis 0 runs from feet to head, rows from front to back, columns from the patient's
            right to left, so that hu[z] plots upright in radiological view. Padding is PADDING_HU.
        spacing: distance between voxel centres (z, y, x), mm.
        name: shown in tables, titles and pages.
        is_hu: False when the file held 8-bit grey: hu is then an estimate from an assumed window.
        truth: known for phantoms and for scans with expert masks, else None.
        notes: what the reader assumed, chose or repaired, one sentence each.
        source: where it was read from.
    """

    hu: np.ndarray
    spacing: tuple[float, float, float]
    name: str = "scan"
    is_hu: bool = True
    truth: Truth | None = None
    notes: tuple[str, ...] = ()
    source: Path | None = None

    def __post_init__(self) -> None:
        if self.hu.ndim != 3 or self.hu.dtype != np.int16 or 0 in self.hu.shape:
            raise ScanError(
                f"{self.name}: a scan needs int16 HU of shape (Z, Y, X), found {self.hu.dtype} {self.hu.shape}; "
                "use read_scan for files, or convert the array first.",
                self.source,
            )
        if len(self.spacing) != 3 or not all(np.isfinite(step) and step > 0 for step in self.spacing):
            raise ScanError(
                f"{self.name}: spacing {self.spacing} is not three distances (z, y, x) in mm above 0.", self.spacing
            )

    @property
    def shape(self) -> tuple[int, int, int]:
        """Number of voxels (Z, Y, X)."""
        return self.hu.shape

    @property
    def padding(self) -> np.ndarray:
        """Bool (Z, Y, X): voxels outside the scanner's field of view, which hold no measurement."""
        return self.hu < PADDING_BELOW_HU

    @property
    def voxel_ml(self) -> float:
        """Volume of one voxel, millilitres."""
        return float(np.prod(self.spacing)) / 1000.0

    def read(self, slices: Sequence[int]) -> np.ndarray:
        """Return axial slices, int16 HU (n, Y, X); a scan that is read from its file as needed has the same method."""
        return self.hu[list(slices)]

    def grey(self, slices: Sequence[int], shown: Window) -> list[np.ndarray]:
        """Return axial slices through a window, uint8 (Y, X) each."""
        return [window(self.hu[z], *shown) for z in slices]

    def whole(self) -> "Scan":
        """Return the scan itself, all of which is here; see `read`."""
        return self

    def renamed(self, name: str) -> "Scan":
        """The same scan under another name."""
        return replace(self, name=name)

    def __repr__(self) -> str:
        size = " x ".join(str(n) for n in self.shape)
        step = " x ".join(f"{s:g}" for s in self.spacing)
        disease = "" if self.truth is None else f", {self.truth.involvement:.0%} of the lungs involved"
        return f"Scan({self.name!r}, {size} voxels of {step} mm (z, y, x){disease}{'' if self.is_hu else ', NOT HU'})"


# Limits of the guard, as shares of the measured voxels. Set on real scans, whole and cropped: the lung-only parts of
# a chest CT hold vessels above -300 HU, and every slice of it lung or air below; bone above 700 HU stays below 2%.
_DARK_HU, _DENSE_HU = -300, 700
_LEAST_SHARE = 0.001
_MOST_DENSE = 0.10


def check_hu(hu: np.ndarray, name: str | Path) -> None:
    """Raise ScanError, naming the likely cause, where values cannot be the HU of a chest CT.

    Whole and partial chests pass, with or without contrast, noise, padding or a clip such as [-1000, 400]. The limits
    only ask for what every part of a chest with some lung in it has: voxels as dark as lung or air, voxels as bright
    as vessels, and little that is as dense as cortical bone.

    Args:
        hu: int (Z, Y, X). Padding, any value below -1500, is left out of the judgement.
        name: what the message calls the scan, such as its path; becomes the error's `subject`.

    >>> check_hu(np.full((2, 8, 8), 7, np.int16), "blank")
    Traceback (most recent call last):
    ggo_lab.errors.ScanError: blank: every voxel is 7, so there is nothing to see; export the scan again.
    """
    # A quarter of a million voxels give each share to within 0.06 percentage points (one standard error of 10%), and
    # small ones far closer. An odd step does not fall into step with the columns, whose number is even.
    sample = hu.reshape(-1)[:: max(1, hu.size // 250_000) | 1]
    if sample.min() == sample.max() and hu.min() == hu.max():
        raise ScanError(f"{name}: every voxel is {hu.min()}, so there is nothing to see; export the scan again.", name)
    values = sample[sample >= PADDING_BELOW_HU]
    if values.size == 0:
        values = hu[hu >= PADDING_BELOW_HU]
    if cause := _why_not_hu(values, sample.size):
        raise ScanError(f"{name}: {cause}", name)


def _why_not_hu(values: np.ndarray, sampled: int) -> str | None:
    """The likely reason why values (1-D, without padding, out of `sampled` voxels) are not HU, and what to do."""
    if values.size == 0:
        return (
            f"every voxel is padding (below {PADDING_BELOW_HU} HU), so there is nothing to see; export the scan again."
        )
    low, middle, high = (float(v) for v in np.percentile(values, (0.5, 50, 99.5)))
    found = f"values run from {values.min()} to {values.max()} (99% from {low:.0f} to {high:.0f})"
    not_known = "The file does not say how its values become HU, and a guess could be wrong"
    dark, dense = np.mean(values < _DARK_HU), np.mean(values > _DENSE_HU)
    bright = np.mean(values > _DARK_HU)
    tissue = np.mean(values > -200)
    padded = 1 - values.size / sampled

    if values.min() >= 0 and np.unique(values).size <= 64 and values.max() <= 1000:
        return (
            f"{found}, with few different ones: a mask or label map, or values scaled to 0..1, not HU. Open a mask "
            "with read_labels; give the scan in HU."
        )
    if high - low < 50:
        return (
            f"{found}: too narrow for CT, as if normalised for a network. Give the scan in HU, where air is -1000 and "
            "water 0."
        )
    if values.min() >= -1 and values.max() <= 255:
        return (
            f"{found}: 8-bit grey, not HU (a window was applied, and what it cut off is lost). Give the scan in HU, or "
            "its slices as a folder of PNG files, which read_scan marks as an estimate."
        )
    if dense > _MOST_DENSE or (dark < _LEAST_SHARE and low > -100 and high > 400):
        return (
            f"{found}: about 1000 too high for HU, as if the intercept of -1024 were missing (12-bit data, 0 to 4095), "
            f"or upside down. {not_known}. Export the scan again with its intercept, or subtract 1024 if you are sure."
        )
    if middle < -960 and tissue < 0.02 and padded > 0.05:
        return (
            f"{found}, and {padded:.0%} lie below -1500: about 1000 too low for HU, as if the intercept of -1024 were "
            f"subtracted twice. {not_known}. Export the scan again, or add 1024 if you are sure."
        )
    if dark < _LEAST_SHARE:
        return (
            f"{found}: nothing is as dark as lung or air (below {_DARK_HU} HU). This is no chest CT, or a narrow "
            "window cut its values. Give the scan in HU, where air is -1000 and water 0."
        )
    if bright < _LEAST_SHARE:
        return (
            f"{found}: nothing is as bright as a vessel or soft tissue (above {_DARK_HU} HU). Give a scan with a "
            "patient in it, in HU, where air is -1000 and water 0."
        )
    return None
