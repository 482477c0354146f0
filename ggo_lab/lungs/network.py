"""Lungs and haze as a small network sees them: trained on phantoms alone, wide enough to hold on patients."""

import hashlib
import zlib
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

import numpy as np
from scipy import ndimage

from ggo_lab.errors import ModelError
from ggo_lab.lungs.segment import NEARBY_MM, TISSUE_HU
from ggo_lab.lungs.sides import LEFT, RIGHT, split_lungs
from ggo_lab.scan import PADDING_BELOW_HU, Scan
from ggo_lab.settled import settled

if TYPE_CHECKING:
    import torch

    from ggo_lab.lungs.unet import UNet

WEIGHTS = Path(__file__).parent / "weights" / "unet.safetensors"
# Of the weights; being part of the code, it also makes images in the cache anew when they change.
_SHA256 = "623c742c2717de778cbfb8b92609230f0b5a3c2df6f8280b858f32b2e9f71720"
_PIXEL_MM = 4.0  # what the network was trained at
_NEIGHBOUR_MM = 6.0  # distance of the slices beside the one looked at, as in training
_LEAST_STEP_MM = 2.5  # slices nearer than this to each other are not all looked at
_BATCH = 8  # slices at a time: more do not fit into the processor's cache
_EMPTY_HU = -1024
_LEAST_PIECE = 0.04  # of the largest piece's volume; smaller ones are gas in the bowel or clothes
_LEAST_CM2 = 1.0  # cross-section of the smallest piece
_ISLAND = 0.25  # of a lung's largest piece: smaller ones that touch the other lung belong to that
_SURE = (0.1, 0.9)  # the network's probabilities between which an outline lies
_POSSIBLE = 0.02  # the network's probability below which the rule is not believed
# What both doubt is kept where nearly all of a piece is dense: consolidation, which the rule found by the lung around.
_DENSE_HU, _DENSE = -300, 0.8
_VERY_SURE = 0.95  # the network's probability from which the rule is overruled
# Share of a lung that the rule must have missed for all of it to be added, rim and all: consolidation is more, and less
# may be the aorta, which the network takes for lung now and then.
_MUCH_MISSED = 0.03
# Share of the rule's lungs that the network may take away unasked; more is given back where it is as dense as lung, for
# gas is emptier, and the network has seen no half of a chest. Of whole chests it takes 0.5% at most, of a half one 8%.
_MUCH_DROPPED, _LUNG_HU = 0.05, (-960, -600)
_AGREE = 0.8  # overlap of one lung by both below which one of them is far off, and that is the rule
# The network's probability of haze in the middle of a lesion, by how dense the clearest quarter of the lungs is at
# most, and around that. Lungs that breathed in little hold crowded vessels and weight, which look like haze; no breath
# makes healthy lungs denser than that, and those are ill.
_CORE_AT_HU, _LESION_CORE, _LESION_RIM = (-870, -780, -700, -600), (0.5, 0.95, 0.95, 0.5), 0.3
_CLEAREST = 25  # per cent of the lungs
_DEEP_HU = -870.0  # their density after a deep breath, taken where there are none
_LESION_MM = 16.0  # how far from its middle a lesion reaches
_AERATED_HU = -500
_DRAWN_OUTSIDE_MM = 0.15
_NO_LIMIT_HU = 1000.0


_REMEMBERED: WeakKeyDictionary = WeakKeyDictionary()


@dataclass(frozen=True, eq=False)
class LungMaps:
    """What the network sees, on a lattice of 4 mm pixels and every slice or every few.

    Attributes:
        right: uint8 (z, y, x), probability of the right lung, 0..255.
        left: the same of the left lung.
        ggo: the same of ground glass.
        consolidation: the same of consolidation.
        hu: float32 (z, y, x), what it looked at.
        density: how dense the clearest quarter of the lungs is at most, HU; the network knew it when it saw lesions.
        planes: (z,) which slices of the scan were looked at.
        spacing: (z, y, x), mm.
        shape: the scan's, (Z, Y, X).
    """

    right: np.ndarray
    left: np.ndarray
    ggo: np.ndarray
    consolidation: np.ndarray
    hu: np.ndarray
    density: float
    planes: np.ndarray
    spacing: tuple[float, float, float]
    shape: tuple[int, int, int]

    def enlarge(self, field: np.ndarray, z: int) -> np.ndarray:
        """Interpolate a float32 (z, y, x) field at the pixels of one of the scan's slices, (Y, X)."""
        place = float(np.interp(z, self.planes, np.arange(len(self.planes))))
        low = int(place)
        high = min(low + 1, len(field) - 1)
        plane = field[low] + np.float32(place - low) * (field[high] - field[low])
        return resample(plane[None], self.shape[1:])[0]


