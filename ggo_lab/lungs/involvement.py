"""How much of the lungs is hazy: involvement by the network, or by the rule that compares with clear lung."""

from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from ggo_lab.errors import check_choice
from ggo_lab.lungs.coarse import Coarse
from ggo_lab.lungs.dependent import without_dependent_layer
from ggo_lab.lungs.sides import split_lungs
from ggo_lab.scan import Scan

# Healthy lung is the lower end of the lungs' histogram; ground glass begins well above it. The numbers were set on
# phantoms, between counting healthy lung (too low) and losing the lesions' soft borders (too high).
_HEALTHY_PERCENTILE = 1
_ABOVE_HEALTHY_HU = 85
# The limit stays within these: emphysema must not pull it below healthy lung (medians of -826 to -901 in two real
# scans), nor lungs that are ill throughout push it far above; lungs that breathed in little are as dense as -780.
_LIMIT_HU = (-820, -690)
_VESSEL_ABOVE_HU = -500
_VESSEL_MM = 12.0  # bright structures thinner than this are vessels, fissures or airway walls; the hilum's reach 10
_SMOOTH_MM = 4.5  # sd of the weights of the votes around: wider than most vessels, narrower than most lesions
_BESIDE_MM = 3.0  # a bright strand this near to a lesion belongs to it
_LEAST_ML = 0.5  # smaller parts are left out; the median part of mild disease has 0.8 mL

METHODS = ("rule", "network")
_CROSS = ndimage.generate_binary_structure(2, 1)[None]  # a voxel and its four neighbours in the slice


@dataclass(frozen=True, eq=False)
class GgoFraction:
    """How much of the lungs looks like ground-glass opacity or consolidation.

    Attributes:
        total: share of the lung volume, 0..1.
        right: the same in the right lung; nan where there is none.
        left: the same in the left lung.
        per_slice: (Z,), the same in every slice; nan where there is no lung.
        mask: bool (Z, Y, X), what was counted.
        above_hu: the attenuation above which the rule takes lung for ill, HU; nan for the network, which has none.
    """

    total: float
    right: float
    left: float
    per_slice: np.ndarray
    mask: np.ndarray
    above_hu: float = float("nan")


def ggo_fraction(scan: Scan, lungs: np.ndarray, method: str = "network") -> GgoFraction:
    """Estimate involvement: the share of the lungs that is ground glass or consolidation.

    Args:
        scan: a chest CT, in HU.
        lungs: bool (Z, Y, X), from segment_lungs or the scan's truth.
        method: "network", a small U-Net trained on phantoms alone, which knows how vessels, breath and kernel look
            and misses faint haze; or "rule", what is denser than this patient's clear lung (notebook 03), which sees
            the faintest haze and takes a shallow breath for it: of people without diffuse disease up to 73% of the
            lungs, where the network finds at most 11% (benchmarks/README.md).

    Returns:
        GgoFraction.

    Raises:
        ScanError: `lungs` is empty or of another shape.
    """
    check_choice("method", method, METHODS)
    right, left = split_lungs(scan, lungs)
    if method == "rule":
        mask, above_hu = _hazy_by_rule(scan, lungs, (right, left))
    else:
        from ggo_lab.lungs.network import haze_by_network  # it needs torch, which takes seconds to import

        mask, above_hu = haze_by_network(scan, lungs), float("nan")
    in_slice, ill_in_slice = lungs.sum(axis=(1, 2)), mask.sum(axis=(1, 2))
    return GgoFraction(
        total=_share(mask, lungs),
        right=_share(mask, right),
        left=_share(mask, left),
        per_slice=np.where(in_slice > 0, ill_in_slice / np.maximum(in_slice, 1), np.nan),
        mask=mask,
        above_hu=above_hu,
    )


