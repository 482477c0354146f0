"""The dependent layer: lung at the back that is dense because the patient lies on it, and not because it is ill."""

import numpy as np
from scipy import ndimage

# Dependent atelectasis lies along the pleura in a layer of millimetres up to 2 cm, in both lungs, most of it basal; it
# counts as no abnormality (Hatabu et al. 2020, Lancet Respiratory Medicine 8:726). The numbers were set on phantoms.
_LAYER_MM = 16.0
_BASAL_SHARE = 0.6  # of the lungs' height, from their lowest slice
_LEAST_EXCESS = 0.2  # in each lung so much more of the layer's outer half is hazy than of the lung behind the layer
_MOST_ELSEWHERE = 0.06  # share of all other lung that may be hazy: above that, nobody can tell the layer from disease


def without_dependent_layer(
    ill: np.ndarray, lungs: tuple[np.ndarray, ...], spacing: tuple[float, float, float]
) -> np.ndarray:
    """Leave out the haze of the dependent layer, where both lungs have one and are nearly clear elsewhere.

    The patient is taken to lie on the back.

    Args:
        ill: bool (z, y, x), what looks hazy.
        lungs: each lung that is there, bool (z, y, x).
        spacing: (z, y, x), mm.
    """
    both = np.logical_or.reduce(lungs)
    depth = ndimage.distance_transform_edt(both, spacing)
    heights, rows = (np.flatnonzero(both.any(axis=axes)) for axes in ((1, 2), (0, 2)))
    back = np.arange(both.shape[1])[:, None] >= (rows[0] + rows[-1]) / 2
    basal = np.arange(len(both))[:, None, None] <= heights[0] + _BASAL_SHARE * (heights[-1] - heights[0])
    layer = both & back & (depth <= _LAYER_MM)
    if _share(ill, both & ~layer) > _MOST_ELSEWHERE:
        return ill
    for lung in lungs:
        dependent = lung & back & basal
        outer, behind = (_share(ill, dependent & place) for place in (depth <= _LAYER_MM / 2, depth > _LAYER_MM))
        if outer - behind < _LEAST_EXCESS:
            return ill
    return ill & ~layer


def _share(ill: np.ndarray, of: np.ndarray) -> float:
    return float(ill[of].mean()) if of.any() else 0.0