def look(scan: Scan, weights: Path = WEIGHTS) -> LungMaps:
    """Let the network look at a scan; a scan that was looked at before is remembered as long as it lives.

    Args:
        scan: a chest CT, in HU.
        weights: the network's file.

    Returns:
        LungMaps.
    """
    values = zlib.crc32(np.ascontiguousarray(scan.hu).data)  # what was seen of other values is not trusted
    remembered = _REMEMBERED.get(scan)
    if remembered is None or remembered[:2] != (values, weights):
        remembered = (values, weights, _look(scan, weights))
        _REMEMBERED[scan] = remembered
    return remembered[2]


def _look(scan: Scan, weights: Path) -> LungMaps:
    import torch

    from ggo_lab.lungs.unet import MULTIPLE, normalise

    model = _load(weights)
    stride = max(1, round(_LEAST_STEP_MM / scan.spacing[0]))
    planes = np.unique(np.append(np.arange(0, scan.shape[0], stride), scan.shape[0] - 1))
    rows, columns = (
        max(1, round(n * step / _PIXEL_MM)) for n, step in zip(scan.shape[1:], scan.spacing[1:], strict=True)
    )
    hu = np.empty((len(planes), rows, columns), np.float32)
    for index, z in enumerate(planes):
        plane = np.where(scan.hu[z] < PADDING_BELOW_HU, np.int16(_EMPTY_HU), scan.hu[z]).astype(np.float32)
        hu[index] = resample(plane[None], (rows, columns))[0]
    step_mm = stride * scan.spacing[0]
    gap = max(1, round(_NEIGHBOUR_MM / step_mm)) if len(planes) > 1 else 0
    pad_y, pad_x = (-rows % MULTIPLE, -columns % MULTIPLE)
    padded = torch.from_numpy(np.pad(hu, [(0, 0), (0, pad_y), (0, pad_x)], constant_values=_EMPTY_HU))
    padded = normalise(padded)
    bf16 = torch.ops.mkldnn._is_mkldnn_bf16_supported()
    features, sides = [], []
    with settled(), torch.inference_mode(), torch.autocast("cpu", torch.bfloat16, enabled=bf16):
        for first in range(0, len(planes), _BATCH):
            middle = torch.arange(first, min(first + _BATCH, len(planes)))
            beside = [(middle + shift).clamp(0, len(planes) - 1) for shift in (-gap, 0, gap)]
            images = torch.stack([padded[index] for index in beside], 1).contiguous(memory_format=torch.channels_last)
            seen, logits = model(images)
            features.append(seen)
            sides.append(_in_bytes(logits))
        right, left = torch.cat(sides)[:, :, :rows, :columns].numpy().swapaxes(0, 1)
        lung = hu[right.astype(np.int16) + left > 127]
        density = float(np.percentile(lung, _CLEAREST)) if lung.size else _DEEP_HU
        lesions = [_in_bytes(model.lesions(seen, torch.full((len(seen),), density))) for seen in features]
    ggo, consolidation = torch.cat(lesions)[:, :, :rows, :columns].numpy().swapaxes(0, 1)
    spacing = (step_mm, scan.shape[1] * scan.spacing[1] / rows, scan.shape[2] * scan.spacing[2] / columns)
    right, left, ggo, consolidation = map(np.ascontiguousarray, (right, left, ggo, consolidation))
    return LungMaps(right, left, ggo, consolidation, hu, density, planes, spacing, scan.shape)


def _in_bytes(logits: "torch.Tensor") -> "torch.Tensor":
    """Turn logits (B, 3, H, W) into the chances of the last two classes, uint8 (B, 2, H, W)."""
    return (255 * logits.softmax(1)[:, 1:] + 0.5).byte()