def _hazy_by_rule(scan: Scan, lungs: np.ndarray, sides: tuple[np.ndarray, ...]) -> tuple[np.ndarray, float]:
    """Mark what is denser than this patient's healthy lung, and return the limit, HU.

    A fixed HU band counts vessel walls and partial volume too and never falls below about 5%, in healthy lungs as
    well. Four things are done about it. The limit comes from the patient: healthy lung is the lower end of the
    lungs' own histogram (after Berta et al. 2021, Physica Medica 82:28). What only looks hazy has no vote: the voxels
    at the pleura, and bright structures too thin for a lesion, unless they lie in one. And a place counts where most
    of the votes around it are for haze, which is a threshold after a median filter that leaves out the voxels without
    a vote. Last, a hazy layer along the pleura at the back is left out where both lungs have one and are nearly clear
    elsewhere: that is the weight of the lung. Other lung that is dense without disease is taken for ground glass.
    """
    coarse = Coarse.of(scan)
    inside = coarse.shrink(lungs)
    core, thin = _voters(coarse.hu, inside, coarse.spacing)
    above_hu = _limit(coarse.hu, core & ~thin)
    hazy = coarse.hu > above_hu
    ill = inside & _majority(hazy, core & ~thin, coarse.spacing)
    if ill.any():  # a bright strand in a lesion or at it is part of it, and votes after all
        beside = ndimage.distance_transform_edt(~ill, coarse.spacing) <= _BESIDE_MM
        ill = inside & _majority(hazy, core & (~thin | beside), coarse.spacing)
    lungs_there = tuple(side for side in map(coarse.shrink, sides) if side.any())
    if not lungs_there:  # specks too small for the coarse lattice
        return np.zeros(scan.shape, bool), above_hu
    ill = without_dependent_layer(ill, lungs_there, coarse.spacing)
    parts, count = ndimage.label(ill)
    ml = np.bincount(parts.ravel(), minlength=count + 1) * float(np.prod(coarse.spacing)) / 1000
    ill &= (ml >= _LEAST_ML)[parts]
    # Lesions at the pleura reach up to it, also where the outline of the coarse lattice does not.
    return coarse.enlarge(ill | (ndimage.binary_dilation(ill) & ~inside)) & lungs, above_hu


def _majority(hazy: np.ndarray, votes: np.ndarray, spacing: tuple[float, float, float]) -> np.ndarray:
    """Mark where more than half of the votes around, weighted by their distance, are for haze."""
    sigma = [_SMOOTH_MM / step for step in spacing]
    cast = ndimage.gaussian_filter(votes.astype(np.float32), sigma, mode="nearest")
    aye = ndimage.gaussian_filter((votes & hazy).astype(np.float32), sigma, mode="nearest")
    return aye > 0.5 * np.maximum(cast, 1e-3)


def _share(mask: np.ndarray, of: np.ndarray) -> float:
    count = np.count_nonzero(of)
    return float(np.count_nonzero(mask & of) / count) if count else float("nan")


def _voters(hu: np.ndarray, inside: np.ndarray, spacing: tuple[float, float, float]) -> tuple[np.ndarray, np.ndarray]:
    """Mark voxels behind the pleura's partial volume, and those that may be vessel or fissure, each bool (z, y, x)."""
    core = ndimage.binary_erosion(inside, np.ones((1, 3, 3)), border_value=1)
    bright = hu > _VESSEL_ABOVE_HU
    width = [1, *(max(2, round(_VESSEL_MM / step)) for step in spacing[1:])]
    thin = bright & ~ndimage.binary_opening(bright, np.ones(width))
    thin = ndimage.binary_dilation(thin, _CROSS)  # the partial volume around a vessel looks hazy too
    return core, thin


def _limit(hu: np.ndarray, votes: np.ndarray) -> float:
    """Compute the attenuation above which this patient's lung is ill, HU."""
    smooth = ndimage.uniform_filter(hu, 3)
    if not votes.any():
        return float(_LIMIT_HU[1])
    healthy = np.percentile(smooth[votes], _HEALTHY_PERCENTILE)
    return float(np.clip(healthy + _ABOVE_HEALTHY_HU, *_LIMIT_HU))
