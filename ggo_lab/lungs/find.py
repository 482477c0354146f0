"""Find the lungs: by the network or by rule, with what is implausible about them."""

import warnings
from dataclasses import dataclass

import numpy as np

from ggo_lab.errors import ScanError, check_choice
from ggo_lab.lungs.doubts import doubts_about
from ggo_lab.lungs.segment import lungs_by_rule
from ggo_lab.lungs.sides import split_lungs
from ggo_lab.scan import Scan

LUNG_METHODS = ("both", "network", "rule")
# A square centimetre. Only the tip of a lung is narrower in a slice, and no scan holds nothing but that.
_LEAST_AREA_MM2 = 100.0


class LungsWarning(UserWarning):
    """Lungs were found about which something is implausible."""


@dataclass(frozen=True, eq=False)
class Lungs:
    """The lungs of a scan.

    Attributes:
        right: bool (Z, Y, X), the patient's right lung, its lesions and vessels included.
        left: bool (Z, Y, X), the left one.
        litres: volume of both.
        notes: what is implausible about them, one sentence each; empty for a usual chest.
    """

    right: np.ndarray
    left: np.ndarray
    litres: float
    notes: tuple[str, ...]

    @property
    def mask(self) -> np.ndarray:
        """Bool (Z, Y, X): both lungs."""
        return self.right | self.left


def find_lungs(scan: Scan, method: str = "both") -> Lungs:
    """Find both lungs, lesions and vessels included, trachea and main bronchi excluded, and say what is doubtful.

    Args:
        scan: a chest CT, in HU.
        method: "both": the rule draws the outline, and the network decides what is surely lung and what surely none;
            "rule", thresholds and shapes (notebook 03), which fails in disease, thin walls and gas; or "network", a
            small U-Net trained on phantoms alone, which holds there and draws the coarser outline.

    Returns:
        Lungs, with `notes`.

    Raises:
        ScanError: nothing looks like a lung.
    """
    check_choice("method", method, LUNG_METHODS)
    notes: tuple[str, ...] = ()
    if method == "rule":
        right, left = split_lungs(scan, lungs_by_rule(scan))
    else:
        from ggo_lab.lungs.network import lung_share, lungs_by_network  # it needs torch, which takes seconds to import

        ruled = None
        if method == "both":
            try:
                ruled = lungs_by_rule(scan, lung_share(scan))
            except ScanError:
                notes = ("Only the network found lungs; the rule did not.",)
        right, left, differ = lungs_by_network(scan, ruled=ruled)
        notes += differ
    widest = np.count_nonzero(right | left, axis=(1, 2)).max() * scan.spacing[1] * scan.spacing[2]
    if widest < _LEAST_AREA_MM2:
        raise ScanError(
            f"{scan.name}: no lung was found. Look at it with SliceViewer: is it a chest CT, and are its values HU?",
            scan.source,
        )
    litres = float(np.count_nonzero(right) + np.count_nonzero(left)) * scan.voxel_ml / 1000
    return Lungs(right, left, litres, (*doubts_about(scan, right, left), *notes))


def segment_lungs(scan: Scan, method: str = "both") -> np.ndarray:
    """Find both lungs as one mask; warn of what is implausible about them.

    Args:
        scan: a chest CT, in HU.
        method: "both", "network" or "rule", see find_lungs.

    Returns:
        bool (Z, Y, X).

    Raises:
        ScanError: nothing looks like a lung.
    """
    lungs = find_lungs(scan, method)
    if lungs.notes:
        warnings.warn(f"{scan.name}: {' '.join(lungs.notes)}", LungsWarning, stacklevel=2)
    return lungs.mask