def lungs_by_network(
    scan: Scan, weights: Path = WEIGHTS, ruled: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray, tuple[str, ...]]:
    """Find the right and the left lung by the network, or by it and the rule together.

    Where lung with air ends, the outline is drawn by attenuation, between lung and tissue, which knows better than
    pixels of 4 mm; where disease or fluid ends it, by the network. Together with the rule, the rule draws, what
    the network is sure of decides: no lung where it sees none (stomach, bowel, room), lung where it surely sees one
    (consolidation). A lung on which both differ widely is the network's alone.

    Args:
        scan: a chest CT, in HU.
        weights: the network's file.
        ruled: bool (Z, Y, X), the lungs by the rule.

    Returns:
        Right and left lung, bool (Z, Y, X), one or both empty where none is seen; and on which lung the two differ
        widely, a sentence each.
    """
    maps = look(scan, weights)
    side = _sides(maps)
    near = ndimage.binary_dilation(side > 0, np.ones((1, 3, 3)))
    chance = np.where(near, (maps.right.astype(np.float32) + maps.left) / 255, 0)
    # Which lung: of the nearest voxel of either.
    nearest = ndimage.distance_transform_edt(side == 0, maps.spacing, return_distances=False, return_indices=True)
    is_left = (side[tuple(nearest)] == LEFT).astype(np.float32)
    limit = _limit(maps, side > 0, lung_share(scan))
    left, own, kept, added, doubted = np.zeros((5, *scan.shape), bool)
    for z in range(scan.shape[0]):
        plane = maps.enlarge(chance, z)
        if plane.max() < _POSSIBLE:
            continue
        outline = (plane > _SURE[0]) & (plane < _SURE[1])
        own[z] = np.where(outline, _inside(plane, scan.hu[z], maps.enlarge(limit, z)), plane > 0.5)
        if ruled is None:
            left[z] = maps.enlarge(is_left, z) > 0.5
        else:
            kept[z] = (ruled[z] & (plane > _POSSIBLE)) | (plane > _VERY_SURE)
            doubted[z] = ruled[z] & ~kept[z]
            added[z] = _missed(ruled[z], plane, own[z], maps.spacing[1] / scan.spacing[1])
    if ruled is None or not own.any():
        return own & ~left, own & left, ()
    kept |= _dense_pieces(doubted, scan.hu)
    dropped = ruled & ~kept
    restored = np.count_nonzero(dropped) > _MUCH_DROPPED * np.count_nonzero(ruled)
    restored = restored and _LUNG_HU[0] < np.median(scan.hu[dropped]) < _LUNG_HU[1]
    if restored:
        kept |= dropped
    notes = ["The network missed much of what the rule found, which looks like lung and was kept."] if restored else []
    right, left = split_lungs(scan, own | kept)  # by shape: it holds where one lung alone is seen, too
    for name, lung in (("right", right), ("left", left)):
        alone, both = own & lung, kept & lung
        if np.count_nonzero(added & lung) > _MUCH_MISSED * np.count_nonzero(alone):
            both |= added & lung
        size = np.count_nonzero(alone) + np.count_nonzero(both)
        overlap = 2 * np.count_nonzero(alone & both) / size if size else 1.0
        if overlap < _AGREE and not restored:
            both = alone
            notes.append(
                f"Rule and network disagree on the {name} lung (Dice {overlap:.2f}); the network's outline was taken."
            )
        lung[:] = both
    return right, left, tuple(notes)


def _dense_pieces(doubted: np.ndarray, hu: np.ndarray) -> np.ndarray:
    """Mark the pieces that are dense nearly throughout; of others, such as an arm and the air beside it, nothing."""
    pieces, count = ndimage.label(doubted)
    sizes, dense = (np.bincount(pieces[where], minlength=count + 1) for where in (doubted, doubted & (hu > _DENSE_HU)))
    return (dense >= _DENSE * np.maximum(sizes, 1))[pieces]


def _missed(ruled: np.ndarray, chance: np.ndarray, own: np.ndarray, pixels: float) -> np.ndarray:
    """Mark in one slice what the network is sure of and the rule missed.

    Args:
        ruled: bool (Y, X), by the rule.
        chance: (Y, X), the network's probability of lung, 0..1.
        own: bool (Y, X), the network's outline.
        pixels: of the slice in one of the network's.
    """
    missed = ~ruled & (chance > _SURE[1])
    if missed.any():  # with the rim about it, where the network is less sure
        missed = own & ~ruled & (ndimage.maximum_filter(missed, 2 * round(pixels) + 1) > 0)
    return missed


def haze_by_network(scan: Scan, lungs: np.ndarray, weights: Path = WEIGHTS) -> np.ndarray:
    """Mark ground glass and consolidation in lungs.

    Two thresholds (hysteresis, after Canny 1986, IEEE TPAMI 8:679): a lesion is where the network is sure, and what is
    possible near that. Vessels, a moving diaphragm and a shallow breath are possible here and there, and sure nowhere.
    How sure it must be depends on how much air the lungs hold, so that about as much of healthy ones is marked at any
    breath (a constant rate of false alarms, after Finn and Johnson 1968, RCA Review 29:414).

    Args:
        scan: a chest CT, in HU.
        lungs: bool (Z, Y, X).
        weights: the network's file.

    Returns:
        bool (Z, Y, X), none outside `lungs`.
    """
    maps = look(scan, weights)
    chance = np.minimum(maps.ggo.astype(np.float32) + maps.consolidation, 255) / 255
    inside = np.stack([resample(lungs[z][None], chance.shape[1:])[0] for z in maps.planes]) >= 0.5
    haze = np.zeros(scan.shape, bool)
    if not inside.any():
        return haze
    sure = np.interp(maps.density, _CORE_AT_HU, _LESION_CORE)
    core = ndimage.binary_opening((chance > sure) & inside, np.ones((1, 2, 2)))
    if not core.any():
        return haze
    chance[ndimage.distance_transform_edt(~core, maps.spacing) > _LESION_MM] = 0
    for z in np.flatnonzero(lungs.any(axis=(1, 2))):
        haze[z] = (maps.enlarge(chance, int(z)) > _LESION_RIM) & lungs[z]
    return haze


