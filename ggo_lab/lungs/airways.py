"""The trachea and the main bronchi, followed downwards, slice by slice."""

import numpy as np
from scipy import ndimage

# Cross-section of the trachea and of the main bronchi, cm2, with room for phantoms and for children.
_LEAST_CM2, _MOST_CM2 = 0.4, 8.0
_GROWTH = 2.5  # a cross-section that grows more than this from one slice to the next has opened into a lung
# The highest slice's candidates lie near the middle of the body, as shares of its depth and width.
_OFF_MIDDLE = (0.30, 0.12)


def find_airways(air: np.ndarray, body: np.ndarray, spacing: tuple[float, float, float]) -> np.ndarray:
    """Follow the trachea down from its highest slice to where the bronchi open into the lungs.

    Args:
        air: bool (z, y, x), on a coarse lattice.
        body: bool (z, y, x), the patient, air within included.
        spacing: (z, y, x), mm.
    Returns: bool (z, y, x).
    """
    airways = np.zeros_like(air)
    cm2 = spacing[1] * spacing[2] / 100.0
    above = None
    for z in range(len(air) - 1, -1, -1):
        labels, count = ndimage.label(air[z])
        areas = cm2 * np.bincount(labels.ravel(), minlength=count + 1)
        fits = (areas >= _LEAST_CM2) & (areas <= _MOST_CM2)
        fits[0] = False
        if above is None:
            fits &= _central(labels, count, body[z])
        else:
            fits &= np.bincount(labels[above], minlength=count + 1) > 0
            fits &= areas <= max(_LEAST_CM2, _GROWTH * cm2 * above.sum())
        found = fits[labels]
        airways[z] = found
        above = found if found.any() else None
    return airways


def _central(labels: np.ndarray, count: int, body: np.ndarray) -> np.ndarray:
    """Tell for each region of a slice whether its centre lies near the middle of the body."""
    central = np.zeros(count + 1, bool)
    if count == 0 or not body.any():
        return central
    rows, columns = (np.flatnonzero(body.any(axis=axis)) for axis in (1, 0))
    centres = np.array(ndimage.center_of_mass(labels > 0, labels, np.arange(1, count + 1)))
    off = [
        np.abs(centres[:, axis] - (edge[0] + edge[-1]) / 2) / (edge[-1] - edge[0] + 1)
        for axis, edge in enumerate((rows, columns))
    ]
    central[1:] = (off[0] < _OFF_MIDDLE[0]) & (off[1] < _OFF_MIDDLE[1])
    return central
