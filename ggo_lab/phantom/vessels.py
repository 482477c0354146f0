"""The trees of the lungs: bronchi, arteries beside them, and veins between, grown to fill each lobe.

A tree is grown by halving: the space a branch feeds is cut in two, and a daughter grows towards the middle of each
half, until every branch feeds one terminal unit (after Kitaoka et al., J Appl Physiol 1999, and Tawhai et al., 2000).
"""

from dataclasses import dataclass

import numpy as np

from ggo_lab.phantom.anatomy import Anatomy
from ggo_lab.phantom.grid import AIR_HU, Grid
from ggo_lab.phantom.lobes import LOBES, lobe_of
from ggo_lab.phantom.mediastinum import BRONCHI, TRACHEA
from ggo_lab.phantom.patient import Patient
from ggo_lab.phantom.shapes import curve
from ggo_lab.phantom.stamps import Stamp, paint, stamp

WALL_HU = 20.0
_HILUM_RADIUS_MM = 3.6  # wider vessels belong to the hilum, not to the lung
_HILUM_DEPTH_MM = 35.0  # how far from its root an airway may still run in the mediastinum
_UNIT_ML = 0.6  # lung volume fed by one terminal unit, artery and vein counted apart
_BRANCHING = 3.0  # exponent k of the branching law, see grow_tree: Murray's
_LUMEN_TO_ARTERY = 0.70  # bronchus' inner radius / radius of the artery beside it, healthy
_AIRWAY_VISIBLE_MM = 0.85  # bronchi with a narrower lumen are below what CT shows in aerated lung
_BRONCHIOLE_MM, _BRONCHOGRAM_MM = 0.5, 0.85  # and in consolidated lung, where the stiff wall holds them this wide
# Where trees enter each lung, reference (x, y, z) in mm.
_ROOTS = {
    "right": {"artery": (-34, 5, 147), "airway": BRONCHI["right"][-1][:3], "vein": (-28, 2, 124)},
    "left": {"artery": (44, 14, 157), "airway": BRONCHI["left"][-1][:3], "vein": (34, 4, 122)},
}


@dataclass(frozen=True, eq=False)
class LungTrees:
    """Everything tubular inside the lungs, on the scan's grid.

    Attributes:
        vessels: blood, with partial volume.
        walls, lumens: the airways' walls and their air.
        hilum: bool (Z, Y, X), wide central vessels, which count as mediastinum.
        airways: bool (Z, Y, X), voxels that are mostly air inside an airway.
        bronchioles: points (N, 3) as (x, y, z) and radii (N,), mm, of airways that CT shows only where the lung around
            them holds no air.
    """

    vessels: Stamp
    walls: Stamp
    lumens: Stamp
    hilum: np.ndarray
    airways: np.ndarray
    bronchioles: tuple[np.ndarray, np.ndarray]

    def vessel_mask(self, grid: Grid) -> np.ndarray:
        """Bool (Z, Y, X): voxels that are mostly blood."""
        return _mask(self.vessels, grid)


