"""Measure phantoms against the facts of chest CT, row by row; exit code 1 where a row is out of range.

    python benchmarks/phantom_realism.py                  100 patients, some minutes on 2 cores
    python benchmarks/phantom_realism.py --patients 12    a look, in under a minute; small samples may leave a range

Three cohorts are made: normal lungs (a quarter of the patients), mild disease as expert masks show it (a half), and
all grades in the shares of the paper (a quarter). A range is what the source gives, widened where a row says so by
what a sample of this size and the choice of scans may move it.

Beside the rows stands the shape of healthy lungs at any breath, in people's phantoms and in the wider world's, and in
the real scans of ../shared/data/real, where they are at hand. These have no range and no say in the exit code: the
default cohorts stay as they are, and the network for real scans learns from the wider world.
"""

import argparse
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from joblib import Parallel, delayed
from lung_randomiser import SPAN_HU, TISSUE_HU
from scipy import ndimage

from ggo_lab.lungs import find_lungs
from ggo_lab.lungs.coarse import Coarse
from ggo_lab.phantom import make_phantom
from ggo_lab.phantom.grid import Grid
from ggo_lab.phantom.mediastinum import AORTA
from ggo_lab.phantom.patient import sample_patient, seen_box
from ggo_lab.readers import read_scan
from ggo_lab.scan import Scan

REAL = Path(__file__).parents[2] / "shared" / "data" / "real"
REAL_SCANS = ("lctsc/LCTSC-Test-S1-10?.nii.gz", "lctsc/LCTSC-Test-S1-201.nii.gz", "lung_pet_ct_dx/*_B.nii.gz")
REAL_SCANS += ("lidc/*.nii.gz",)
_INNER_MM = 25.0  # of the right lung's outline seen from above: there the dome is looked for
_BRIGHT_HU, _RIM_MM, _DEEP_MM = 150, 5.0, 20.0  # above the lung's median; where the pleura's partial volume ends
_VESSELS_HU, _LAYER_MM, _PATCH_MM = -550, 9.0, 20.0  # denser is no parenchyma; under the pleura; sd of a local mean
GGO_BAND_HU = (-750, -300)
_OUTER_MM = 15.0  # of the lung, where disease counts as peripheral
_LEAST_PART_ML = 0.1
# The sources on healthy lungs scanned at full inspiration and routine dose.
AS_MEASURED = {"inspiration": 1.0, "dose": 1.0, "confounders": (), "contrast_hu": 0}


@dataclass(frozen=True)
class Row:
    """One measured number, the range it should lie in, and who says so."""

    name: str
    value: float
    low: float
    high: float
    source: str

    @property
    def fits(self) -> bool:
        return bool(self.low <= self.value <= self.high)


def measure_normal(seed: int) -> dict:
    """A healthy patient at the default shape: zones, gradient, volume, noise, vessels, emphysema index."""
    scan = make_phantom(involvement=0.0, seed=seed, **AS_MEASURED)
    hu, lungs = scan.hu, scan.truth.lungs
    z, y = (np.flatnonzero(lungs.any(axis=others)) for others in ((1, 2), (0, 2)))
    zones = []
    for slices in np.array_split(z, 3):
        for rows in np.array_split(y, 3):
            part = np.s_[slices[0] : slices[-1] + 1, rows[0] : rows[-1] + 1]
            zones.append(float(np.median(hu[part][lungs[part]])))
    zones = np.array(zones).reshape(3, 3)  # from base to apex, from front to back
    return {
        "zones": zones,
        "gradient": zones[:, 2] - zones[:, 0],
        "volume_l": lungs.sum() * scan.voxel_ml / 1000,
        "emphysema_index": np.mean(hu[lungs] < -950),
        "aorta_sd": aorta_sd(scan, seed),
    }


