"""A few real chest CTs that come with the package, small, without headers, under licences that allow it."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ggo_lab.readers import read_labels, read_scan
from ggo_lab.scan import Scan

_FOLDER = Path(__file__).parent / "real_scans"  # its README.md holds licences and citations
_STONY_BROOK = (
    "CC BY 4.0",
    "Saltz et al. (2021), Stony Brook University COVID-19 Positive Cases, The Cancer Imaging Archive, "
    "doi 10.7937/TCIA.BBAG-2923",
)
_SEGMENTATION_CHALLENGE = (
    "CC BY 3.0",
    "Yang et al. (2017), Data from Lung CT Segmentation Challenge, The Cancer Imaging Archive, "
    "doi 10.7937/K9/TCIA.2017.3R3FVZ08",
)
_SHIPPED = (
    ("thorax", "a whole thorax, breathing freely, no COVID-19; a band of atelectasis", _SEGMENTATION_CHALLENGE),
    ("covid-diffuse", "one slice: nearly all of both lungs is diseased, arms beside the chest", _STONY_BROOK),
    ("covid-consolidation", "one slice: ground glass and consolidation in most of both lungs", _STONY_BROOK),
    ("covid-mild", "one slice: lungs nearly clear, faint ground glass", _STONY_BROOK),
    ("covid-effusion", "one slice: fluid behind a collapsed left lung", _STONY_BROOK),
    ("abdomen", "one slice below the lungs, with gas in the bowel: what must not be taken for lung", _STONY_BROOK),
)


@dataclass(frozen=True, eq=False)
class RealScan:
    """A scan of a person, and what is known of it.

    Attributes:
        scan: itself; its notes say what was done to it.
        lungs: bool (Z, Y, X), both lungs as experts drew them; None where nobody did.
        shows: what was seen in it; nobody graded it.
        licence: under which it may be passed on.
        citation: whom to cite when it is.
    """

    scan: Scan
    lungs: np.ndarray | None
    shows: str
    licence: str
    citation: str


def real_scans() -> list[RealScan]:
    """Read the real scans that come with the package: one whole thorax with experts' lungs, and five single slices.

    They are for looking and for trying: too few to learn from or to judge a network by. Never try to identify a
    person, and keep the citations.

    Returns:
        The thorax first.

    >>> [real.scan.name for real in real_scans()][:2]
    ['thorax', 'covid-diffuse']
    """
    found = []
    for name, shows, (licence, citation) in _SHIPPED:
        scan = read_scan(_FOLDER / f"{name}.nii.gz").renamed(name)
        drawn = _FOLDER / f"{name}_lungs.nii.gz"
        found.append(RealScan(scan, read_labels(drawn) > 0 if drawn.exists() else None, shows, licence, citation))
    return found