def grow_trees(patient: Patient, anatomy: Anatomy, grid: Grid, rng: np.random.Generator) -> LungTrees:
    """Grow and draw airways, arteries and veins of both lungs."""
    units, lobes = _terminal_units(patient, anatomy, rng)
    blood, air, fine = [], [curve(patient.place(TRACHEA), 2.0)], []
    for side, members in (("right", lobes < 3), ("left", lobes >= 3)):
        air.append(curve(patient.place(BRONCHI[side]), 1.5))
        roots = {name: patient.place((*place, 0))[:3] for name, place in _ROOTS[side].items()}
        chosen, chosen_lobes = units[members], lobes[members]
        order = rng.permutation(len(chosen))
        arterial, venous = order[: len(order) // 2], order[len(order) // 2 :]
        # The bronchi keep to the arteries: one tree serves both, the airway beside its vessel.
        tree = grow_tree(roots["artery"], chosen[arterial], chosen_lobes[arterial], 0.66, rng)
        blood.append(tree)
        points, lumen = _beside(*tree, roots["airway"], anatomy)
        visible = lumen > _AIRWAY_VISIBLE_MM
        air.append((points[visible], lumen[visible]))
        fine.append((points[~visible], lumen[~visible]))
        blood.append(grow_tree(roots["vein"], chosen[venous], chosen_lobes[venous], 0.62, rng))

    points, radii = (np.concatenate(parts) for parts in zip(*blood, strict=True))
    vessels = stamp(grid, points, radii)
    wide = radii > _HILUM_RADIUS_MM
    hilum = _mask(stamp(grid, points[wide], radii[wide]), grid)

    points, radii = (np.concatenate(parts) for parts in zip(*air, strict=True))
    walls = stamp(grid, points, radii + 0.45 + 0.11 * radii)
    lumens = stamp(grid, points, radii)
    bronchioles = [np.concatenate(parts) for parts in zip(*fine, strict=True)]
    return LungTrees(vessels, walls, lumens, hilum, _mask(lumens, grid), (bronchioles[0], bronchioles[1]))


def grow_tree(
    root: np.ndarray, units: np.ndarray, lobes: np.ndarray, tip_radius_mm: float, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Grow one tree from its root until each branch feeds one unit.

    Radii follow the law of Murray (PNAS 1926): parent**3 = daughter1**3 + daughter2**3.

    Args:
        root: (3,) x, y, z, mm.
        units: (N, 3) terminal units, mm.
        lobes: (N,) numbers: the first cuts run between lobes.
        tip_radius_mm: radius of a branch that feeds one unit.
        rng: the source of chance.

    Returns:
        balls along the curved branches: points (N, 3) as x, y, z, and radii (N,), mm.
    """
    pieces, widths = [], []
    node = np.zeros(len(units), int)
    tips, headings = root[None], np.zeros((1, 3))
    generation = 0
    while len(units):
        count = np.bincount(node)
        middle = np.stack([np.bincount(node, units[:, a]) for a in range(3)], axis=1) / count[:, None]
        way = np.where(count == 1, 1.0, 0.30 if generation == 0 else 0.46)[:, None]
        ends = tips + way * (middle - tips)
        radii = tip_radius_mm * count ** (1 / _BRANCHING)
        points, width, headings = _bend(tips, ends, headings, radii, rng)
        pieces.append(points)
        widths.append(width)

        alive = count[node] > 1
        units, lobes, node = units[alive], lobes[alive], node[alive]
        half = lobes if generation == 0 else _cut(units - middle[node], node, len(count), rng)
        _, node_next = np.unique(node * len(LOBES) + half, return_inverse=True)
        parent = np.zeros(node_next.max() + 1 if len(node_next) else 0, int)
        parent[node_next] = node
        tips, headings, node = ends[parent], headings[parent], node_next
        generation += 1
    return np.concatenate(pieces), np.concatenate(widths)


def _cut(offsets: np.ndarray, node: np.ndarray, nodes: int, rng: np.random.Generator) -> np.ndarray:
    """Cut every node's units in two across their longest extent, a little off the middle and askew."""
    variance = np.stack([np.bincount(node, offsets[:, a] ** 2, nodes) for a in range(3)], axis=1)
    axis = np.eye(3)[np.argmax(variance, axis=1)] + rng.normal(0, 0.35, (nodes, 3))
    along = (offsets * axis[node]).sum(axis=1)
    shift = rng.normal(0, 0.25, nodes) * np.sqrt(
        variance.max(axis=1) / np.maximum(np.bincount(node, minlength=nodes), 1)
    )
    half = along > shift[node]
    # A cut that leaves one side empty would never end: cut through the middle instead.
    ones = np.bincount(node, half, nodes)
    stuck = (ones == 0) | (ones == np.bincount(node, minlength=nodes))
    centre = np.bincount(node, along, nodes) / np.maximum(np.bincount(node, minlength=nodes), 1)
    return np.where(stuck[node], along > centre[node], half)


def _bend(
    starts: np.ndarray, ends: np.ndarray, headings: np.ndarray, radii: np.ndarray, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Points along curved branches that leave in their parent's direction, radii tapering slightly, new headings."""
    chord = ends - starts
    length = np.linalg.norm(chord, axis=1)
    control = (
        starts + 0.5 * chord + 0.22 * length[:, None] * headings + rng.normal(0, 0.07, chord.shape) * length[:, None]
    )
    steps = np.maximum(np.ceil(length / np.maximum(0.5 * radii, 0.9)).astype(int), 2)
    branch = np.repeat(np.arange(len(starts)), steps)
    t = (np.arange(len(branch)) - np.repeat(np.cumsum(steps) - steps, steps)) / np.repeat(steps - 1, steps)
    t = t[:, None]
    points = (1 - t) ** 2 * starts[branch] + 2 * t * (1 - t) * control[branch] + t**2 * ends[branch]
    leaving = ends - control
    leaving /= np.maximum(np.linalg.norm(leaving, axis=1, keepdims=True), 1e-6)
    return points, radii[branch] * (1.06 - 0.16 * t[:, 0]), leaving


def _beside(
    points: np.ndarray, radii: np.ndarray, entrance: np.ndarray, anatomy: Anatomy
) -> tuple[np.ndarray, np.ndarray]:
    """Lead an airway along an artery, behind and inside it, from the main bronchus at entrance.

    Returns:
        points (N, 3) and radii (N,) of its lumen, mm.
    """
    visible = _LUMEN_TO_ARTERY * radii > _BRONCHIOLE_MM
    artery, points = radii[visible], points[visible]
    lumen = _LUMEN_TO_ARTERY * artery
    side = np.sign(entrance[0])
    beside = points + (artery + lumen + 0.8)[:, None] * np.array([[-0.35 * side, 0.75, -0.5]])
    # Artery and bronchus enter the lung at different places: the airway drifts from one to the other near the hilum.
    far = np.linalg.norm(beside - beside[0], axis=1, keepdims=True)
    beside = beside + (entrance - beside[0]) * np.exp(-((far / 22) ** 2))
    # A straight branch may cut a corner through the diaphragm; air must not appear there.
    kept = anatomy.in_lungs(beside) | (far[:, 0] < _HILUM_DEPTH_MM)
    return beside[kept], np.minimum(lumen[kept], 5.0)


def _terminal_units(patient: Patient, anatomy: Anatomy, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Scatter terminal units evenly over the lungs; return positions (N, 3) in mm and their lobes (N,)."""
    coarse = anatomy.coarse
    candidates = np.argwhere(anatomy.depth_mm > 3.0)
    count = int(len(candidates) * coarse.spacing[0] ** 3 / 1000 / _UNIT_ML)
    # Points drawn at random would clump and leave holes; a regular thinning of the lattice, jittered, does neither.
    picked = candidates[np.linspace(0, len(candidates) - 1, count).astype(int)]
    places = np.asarray(coarse.origin) + coarse.spacing[0] * (picked + rng.uniform(-1.2, 1.2, picked.shape))
    units = places[:, ::-1]
    return units, lobe_of(patient, *units.T)


def _mask(drawn: Stamp, grid: Grid) -> np.ndarray:
    mask = np.zeros(grid.shape, bool)
    mask.reshape(-1)[drawn.voxels[drawn.coverage > 0.5]] = True
    return mask


def draw_trees(hu: np.ndarray, trees: LungTrees, pleura: np.ndarray, patient: Patient) -> None:
    """Lay vessels and airways over the lungs, in place.

    Args:
        hu: float32 (Z, Y, X), HU.
        trees: grown by grow_tree.
        pleura: share of each voxel inside the lungs.
        patient: who is drawn.
    """
    share = np.maximum(pleura.reshape(-1)[trees.vessels.voxels], trees.hilum.reshape(-1)[trees.vessels.voxels])
    paint(hu, Stamp(trees.vessels.voxels, trees.vessels.coverage * share), patient.blood_hu + 0.8 * patient.contrast_hu)
    paint(hu, trees.walls, WALL_HU)
    paint(hu, trees.lumens, AIR_HU)


def draw_bronchogram(hu: np.ndarray, trees: LungTrees, consolidation: np.ndarray, grid: Grid) -> None:
    """Show the air in the bronchioles where the lung around them is consolidated, in place.

    Args:
        hu: float32 (Z, Y, X), HU.
        trees: grown by grow_tree.
        consolidation: bool (Z, Y, X).
        grid: the voxels that are drawn.
    """
    points, radii = trees.bronchioles
    air = stamp(grid, points, np.maximum(radii, _BRONCHOGRAM_MM))
    here = consolidation.reshape(-1)[air.voxels]
    paint(hu, Stamp(air.voxels[here], air.coverage[here]), AIR_HU)