def aorta_sd(scan, seed: int) -> float:
    """Standard deviation in discs of 6 mm radius inside the descending aorta, HU: the mean over its slices."""
    patient = sample_patient(np.random.default_rng([seed, 1]), inspiration=1.0, contrast_hu=0, confounders=())
    grid = Grid.over(seen_box(patient, scan.truth.drawn["field_of_view_mm"]), scan.shape)
    x, y, z = patient.place(AORTA)[8, :3]
    rows, columns = (grid.axis(a) for a in (1, 2))
    disc = (rows[:, None] - y) ** 2 + (columns[None] - x) ** 2 < 6.0**2
    middle = round((z - grid.origin[0]) / grid.spacing[0])
    return float(np.mean([scan.hu[k][disc].std() for k in range(middle - 2, middle + 3)]))


def measure_texture(seed: int) -> dict:
    """A healthy patient in few slices of full resolution and 2 mm: local noise, and the HU-band exercise."""
    scan = make_phantom(involvement=0.0, seed=seed, shape=(16, 512, 512), slice_mm=2.0, arms="up", **AS_MEASURED)
    box = ndimage.find_objects(scan.truth.lungs.astype(np.uint8))[0]
    stored, lungs = scan.hu[box], scan.truth.lungs[box]
    hu = stored.astype(np.float32)
    mean, square = (np.stack([ndimage.uniform_filter(plane, 7) for plane in volume]) for volume in (hu, hu**2))
    sd = np.sqrt(np.maximum(square - mean**2, 0))
    window = np.ones((1, 9, 9), bool)
    soft = ndimage.binary_erosion((mean > 20) & (mean < 90) & (np.abs(hu - 50) < 150), window)
    inner = ndimage.binary_erosion(lungs, window)

    low, high = GGO_BAND_HU
    raw = np.mean((hu[lungs] > low) & (hu[lungs] < high))
    closed = ndimage.binary_closing(lungs, np.ones((1, 7, 7), bool))
    core = ndimage.binary_erosion(closed, np.ones((1, 7, 7), bool))  # 3 pixels on every side
    median = np.stack([ndimage.median_filter(plane, 7) for plane in stored])
    cleaned = np.mean((median[core] > low) & (median[core] < high))
    return {
        "pixel_mm": scan.spacing[2],
        "vessel_share": scan.truth.masks["vessels"].sum() / lungs.sum(),
        "soft_sd": np.median(sd[soft]),
        "lung_sd": np.median(sd[inner]),
        "band_raw": raw,
        "band_cleaned": cleaned,
    }


def measure_mild(seed: int) -> dict:
    """Mild disease on slices of 8 mm, as large as in expert masks: parts, sizes, places."""
    involvement = float(np.clip(np.exp(np.random.default_rng([seed, 99]).normal(np.log(0.0155), 0.72)), 0.003, 0.12))
    scan = make_phantom(involvement=involvement, seed=seed, shape=(36, 256, 256), slice_mm=8.0)
    truth = scan.truth
    labels, _ = ndimage.label(truth.lesions, np.ones((3, 3, 3)))
    sizes = np.bincount(labels.ravel())[1:] * scan.voxel_ml
    parts = sizes[sizes > _LEAST_PART_ML]
    lung_slices = truth.lungs.any(axis=(1, 2))
    sides = [(truth.lesions & truth.masks[side]).sum() * scan.voxel_ml for side in ("left_lung", "right_lung")]
    depth = ndimage.distance_transform_edt(truth.lungs, scan.spacing)
    outer = truth.lungs & (depth < _OUTER_MM)
    dense_outside, dense_inside = truth.lesions[outer].mean(), truth.lesions[truth.lungs & ~outer].mean()

    def hit(lobe):
        return (truth.lesions & truth.masks[lobe]).sum() * scan.voxel_ml > 0.5

    return {
        "count": len(parts),
        "total_ml": sizes.sum(),
        "largest_ml": parts.max(initial=0),
        "median_ml": np.median(parts) if len(parts) else 0.0,
        "slices": (truth.lesions.any(axis=(1, 2)) & lung_slices).sum() / lung_slices.sum(),
        "less_side": min(sides) / sum(sides),
        "bilateral": min(sides) > 0.5,
        "peripheral": dense_outside > 1.3 * dense_inside,
        "central_only": dense_outside < 0.1 * dense_inside,
        "right_lower": hit("right_lower_lobe"),
        "left_lower": hit("left_lower_lobe"),
    }