def _inside(chance: np.ndarray, hu: np.ndarray, limit: np.ndarray) -> np.ndarray:
    """Decide at an outline: by attenuation where there is a limit, by the network elsewhere."""
    return np.where(limit < _NO_LIMIT_HU, hu < limit, chance > 0.5)


def _sides(maps: LungMaps) -> np.ndarray:
    """Label the lungs on the network's lattice: int8, RIGHT, LEFT, 0 elsewhere; small separate pieces left out."""
    lung = (maps.right.astype(np.int16) + maps.left) > 127
    pieces, count = ndimage.label(lung, np.ones((3, 3, 3)))
    sizes = np.bincount(pieces.ravel(), minlength=count + 1)
    sizes[0] = 0
    kept = sizes >= max(_LEAST_PIECE * sizes.max(initial=0), _LEAST_CM2 * 100 / (maps.spacing[1] * maps.spacing[2]))
    kept[0] = False
    lung = kept[pieces]
    side = np.where(lung, np.where(maps.left > maps.right, LEFT, RIGHT), 0).astype(np.int8)
    for own, other in ((RIGHT, LEFT), (LEFT, RIGHT)):  # islands of one lung within the other belong to that
        pieces, count = ndimage.label(side == own)
        sizes = np.bincount(pieces.ravel(), minlength=count + 1)
        sizes[0] = 0
        small = (sizes > 0) & (sizes < _ISLAND * sizes.max(initial=0))
        if small.any():
            island = small[pieces]
            touching = ndimage.binary_dilation(side == other) & island
            swapped = np.bincount(pieces[touching], minlength=count + 1) > 0
            side[(swapped & small)[pieces]] = other
    return side


def lung_share(scan: Scan) -> float:
    """Return the share of lung from which a voxel at the outline counts as lung, as experts draw it.

    By hand an outline is drawn a little outside of half-way: by 0.15 mm, at most a tenth of a voxel, on
    the scan that this was set on (LCTSC-101 in benchmarks/real.py: Dice 0.967 half-way, 0.973 so).
    """
    return 0.5 - min(0.1, _DRAWN_OUTSIDE_MM / scan.spacing[1])


def _limit(maps: LungMaps, lung: np.ndarray, share: float) -> np.ndarray:
    """Attenuation of a voxel with this share of lung beside tissue, HU; far above any where that lung holds no air."""
    core = ndimage.binary_erosion(lung, np.ones((1, 3, 3)), border_value=1) & (maps.hu < _AERATED_HU)
    weight = core.astype(np.float32)
    sigma = (0, NEARBY_MM / maps.spacing[1], NEARBY_MM / maps.spacing[2])
    held = ndimage.gaussian_filter(weight, sigma)
    total = ndimage.gaussian_filter(lung.astype(np.float32), sigma)
    mean = ndimage.gaussian_filter(np.where(core, maps.hu, 0), sigma) / np.maximum(held, 1e-3)
    return np.where(held > 0.4 * total, share * mean + (1 - share) * TISSUE_HU, 2 * _NO_LIMIT_HU).astype(np.float32)


def resample(planes: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Bring float32 (B, Y, X) to another number of pixels: averaged where there are fewer, interpolated where more."""
    import torch

    values = torch.from_numpy(np.ascontiguousarray(planes, np.float32))[None]
    fewer = size[0] < planes.shape[1] or size[1] < planes.shape[2]
    with settled(), torch.inference_mode():
        return torch.nn.functional.interpolate(values, size=size, mode="bilinear", antialias=fewer)[0].numpy()


@cache
@settled()
def _load(weights: Path) -> "UNet":
    import torch
    from safetensors.torch import load_file

    from ggo_lab.lungs.unet import UNet

    if weights == WEIGHTS and (found := hashlib.sha256(weights.read_bytes()).hexdigest()) != _SHA256:
        raise ModelError(
            f"{weights}: not the weights that this version came with (SHA-256 {found[:12]}..., expected "
            f"{_SHA256[:12]}...); install the package again.",
            weights,
        )
    model = UNet().to(memory_format=torch.channels_last).eval()
    model.load_state_dict({name: value.float() for name, value in load_file(weights).items()})
    return model
