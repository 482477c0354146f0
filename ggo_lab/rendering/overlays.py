"""What lies over a scan: masks and heat, checked, each with its colour."""

from collections.abc import Mapping, Sequence

import numpy as np

from ggo_lab.errors import ChoiceError, check_choice
from ggo_lab.scan import Scan

# Colours that the colour-blind can tell apart (Okabe & Ito 2008) and that stand out from grey. Lungs and lesions keep
# theirs everywhere; other masks take the rest in turn.
COLOR_OF = {"lungs": "#56B4E9", "lesions": "#F0E442"}
_OTHER_COLORS = ("#CC79A7", "#009E73", "#E69F00", "#0072B2", "#D55E00")

# Heat is drawn from dark red to orange and more opaque the hotter: no yellow, which is the lesions' colour.
HEAT_COLD, HEAT_HOT = (140, 16, 36), (255, 120, 0)

Heat = np.ndarray | Mapping[int, np.ndarray]


def mask_colors(names: list[str]) -> dict[str, str]:
    """Return the colour of every mask, as #rrggbb.

    >>> mask_colors(["lesions", "airways"])
    {'lesions': '#F0E442', 'airways': '#CC79A7'}
    """
    others = [name for name in names if name not in COLOR_OF]
    turn = {name: _OTHER_COLORS[i % len(_OTHER_COLORS)] for i, name in enumerate(others)}
    return {name: COLOR_OF.get(name) or turn[name] for name in names}


def rgb_of(color: str) -> tuple[int, int, int]:
    """Red, green and blue of #rrggbb, 0..255."""
    red, green, blue = bytes.fromhex(color[1:])
    return red, green, blue


def check_masks(scan: Scan, masks: Mapping[str, np.ndarray] | str | None) -> dict[str, np.ndarray]:
    """Return the masks to draw, by name.

    Args:
        scan: what they lie over.
        masks: bool (Z, Y, X) by name; "truth" for the lungs and lesions that the scan's truth knows; None for none.

    Raises:
        ChoiceError: a mask of another shape or type, "truth" where none is known, or a scan that is none.
    """
    if not isinstance(scan, Scan):
        raise ChoiceError(
            f"A scan is needed, found {type(scan).__name__}: open a file with read_scan(path), or give an array its "
            "spacing with Scan(hu, spacing).",
            scan,
        )
    if masks is None:
        return {}
    if isinstance(masks, str):
        check_choice("masks", masks, ["truth"])
        if scan.truth is None:
            raise ChoiceError(
                f"{scan.name}: masks='truth' needs a scan whose truth is known, such as a phantom; "
                "give masks={'lungs': segment_lungs(scan)} instead.",
                masks,
            )
        return {"lungs": scan.truth.lungs, "lesions": scan.truth.lesions}
    if not isinstance(masks, Mapping):
        raise ChoiceError(
            f"masks is a {type(masks).__name__}; give every mask its name, such as masks={{'lungs': mask}}.", masks
        )
    for name, mask in masks.items():
        if not isinstance(name, str):
            raise ChoiceError(f"A mask is named {name!r}, which is no text; name it such as 'lungs'.", name)
        mask = np.asarray(mask)
        if name == "heat":
            raise ChoiceError("A mask cannot be named 'heat': that is the heat map's name; choose another.", name)
        if mask.shape != scan.shape or mask.dtype != bool:
            raise ChoiceError(
                f"Mask {name!r} is {mask.dtype} {mask.shape}; the scan {scan.name} needs bool {scan.shape}. "
                "Of a label map make one with `labels == 1`.",
                name,
            )
    return {name: np.asarray(mask) for name, mask in masks.items()}


def check_heat(scan: Scan, heat: Heat | None) -> Heat | None:
    """Return the heat to draw: float (Z, Y, X) in 0..1, or such maps (Y, X) by axial slice; raise ChoiceError if not.

    Where heat is nan there is none.
    """
    if heat is None:
        return None
    needed = (
        f"the scan {scan.name} needs an array {scan.shape}, or a dict from slices 0..{scan.shape[0] - 1} to maps "
        f"{scan.shape[1:]} (see Cut.lay)."
    )
    if not isinstance(heat, Mapping):
        heat = np.asarray(heat)
        if heat.shape != scan.shape:
            raise ChoiceError(f"heat has the shape {heat.shape}; {needed}", heat.shape)
        return heat
    maps = {z: np.asarray(values) for z, values in heat.items()}
    for z, values in maps.items():
        if not 0 <= z < scan.shape[0] or values.shape != scan.shape[1:]:
            raise ChoiceError(f"heat has a map {values.shape} for slice {z}; {needed}", z)
    return maps


def heat_levels(values: np.ndarray) -> np.ndarray:
    """Heat 0..1 as uint8 0..255; what is outside is clipped, and nan is 0."""
    finite = np.nan_to_num(np.asarray(values, np.float32), nan=0.0)
    return np.rint(255 * np.clip(finite, 0, 1)).astype(np.uint8)


def check_marks(scan: Scan, marks: Sequence[int]) -> tuple[int, ...]:
    """Return the axial slices to mark; raise ChoiceError for what is none of the scan's."""
    for z in marks:
        if z not in range(scan.shape[0]):
            raise ChoiceError(f"marks has {z!r}; the axial slices of {scan.name} are 0 to {scan.shape[0] - 1}.", z)
    return tuple(int(z) for z in marks)


def areas(mask: np.ndarray) -> np.ndarray:
    """Count the voxels of a mask (Z, Y, X) in each axial slice."""
    return np.array([np.count_nonzero(part) for part in mask])


def lesion_share(masks: Mapping[str, np.ndarray]) -> np.ndarray | None:
    """Lesions / lungs in each axial slice, nan where there is no lung; None without these masks."""
    if not {"lungs", "lesions"} <= masks.keys():
        return None
    lungs, lesions = (areas(masks[name]).astype(float) for name in ("lungs", "lesions"))
    return np.divide(lesions, lungs, out=np.full(len(lungs), np.nan), where=lungs > 0)