def measure_any(seed: int) -> dict:
    """A patient of any grade at the default shape: HU inside the lesions, and which patterns are there."""
    scan = make_phantom(seed=seed)
    inside = scan.hu[scan.truth.lesions]
    return {"percentiles": np.percentile(inside, (10, 50, 90)), "patterns": scan.truth.drawn["patterns"]}


def measure_shape(scan: Scan, right: np.ndarray, left: np.ndarray) -> dict:
    """What can be measured alike in phantoms and people: recess, chest, vessels, density, on a lattice of 3 mm."""
    coarse = Coarse.of(scan)
    right, left = coarse.shrink(right), coarse.shrink(left)
    lungs = right | left
    footprint = right.any(axis=0)
    inner = ndimage.distance_transform_edt(footprint, coarse.spacing[1:]) > _INNER_MM
    lowest = right.argmax(axis=0) * coarse.spacing[0]
    y, x = (np.flatnonzero(lungs.any(axis=others)) for others in ((0, 2), (0, 1)))
    median = np.median(coarse.hu[lungs])
    depth = np.stack([ndimage.distance_transform_edt(plane, coarse.spacing[1:]) for plane in lungs])
    bright = coarse.hu > median + _BRIGHT_HU
    outer, deep = lungs & (depth > _RIM_MM) & (depth <= _DEEP_MM), lungs & (depth > _DEEP_MM)
    return {
        "right lung below its dome, mm": lowest[inner].max(initial=0.0) - lowest[footprint].min(),
        "lungs front to back / right to left": len(y) * coarse.spacing[1] / (len(x) * coarse.spacing[2]),
        "lungs' width / picture's width": len(x) * coarse.spacing[2] / (scan.shape[2] * scan.spacing[2]),
        "median HU of the lungs": median,
        "bright, 5 to 20 mm under the pleura, %": 100 * bright[outer].mean(),
        "bright, deeper, %": 100 * bright[deep].mean(),
        **measure_air(coarse, lungs, depth),
    }


def measure_air(coarse: Coarse, lungs: np.ndarray, depth: np.ndarray) -> dict:
    """Measure how evenly air fills what is neither vessel nor near the pleura, % of the mean there.

    Args:
        coarse: the scan on its lattice.
        lungs: bool (z, y, x), both.
        depth: (z, y, x), mm from the lungs' border, in the slice.
    """
    air = (TISSUE_HU - coarse.hu) / SPAN_HU
    inner = lungs & (depth > _LAYER_MM) & (coarse.hu < _VESSELS_HU)
    layer = lungs & (depth > _LAYER_MM / 2) & (depth <= _LAYER_MM) & (coarse.hu < _VESSELS_HU)
    mean = air[inner].mean()
    places = [where * step / 100 for where, step in zip(np.nonzero(inner), coarse.spacing, strict=True)][:2]
    axes = np.column_stack([np.ones(inner.sum()), *places])  # upwards, and from front to back
    relative = air[inner] / mean
    plane = np.linalg.lstsq(axes, relative, rcond=None)[0]
    local = np.zeros(air.shape)
    local[inner] = relative - axes @ plane
    sigma = [_PATCH_MM / step for step in coarse.spacing]
    weight = ndimage.gaussian_filter(inner.astype(np.float32), sigma)
    local = ndimage.gaussian_filter(local, sigma)[inner] / weight[inner]
    return {
        "air lost from front to back, % in 10 cm": -100 * plane[2],
        "local mean of air (20 mm), sd, %": 100 * local.std(),
        "air lost 4.5 to 9 mm under the pleura, %": 100 * (1 - air[layer].mean() / mean),
    }


