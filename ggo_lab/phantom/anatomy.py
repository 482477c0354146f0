"""The healthy chest on a grid: body, bones, mediastinum, and the space of the lungs."""

from dataclasses import dataclass

import numpy as np

from ggo_lab.phantom.body import (
    EFFUSION_HU,
    FAT_HU,
    SKIN_HU,
    above_diaphragm,
    chest_wall,
    draw_arms,
    effusion_mm,
    fill_abdomen,
    muscle_hu,
    muscle_surface,
    skin_surface,
)
from ggo_lab.phantom.grid import AIR_HU, COARSE_MM, Grid, smooth_noise, three
from ggo_lab.phantom.mediastinum import draw_great_vessels, heart_surfaces, mediastinum_surface
from ggo_lab.phantom.patient import Patient
from ggo_lab.phantom.shapes import Filler, in_voxels, smooth_min, to_share
from ggo_lab.phantom.skeleton import draw_bones


@dataclass(frozen=True, eq=False)
class Anatomy:
    """The healthy chest on a grid, before the lungs' inner structures.

    Attributes:
        hu: float32 (Z, Y, X), HU; lungs hold fat until they are filled.
        pleura: float32 (Z, Y, X), share of each voxel inside the lungs, 0..1.
        left, right: bool (Z, Y, X), voxels at least half inside each lung.
        lung_box: slices of the smallest box around both lungs.
        lung_region: corners ((z, y, x), (z, y, x)) around both lungs, mm, the same at any resolution.
        coarse: the lattice for smooth fields.
        depth_mm: float32 on coarse, distance from the pleura, positive inside the lungs, mm.
    """

    hu: np.ndarray
    pleura: np.ndarray
    left: np.ndarray
    right: np.ndarray
    lung_box: tuple[slice, slice, slice]
    lung_region: tuple[tuple[float, float, float], tuple[float, float, float]]
    coarse: Grid
    depth_mm: np.ndarray

    def in_lungs(self, points: np.ndarray) -> np.ndarray:
        """Tell for points (N, 3) as (x, y, z), mm, whether they lie inside the lungs, to the coarse lattice's step."""
        place = np.rint((points[:, ::-1] - self.coarse.origin) / self.coarse.spacing).astype(int)
        inside = np.all((place >= 0) & (place < self.coarse.shape), axis=1)
        inside[inside] = self.depth_mm[tuple(place[inside].T)] > 0
        return inside

    def noise(self, rng: np.random.Generator, grid: Grid, step_mm: float) -> np.ndarray:
        """Random field without structure finer than about 2 step_mm, mean 0, sd about 1: float32, the lungs' box."""
        return smooth_noise(rng, grid, step_mm, self.lung_box, self.lung_region)


def build_anatomy(patient: Patient, grid: Grid, rng: np.random.Generator) -> Anatomy:
    """Draw everything but the lungs' inside."""
    rng, effusion_rng, plaque_rng = rng.spawn(3)
    coarse = Grid.coarse(grid.region)
    chest = chest_wall(patient, coarse)
    skin = skin_surface(patient, coarse)
    heart, chambers = heart_surfaces(patient, coarse)
    mediastinum = mediastinum_surface(patient, coarse, heart, rng)
    dome = above_diaphragm(patient, coarse)
    lungs = chest
    if "effusion" in patient.confounders:
        fluid = effusion_mm(patient, coarse, effusion_rng)
        lungs = chest - fluid
    depth = smooth_min(smooth_min(lungs, -mediastinum, 9.0), dome, 7.0)
    depth = (depth + 0.5 * smooth_noise(rng, coarse, 16.0)).astype(np.float32)

    hu = np.full(grid.shape, AIR_HU, np.float32)
    fill = Filler(hu, grid, coarse)
    arm_bones = draw_arms(patient, coarse, fill) if patient.arms == "down" else None
    fill(skin, (0, SKIN_HU), (2, FAT_HU))
    fill(muscle_surface(patient, coarse, chest, skin, rng), (0, muscle_hu(coarse, chest, rng)))
    fill(smooth_min(chest, skin - 4, 4.0), (0, FAT_HU + 4))
    if "effusion" in patient.confounders:
        fill(smooth_min(chest + 1, fluid - chest, 2.0), (0, EFFUSION_HU))
    fill_abdomen(patient, coarse, fill, smooth_min(chest, -dome, 6.0), rng)
    fill(heart, (0, patient.blood_hu + 6 + 0.3 * patient.contrast_hu))
    fill(chambers, (0, patient.blood_hu + patient.contrast_hu))
    draw_great_vessels(patient, grid, hu, plaque_rng)
    draw_bones(patient, grid, hu, arm_bones)

    pleura = grid.sample(coarse, in_voxels(depth, coarse, grid))
    side = _split_sides(patient, grid, pleura)
    to_share(pleura)
    left = pleura >= 0.5
    right = left & ~side
    left &= side
    z, y, x = np.nonzero(depth > -COARSE_MM)
    low, high = (
        three(coarse.origin[a] + COARSE_MM * float(edge) for a, edge in enumerate((pick(z), pick(y), pick(x))))
        for pick in (np.min, np.max)
    )
    return Anatomy(hu, pleura, left, right, grid.box(low, high), (low, high), coarse, depth)


def _split_sides(patient: Patient, grid: Grid, voxels: np.ndarray) -> np.ndarray:
    """Part the lungs in front of the heart, where only a thin sheet lies between them; return which side is left."""
    z, y, x = grid.mesh()
    u = z / patient.lung_height_mm
    centre = (4 + 10 * np.clip(0.55 - u, 0, 0.5)) * patient.scale + 0 * y
    half = (1.6 + 9 * np.clip((u - 0.66) / 0.3, 0, 1) + 12 * np.clip((0.45 - u) / 0.3, 0, 1)) * patient.scale
    middle = grid.box((-1e4, -1e4, -45), (1e4, 1e4, 60))
    columns = middle[2]
    apart = (np.abs(x[:, :, columns] - centre) - half) / np.float32(grid.spacing[2])
    np.minimum(voxels[:, :, columns], apart, out=voxels[:, :, columns])
    return x > centre