def shape_of_phantom(seed: int, world: str) -> dict:
    """A healthy patient at any breath."""
    scan = make_phantom(involvement=0.0, seed=seed, shape=(64, 192, 192), confounders=(), world=world)
    return measure_shape(scan, scan.truth.masks["right_lung"], scan.truth.masks["left_lung"])


def shapes(seeds: range, jobs: int) -> None:
    """Print phantoms' shapes beside those of real scans: the smallest, the median and the largest."""
    worlds = {
        world: Parallel(jobs)(delayed(shape_of_phantom)(seed, world) for seed in seeds) for world in ("people", "wide")
    }
    real = []
    for path in sorted(path for pattern in REAL_SCANS for path in REAL.glob(pattern) if "_lungs" not in path.name):
        scan = read_scan(path)
        lungs = find_lungs(scan, "both")
        real.append(measure_shape(scan, lungs.right, lungs.left))
    columns = {"people": worlds["people"], "wide world": worlds["wide"], f"{len(real)} real scans": real}
    print("\nHealthy lungs at any breath: smallest, median, largest")
    print(f"{'':42s}" + "".join(f"{name:>26s}" for name in columns))
    for name in worlds["people"][0]:
        cells = []
        for found in columns.values():
            values = [one[name] for one in found] or [np.nan]
            cells.append("".join(f"{np.nanpercentile(values, which):8.4g}" for which in (0, 50, 100)))
        print(f"{name:42s}" + "".join(f"{cell:>26s}" for cell in cells))


def rows_of(normals: list, textures: list, mild: list, graded: list) -> list[Row]:
    """Summarise the cohorts against their ranges."""

    def column(cohort, key):
        return np.array([patient[key] for patient in cohort])

    def percentile(cohort, key, which):
        return float(np.percentile(column(cohort, key), which))

    gradient, volumes = column(normals, "gradient"), column(normals, "volume_l")
    steeper = np.mean(gradient[:, 0] > gradient[:, 2])
    emphysema, vessels = percentile(normals, "emphysema_index", 50), percentile(textures, "vessel_share", 50)
    aorta = [percentile(normals, "aorta_sd", which) for which in (10, 90)]
    soft, lung = percentile(textures, "soft_sd", 50), percentile(textures, "lung_sd", 50)
    raw, cleaned = percentile(textures, "band_raw", 50), percentile(textures, "band_cleaned", 50)
    two, real = "two real normal scans", "six real scans"
    rows = [
        Row("pixel of 512 x 512 slices, median, mm", percentile(textures, "pixel_mm", 50), 0.59, 0.75, "collections"),
        Row("median HU of a lung zone, 5th percentile", percentile(normals, "zones", 5), -915, -870, f"-901, {two}"),
        Row("median HU of a lung zone, 95th percentile", percentile(normals, "zones", 95), -850, -800, f"-826, {two}"),
        Row("rise from front to back, median, HU", np.median(gradient), 12, 57, two),
        Row("steeper at the base than at the apex, share", steeper, 0.6, 1, two),
        Row("lung volume, mean, L", volumes.mean(), 3.57, 4.57, "4.07 supine, +- 2 standard errors of 25"),
        Row("lung volume, sd, L", volumes.std(), 0.75, 1.6, "1.19 supine"),
        Row("share below -950 HU, median", emphysema, 0.002, 0.02, "non-smokers"),
        Row("vessels' share of lung volume, median", vessels, 0.02, 0.06, "from memory: 2-5% by CT"),
        Row("noise sd in the aorta, 10th percentile, HU", aorta[0], 8, 16, "11.4, model-based"),
        Row("noise sd in the aorta, 90th percentile, HU", aorta[1], 25, 40, "37.5, filtered back projection"),
        Row("local 7x7 sd in soft tissue, median, HU", soft, 16, 29, "real 2 mm scans"),
        Row("local 7x7 sd in lung, median, HU", lung, 20, 32, "real 2 mm scans"),
        Row("normal lung in -750..-300 HU, raw, median", raw, 0.10, 0.16, real),
        Row("the same after erosion and median filter", cleaned, 0.04, 0.06, real),
    ]

    masks = "25 expert masks"
    for key, name, published in (
        ("count", "parts above 0.1 mL in mild disease", (4, 11, 31)),
        ("total_ml", "lesions together, mL", (24, 62, 159)),
        ("largest_ml", "largest part, mL", (8, 22, 110)),
        ("median_ml", "median part, mL", (0.4, 0.8, 3.0)),
        ("slices", "share of the slices touched", (0.15, 0.54, 0.72)),
        ("less_side", "share on the less affected side", (0.02, 0.30, 0.44)),
    ):
        for which, expected in zip((10, 50, 90), published, strict=True):
            # Extremes of 25 scans are known far less well than their median.
            loose = 1.6 if which == 50 else 2.2
            low = 0.0 if (key, which) == ("less_side", 10) else expected / loose
            found = percentile(mild, key, which)
            rows.append(Row(f"{name}, {which}th percentile", found, low, expected * loose, f"{expected}, {masks}"))

    inside = column(graded, "percentiles").mean(axis=0)
    for which, value, expected, margin in zip((10, 50, 90), inside, (-775, -614, -147), (45, 45, 130), strict=True):
        low, high = expected - margin, expected + margin
        rows.append(Row(f"HU inside lesions, {which}th percentile", value, low, high, f"{expected}, real lesions"))
    for key, name, share in (
        ("bilateral", "both lungs", 0.79),
        ("peripheral", "peripheral", 0.70),
        ("central_only", "only central", 0.04),
        ("right_lower", "right lower lobe", 0.87),
        ("left_lower", "left lower lobe", 0.76),
    ):
        rows.append(_share_row(f"{name}, share of mild scans", column(mild, key), share))
    for pattern, share in (
        ("crazy_paving", 0.43),
        ("consolidation", 0.49),
        ("air_bronchogram", 0.35),
        ("subpleural_bands", 0.53),
    ):
        seen = np.array([pattern in patient["patterns"] for patient in graded])
        rows.append(_share_row(f"{pattern.replace('_', ' ')}, share of all scans", seen, share))
    return rows


def _share_row(name: str, seen: np.ndarray, share: float) -> Row:
    """A frequency with the published share, give or take 2 standard errors and 5 points between series."""
    margin = 2 * np.sqrt(share * (1 - share) / len(seen)) + 0.05
    return Row(name, float(seen.mean()), max(share - margin, 0), min(share + margin, 1), f"{share:.0%} published")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--patients", type=int, default=100, help="of all three cohorts together (default 100)")
    parser.add_argument("--seed", type=int, default=0, help="of the first patient (default 0)")
    parser.add_argument("--jobs", type=int, default=-1, help="processes (default: one for each core)")
    options = parser.parse_args()
    quarter = max(3, options.patients // 4)
    sizes = (("normal", measure_normal, quarter), ("texture", measure_texture, max(3, quarter // 2)))
    sizes += (("mild", measure_mild, 2 * quarter), ("any", measure_any, quarter))
    tasks = [(measure, options.seed + i) for _, measure, count in sizes for i in range(count)]
    found = Parallel(options.jobs)(delayed(measure)(seed) for measure, seed in tasks)
    cohorts, start = [], 0
    for _, _, count in sizes:
        cohorts.append(found[start : start + count])
        start += count
    rows = rows_of(*cohorts)
    print(f"{'':55s}{'phantom':>10s}  {'range':20s} source")
    for row in rows:
        span = f"{row.low:.4g} to {row.high:.4g}"
        print(f"{'  ' if row.fits else '! '}{row.name:53s}{row.value:10.4g}  {span:20s} {row.source}")
    out = sum(not row.fits for row in rows)
    print(f"{len(rows) - out} of {len(rows)} rows in range ({4 * quarter} patients)")
    shapes(range(options.seed, options.seed + quarter), options.jobs)
    return 1 if out else 0


if __name__ == "__main__":
    sys.exit(main())
