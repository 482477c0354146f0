"""The procedural chest CT: anatomy in its place, truth that agrees with itself, disease as asked, the same bytes."""

import hashlib
import os
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
from scipy import ndimage

from ggo_lab.errors import ChoiceError
from ggo_lab.phantom import make_phantom
from ggo_lab.phantom.anatomy import build_anatomy
from ggo_lab.phantom.grid import Grid
from ggo_lab.phantom.lesions import PATTERNS, sample_disease
from ggo_lab.phantom.lobes import LOBES
from ggo_lab.phantom.parenchyma import parenchyma
from ggo_lab.phantom.patient import sample_patient, seen_box
from ggo_lab.phantom.shapes import Filler
from ggo_lab.phantom.stamps import stamp
from ggo_lab.scan import PADDING_HU
from ggo_lab.tasks import GGO_SEVERITY

SMALL = (32, 96, 96)


@pytest.fixture(scope="module")
def normal():
    """A scan without lesions, at a size where anatomy is well resolved."""
    return make_phantom(involvement=0.0, seed=11, shape=(64, 160, 160))


@pytest.fixture(scope="module")
def severe():
    return make_phantom(grade=3, seed=5, shape=SMALL)


@pytest.fixture(scope="module")
def crowd():
    """Scans of twelve patients whose grade was left to chance."""
    return [make_phantom(seed=seed, shape=(16, 48, 48)) for seed in range(12)]


@pytest.fixture(scope="module")
def eight():
    """Scans of eight patients, in few voxels."""
    return [make_phantom(grade=2, seed=seed, shape=(8, 48, 48)) for seed in range(8)]


def digest(scan) -> str:
    truth = scan.truth
    arrays = (scan.hu, truth.lungs, truth.lesions, *truth.masks.values())
    return hashlib.sha256(b"".join(array.tobytes() for array in arrays)).hexdigest()


def test_a_phantom_is_a_scan_in_hu(severe):
    assert severe.hu.dtype == np.int16
    assert severe.shape == SMALL
    assert severe.name == "phantom-5"
    assert severe.is_hu
    seen = severe.hu[~severe.padding]
    assert seen.min() >= -1024
    assert 350 < seen.max() <= 3071
    outside_air = severe.hu[:, 1:5, 44:52]
    assert abs(np.median(outside_air) + 1000) < 15
    assert 1.5 < severe.spacing[1] == severe.spacing[2] < 4.0


def test_axes_are_canonical(normal):
    hu, truth = normal.hu, normal.truth
    columns = np.arange(hu.shape[2])
    centre = {
        side: np.average(columns, weights=truth.masks[side].sum(axis=(0, 1))) for side in ("right_lung", "left_lung")
    }
    assert centre["right_lung"] < hu.shape[2] / 2 < centre["left_lung"]

    # The lowest tenth of the lungs' height lies in the belly: liver (soft tissue) on the right, the stomach's air left.
    z = np.flatnonzero(truth.lungs.any(axis=(1, 2)))
    belly = hu[z[0] : z[0] + (z[-1] - z[0]) // 5]
    middle = hu.shape[2] // 2
    liver_like = (belly > 30) & (belly < 90)
    assert liver_like[:, :, :middle].sum() > liver_like[:, :, middle:].sum()

    # The trachea, and no air tube, stands above the lungs' middle: the head is at the end of axis 0.
    airways = np.flatnonzero(truth.masks["airways"].any(axis=(1, 2)))
    assert airways[-1] >= z[-1] - 2
    # The spine's bone lies behind, the breastbone in front.
    bone = (hu[len(hu) // 2] > 250).sum(axis=1)
    rows = np.arange(hu.shape[1])
    assert np.average(rows, weights=bone) > np.average(rows, weights=truth.lungs.sum(axis=(0, 2)))


def test_the_heart_leans_to_the_left(normal):
    truth = normal.truth
    z = np.flatnonzero(truth.lungs.any(axis=(1, 2)))
    level = z[0] + int(0.38 * (z[-1] - z[0]))
    lungs = truth.lungs[level]
    rows = np.flatnonzero(lungs.any(axis=1))
    front = slice(rows[0], (rows[0] + rows[-1]) // 2)
    area = {side: truth.masks[side][level, front].sum() for side in ("left_lung", "right_lung")}
    assert area["left_lung"] < area["right_lung"]


def test_the_trachea_divides_into_two_bronchi(normal):
    airways = normal.truth.masks["airways"]
    top = np.flatnonzero(airways.any(axis=(1, 2)))[-1]
    assert ndimage.label(airways[top])[1] == 1
    middle = airways.shape[2] // 2
    below = airways[: int(0.55 * len(airways))]
    assert below[:, :, :middle].any() and below[:, :, middle:].any()


@pytest.mark.parametrize("involvement", [0.004, 0.25, 0.5, 0.75, 0.97])
def test_the_asked_involvement_is_met(involvement):
    truth = make_phantom(involvement=involvement, seed=round(100 * involvement), shape=(24, 80, 80)).truth
    assert truth.involvement == truth.lesions.sum() / truth.lungs.sum()
    assert abs(truth.involvement - involvement) < 0.01


@pytest.mark.parametrize("label", range(4))
def test_a_grade_is_met_away_from_the_band_edges(label):
    truth = make_phantom(grade=GGO_SEVERITY.numbers[label], seed=1, shape=(16, 64, 64)).truth
    low, high = GGO_SEVERITY.band(label)
    assert low + 0.015 < truth.involvement < high - 0.015


def test_grades_left_to_chance_follow_the_paper(crowd):
    counts = np.bincount([GGO_SEVERITY.label_from_involvement(scan.truth.involvement) for scan in crowd], minlength=4)
    assert (counts[:3] > 1).all()
    assert counts[3] <= counts[:3].min()


def test_truth_masks_agree(severe):
    truth = severe.truth
    masks = truth.masks
    assert set(masks) == {"airways", "vessels", "left_lung", "right_lung", "ggo", "consolidation", *LOBES}
    for mask in (truth.lungs, truth.lesions, *masks.values()):
        assert mask.shape == severe.shape and mask.dtype == bool
    assert not (truth.lesions & ~truth.lungs).any()
    assert not (masks["consolidation"] & ~truth.lesions).any()
    assert not (masks["vessels"] & ~truth.lungs).any()
    assert not (masks["airways"] & truth.lungs).any()
    assert np.array_equal(masks["ggo"] | masks["consolidation"], truth.lesions)
    assert not (masks["ggo"] & masks["consolidation"]).any()
    assert not (masks["left_lung"] & masks["right_lung"]).any()
    assert np.array_equal(masks["left_lung"] | masks["right_lung"], truth.lungs)
    assert min(masks["left_lung"].sum(), masks["right_lung"].sum()) > 0.33 * truth.lungs.sum()


def test_tissues_have_their_attenuation(normal):
    hu, masks = normal.hu, normal.truth.masks
    assert np.median(hu[masks["airways"]]) < -850
    assert -920 < np.median(hu[normal.truth.lungs]) < -800
    assert 0.005 < masks["vessels"].sum() / normal.truth.lungs.sum() < 0.08
    z = np.flatnonzero(normal.truth.lungs.any(axis=(1, 2)))
    belly = hu[z[0], :, : hu.shape[2] // 2]
    assert 35 < np.median(belly[(belly > 0) & (belly < 120)]) < 70


def test_the_lung_is_denser_at_the_back(normal):
    lungs = normal.truth.lungs
    rows = np.flatnonzero(lungs.any(axis=(0, 2)))
    third = len(rows) // 3
    front, back = (np.median(normal.hu[:, part][lungs[:, part]]) for part in (rows[:third], rows[-third:]))
    assert 5 < back - front < 90


@pytest.fixture(scope="module")
def six():
    """Scans of six patients with an eighth of their lungs ill."""
    return [make_phantom(involvement=0.125, seed=seed, shape=(24, 80, 80), confounders=()) for seed in range(6)]


def test_lesions_are_ground_glass(six):
    tenth, median, ninetieth = np.percentile(
        np.concatenate([scan.hu[scan.truth.lesions] for scan in six]), [10, 50, 90]
    )
    # On real scans -775, -614 and -147 HU.
    assert -830 < tenth < -700
    assert -690 < median < -520
    assert -480 < ninetieth < -50


def test_lesions_prefer_the_back_and_both_lungs(six):
    back, shares = [], []
    for truth in (scan.truth for scan in six):
        rows = np.arange(80)
        centre = np.average(rows, weights=truth.lungs.sum(axis=(0, 2)))
        back.append(np.average(rows, weights=truth.lesions.sum(axis=(0, 2))) - centre)
        left = (truth.lesions & truth.masks["left_lung"]).sum() / truth.lesions.sum()
        shares.append(min(left, 1 - left))
    assert np.mean(back) > 2
    assert np.mean(np.array(shares) > 0.02) >= 0.6


def test_lesions_end_at_the_oblique_fissure(six):
    """A step across the fissure changes from ill to healthy more often than a step a little behind it."""
    across = beside = 0
    for truth in (scan.truth for scan in six):
        lower = truth.masks["right_lower_lobe"]
        upper = truth.masks["right_upper_lobe"] | truth.masks["right_middle_lobe"]
        step = truth.lesions[:, :-1] != truth.lesions[:, 1:]
        fissure = upper[:, :-1] & lower[:, 1:]
        behind = np.zeros_like(fissure)
        behind[:, 3:] = fissure[:, :-3]
        behind &= lower[:, :-1] & lower[:, 1:]
        across += step[fissure].mean()
        beside += step[behind].mean()
    assert across > 1.5 * beside


def test_a_normal_scan_has_no_lesion(normal):
    truth = normal.truth
    assert truth.involvement == 0.0
    assert not truth.lesions.any() and not truth.masks["consolidation"].any()


def test_lung_volumes_are_adult(crowd):
    litres = [scan.truth.lungs.sum() * scan.voxel_ml / 1000 for scan in crowd]
    assert min(litres) > 1.3
    assert max(litres) < 7.5
    assert 3.2 < np.mean(litres) < 5.0
    assert np.std(litres) > 0.4


def test_disease_leaves_patient_and_scanner_alone():
    mild, critical = (make_phantom(grade=grade, seed=8, shape=SMALL) for grade in (1, 4))
    assert mild.spacing == critical.spacing
    assert np.array_equal(mild.truth.lungs, critical.truth.lungs)
    outside = ~mild.truth.lungs & ~mild.truth.masks["airways"]
    far = ndimage.binary_erosion(outside, iterations=5)
    assert np.array_equal(mild.hu[far], critical.hu[far])


def test_every_seed_is_another_patient(eight):
    drawn = [scan.truth.drawn for scan in eight]
    assert len({choice["lung_volume_l"] for choice in drawn}) == 8
    assert {choice["sex"] for choice in drawn} == {"female", "male"}
    assert {choice["padded"] for choice in drawn} == {True, False}


def test_some_scanners_pad_the_corners(eight):
    for scan in eight:
        assert bool((scan.hu[:, 0, 0] == PADDING_HU).all()) == scan.truth.drawn["padded"] == bool(scan.padding.any())


@pytest.mark.parametrize("without", ["", "X86_V4 AVX512_ICL AVX512_SKX", "X86_V3 X86_V4 AVX2 AVX512_ICL AVX512_SKX"])
def test_the_same_seed_gives_the_same_bytes_on_any_processor(without):
    """In another process, and with NumPy kept from the wider vector units, whose exp and powers end in other bits."""
    code = (
        "import sys; sys.path.insert(0, 'tests'); from test_phantom import digest; "
        "from ggo_lab.phantom import make_phantom; print(digest(make_phantom(seed=21, shape=(16, 64, 64))))"
    )
    environment = os.environ | {"NPY_DISABLE_CPU_FEATURES": without}  # what a processor lacks is ignored
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment)
    make_phantom(seed=3, shape=(8, 32, 32))  # what was made before must not matter
    assert digest(make_phantom(seed=21, shape=(16, 64, 64))) == run.stdout.strip()


def test_another_seed_gives_other_bytes():
    assert digest(make_phantom(seed=21, shape=(8, 32, 32))) != digest(make_phantom(seed=22, shape=(8, 32, 32)))


@pytest.mark.parametrize("shape", [(9, 33, 57), (50, 40, 64), (20, 90, 48)])
def test_any_shape_shows_the_whole_patient(shape):
    scan = make_phantom(grade=2, seed=4, shape=shape)
    assert scan.shape == shape
    volume = scan.truth.lungs.sum() * scan.voxel_ml / 1000
    assert volume == pytest.approx(scan.truth.drawn["lung_volume_l"], rel=0.15)


@pytest.mark.parametrize("side, lobes", [("right_lung", LOBES[:3]), ("left_lung", LOBES[3:])])
def test_lobes_partition_each_lung(severe, side, lobes):
    masks = severe.truth.masks
    times = sum(masks[lobe].astype(int) for lobe in lobes)
    assert np.array_equal(times, masks[side].astype(int))
    # Published shares of the lungs' volume: right middle lobe about 8-10%, every other lobe 15-30%.
    for lobe in lobes:
        share = masks[lobe].sum() / severe.truth.lungs.sum()
        assert (0.04 if "middle" in lobe else 0.12) < share < (0.16 if "middle" in lobe else 0.36)


def test_involvement_is_told_for_each_lung_and_lobe(severe):
    parts = severe.truth.drawn["involvement_by_part"]
    assert set(parts) == {"left_lung", "right_lung", *LOBES}
    for part, share in parts.items():
        mask = severe.truth.masks[part]
        assert share == pytest.approx((severe.truth.lesions & mask).sum() / mask.sum(), abs=1e-4)


CHOICES = {
    "grade": 2,
    "seed": 6,
    "shape": SMALL,
    "arms": "up",
    "contrast_hu": 0,
    "confounders": (),
    "distribution": "multifocal",
    "patterns": (),
    "kernel": "standard",
    "slice_mm": 5.0,
    "noise_hu": 12,
    "padded": False,
}


@pytest.fixture(scope="module")
def plain():
    """A scan with every choice made, to compare others with."""
    return make_phantom(**CHOICES)


def another(**changes):
    return make_phantom(**(CHOICES | changes))


def test_choices_are_kept(plain):
    drawn = plain.truth.drawn
    for name in ("arms", "contrast_hu", "confounders", "distribution", "patterns", "kernel", "slice_mm", "noise_hu"):
        assert drawn[name] == CHOICES[name], name


def test_one_choice_changes_no_other():
    drawn = make_phantom(seed=9, shape=(8, 32, 32)).truth.drawn
    for name, value in {
        "sex": "male",
        "arms": "down",
        "contrast_hu": 150.0,
        "kernel": "sharp",
        "noise_hu": 33.0,
        "age_years": 71,
        "field_of_view_mm": 480.0,
    }.items():
        changed = make_phantom(seed=9, shape=(8, 32, 32), **{name: value}).truth.drawn
        follow = {name, "involvement_by_part"}
        if name == "sex":  # size, breasts and muscles follow the sex
            follow |= {key for key in drawn if key.endswith("_mm") or key in ("scale", "lung_volume_l")}
        if name == "arms":
            follow |= {"field_of_view_mm"}
        assert {key: drawn[key] for key in drawn if key not in follow} == {
            key: changed[key] for key in drawn if key not in follow
        }, name


def test_sex_and_lung_volume_are_seen():
    big, small = (
        make_phantom(involvement=0, seed=2, shape=(24, 64, 64), sex=sex, lung_volume_l=litres)
        for sex, litres in (("male", 5.5), ("female", 2.5))
    )
    assert big.truth.lungs.sum() * big.voxel_ml == pytest.approx(5500, rel=0.12)
    assert small.truth.lungs.sum() * small.voxel_ml == pytest.approx(2500, rel=0.12)
    assert big.truth.drawn["breast_mm"] == 0 < small.truth.drawn["breast_mm"]


def test_a_shallow_breath_leaves_a_smaller_denser_lung_with_the_same_tissue():
    full, shallow = (
        make_phantom(involvement=0, seed=2, shape=(24, 64, 64), inspiration=share, confounders=()) for share in (1, 0.6)
    )
    litres = [scan.truth.lungs.sum() * scan.voxel_ml / 1000 for scan in (full, shallow)]
    assert litres[1] == pytest.approx(0.6 * litres[0], rel=0.12)
    inside = [ndimage.binary_erosion(scan.truth.lungs & ~scan.truth.masks["vessels"]) for scan in (full, shallow)]
    density = [np.median(scan.hu[mask]) + 1000 for scan, mask in zip((full, shallow), inside, strict=True)]
    assert density[1] == pytest.approx(density[0] / 0.6, rel=0.15)
    assert full.truth.drawn["sex"] == shallow.truth.drawn["sex"]


def test_age_thins_the_marrow_and_hardens_the_aorta(plain):
    young, old = (another(grade=None, involvement=0.0, age_years=age, noise_hu=0) for age in (25, 85))
    assert np.array_equal(young.truth.lungs, old.truth.lungs)
    change = old.hu.astype(int) - young.hu
    marrow = (young.hu > 150) & (young.hu < 280)
    assert np.median(change[marrow]) < -20
    assert (change > 100).sum() * plain.voxel_ml > 1  # plaques, and cartilage that took up calcium


def test_less_dose_is_more_noise():
    def spread(**choices):
        scan = make_phantom(involvement=0, seed=3, shape=(8, 96, 96), confounders=(), **choices)
        return scan.truth.drawn["noise_hu"]

    assert 1.4 < spread(dose=0.25) / spread(dose=1) < 2.2  # the published rise is 1.4 to 2.1, by reconstruction
    assert spread(dose=0.25, noise_hu=20) == 20


def test_the_field_of_view_sets_the_pixel_and_may_cut_the_body_but_not_the_lungs(plain):
    wide, narrow = another(field_of_view_mm=500), another(field_of_view_mm=290)
    columns = SMALL[2]
    assert wide.spacing[2] == pytest.approx(500 / columns) and narrow.spacing[2] == pytest.approx(290 / columns)
    volumes = [scan.truth.lungs.sum() * scan.voxel_ml for scan in (plain, wide, narrow)]
    assert max(volumes) < 1.03 * min(volumes)
    middle = len(narrow.hu) // 2
    assert (narrow.hu[middle, columns // 2, [0, -1]] > -300).any() and (wide.hu[middle, :, [0, -1]] < -300).all()
    assert not narrow.truth.lungs[:, :, [0, -1]].any()
    with pytest.raises(ChoiceError, match="for the lungs of this patient"):
        another(field_of_view_mm=150)


def test_some_mild_disease_keeps_to_one_level_and_spreads_later():
    def preference(involvement):
        drawn = [sample_disease(np.random.default_rng(seed), involvement).level_preference for seed in range(200)]
        return np.mean(np.array(drawn) > 0)

    assert 0.3 < preference(0.05) < 0.6
    assert preference(0.4) == 0


def test_arms_lie_beside_the_chest(plain):
    down = another(arms="down")
    assert down.spacing[1] > plain.spacing[1]
    # Beside the chest at the lungs' middle height there is air, or an arm with its bone.
    z = np.flatnonzero(down.truth.lungs.any(axis=(1, 2)))
    middle = down.hu[(z[0] + z[-1]) // 2]
    pieces, count = ndimage.label(ndimage.binary_opening(middle > -300, iterations=2))
    large = [np.flatnonzero((pieces == i).any(axis=0)) for i in range(1, count + 1) if (pieces == i).sum() > 60]
    bone = middle > 250
    x_lungs = np.flatnonzero(down.truth.lungs.any(axis=(0, 1)))
    margin = round(35 / down.spacing[2])
    assert bone[:, : x_lungs[0] - margin].any() and bone[:, x_lungs[-1] + margin :].any()
    assert large and not (plain.hu[len(plain.hu) // 2, :, :4] > 250).any()


def test_contrast_brightens_the_blood(plain):
    bright = another(contrast_hu=200)
    change = bright.hu.astype(int) - plain.hu
    assert change[plain.truth.masks["vessels"]].mean() > 60
    assert (change > 150).sum() * plain.voxel_ml > 150  # heart and aorta
    far = ndimage.binary_erosion(plain.hu < -950, iterations=2)
    assert abs(change[far].mean()) < 1


def test_emphysema_makes_holes(plain):
    ill = another(involvement=0.0, grade=None, confounders="emphysema")
    well = another(involvement=0.0, grade=None)
    index = [np.mean(scan.hu[scan.truth.lungs] < -950) for scan in (well, ill)]
    assert index[0] < 0.02 and index[1] > index[0] + 0.02
    assert not ill.truth.lesions.any()
    upper = ill.truth.masks["right_upper_lobe"]
    lower = ill.truth.masks["right_lower_lobe"]
    assert np.mean(ill.hu[upper] < -950) > np.mean(ill.hu[lower] < -950)


def test_dependent_atelectasis_lies_at_the_back_and_is_no_lesion(plain):
    ill, well = (another(grade=None, involvement=0.0, confounders=c) for c in (("dependent_atelectasis",), ()))
    change = np.where(well.truth.lungs, ill.hu.astype(int) - well.hu, 0)
    rows = np.flatnonzero(well.truth.lungs.any(axis=(0, 2)))
    half = (rows[0] + rows[-1]) // 2
    assert (change[:, half:] > 150).sum() * well.voxel_ml > 15
    assert (change[:, :half] > 150).sum() < 0.02 * (change[:, half:] > 150).sum()
    assert ill.truth.involvement == 0


def test_an_effusion_takes_room_from_the_lung(plain):
    ill, well = (another(grade=None, involvement=0.0, confounders=c) for c in (("effusion",), ()))
    lost = well.truth.lungs & ~ill.truth.lungs
    assert 40 < lost.sum() * well.voxel_ml < 700
    assert -20 < np.median(ill.hu[ndimage.binary_erosion(lost)]) < 40
    rows = np.arange(well.shape[1])
    assert np.average(rows, weights=lost.sum(axis=(0, 2))) > np.average(rows, weights=well.truth.lungs.sum(axis=(0, 2)))


def test_motion_is_seen_near_the_heart_only(plain):
    moved = another(confounders="motion")
    change = np.abs(moved.hu.astype(int) - plain.hu) > 50
    assert change.sum() > 50
    columns = np.arange(plain.shape[2])
    assert np.average(columns, weights=change.sum(axis=(0, 1))) > plain.shape[2] / 2
    assert not change[:, :, : plain.shape[2] // 3].any()
    assert np.array_equal(moved.truth.lesions, plain.truth.lesions)


def test_calcified_nodules_are_small_and_bright(plain):
    change = another(confounders="nodules").hu.astype(int) - plain.hu > 150
    count = ndimage.label(change)[1]
    assert 1 <= count <= 4
    assert change.sum() * plain.voxel_ml < 2
    assert plain.truth.lungs[change].all()


def test_thick_slices_blur_small_vessels():
    contrast = [
        scan.hu[ndimage.binary_erosion(scan.truth.lungs, iterations=2)].std()
        for scan in (another(slice_mm=slice_mm, noise_hu=0, grade=None, involvement=0.0) for slice_mm in (1.0, 10.0))
    ]
    assert contrast[1] < 0.95 * contrast[0]


@pytest.mark.parametrize("slice_mm, blended_mm", [(1.0, 2.5), (8.0, 8.0)])
def test_a_slice_averages_over_its_thickness(slice_mm, blended_mm):
    """A flat surface is blended over the slice's thickness, an upright one over a pixel whatever the slice."""
    region = ((-20.0, -20.0, -20.0), (20.0, 20.0, 20.0))
    grid, coarse = Grid.over(region, (40, 40, 40), slice_mm), Grid.coarse(region)
    for axis, expected in ((0, slice_mm), (2, 1.0)):
        hu = np.zeros(grid.shape, np.float32)
        distance = np.broadcast_to(coarse.mesh()[axis] + 0.25, coarse.shape)
        Filler(hu, grid, coarse)(distance, (0, 1.0))
        line = hu.max(axis=tuple(a for a in range(3) if a != axis))
        assert (line * (1 - line)).sum() == pytest.approx(expected / 6, rel=0.15)  # a ramp of that width
    ball = stamp(grid, np.zeros((1, 3)), np.array([0.6]))
    z = np.unravel_index(ball.voxels, grid.shape)[0]
    assert np.ptp(z) + 1 == pytest.approx(blended_mm, abs=1.5)


@pytest.fixture(scope="module")
def by_kernel():
    """One scan without and one with noise of 30 HU for each kernel, in pixels small enough to tell kernels apart."""
    return {
        kernel: [
            another(kernel=kernel, noise_hu=noise_hu, shape=(8, 224, 224)).hu.astype(float) for noise_hu in (0, 30)
        ]
        for kernel in ("smooth", "standard", "sharp")
    }


def test_kernels_differ_in_sharpness(by_kernel):
    edges = [np.percentile(np.abs(np.diff(clean, axis=2)), 99.5) for clean, _ in by_kernel.values()]
    assert edges[0] < edges[1] < edges[2]


def test_smooth_kernels_have_coarser_noise(by_kernel):
    likeness = []
    for clean, noisy in by_kernel.values():
        noise = (noisy - clean)[:, 90:140, 90:140]
        likeness.append(np.corrcoef(noise[:, :, 1:].ravel(), noise[:, :, :-1].ravel())[0, 1])
    assert likeness[0] > likeness[2] + 0.1


def test_noise_has_the_asked_sd():
    noise_hu = 25
    change = another(noise_hu=noise_hu).hu.astype(int) - another(noise_hu=0).hu
    middle = change[:, 36:60, 36:60]
    assert middle.std() == pytest.approx(noise_hu, rel=0.12, abs=0.01)


def test_jpg_quality_keeps_an_estimate_of_the_hu(plain):
    grey = another(quality="jpg")
    assert not grey.is_hu and grey.notes
    assert len(np.unique(grey.hu)) <= 256
    assert grey.hu.min() >= -1000 and grey.hu.max() <= 400
    assert np.abs(grey.hu - np.clip(plain.hu, -1000, 400)).max() <= 4
    assert np.array_equal(grey.truth.lesions, plain.truth.lesions)


def test_a_second_scan_shows_the_same_patient_further_on():
    first, second = (
        make_phantom(involvement=share, seed=seed, patient_seed=30, shape=SMALL)
        for share, seed in ((0.10, 1), (0.40, 2))
    )
    assert first.spacing == second.spacing
    assert first.name != second.name
    assert np.array_equal(first.truth.masks["right_middle_lobe"], second.truth.masks["right_middle_lobe"])
    stayed = (first.truth.lesions & second.truth.lesions).sum() / first.truth.lesions.sum()
    assert stayed > 0.8
    assert first.truth.drawn["noise_hu"] != second.truth.drawn["noise_hu"]
    outside = ~first.truth.lungs
    assert not np.array_equal(first.hu[outside], second.hu[outside])


def parts_of(mask, voxel_ml):
    labels, _ = ndimage.label(mask)
    sizes = np.bincount(labels.ravel())[1:] * voxel_ml
    return np.sort(sizes[sizes > 0.1])[::-1]


def test_a_single_focus_is_one_lesion_and_diffuse_disease_is_everywhere(plain):
    single = another(grade=None, involvement=0.03, distribution="single")
    parts = parts_of(single.truth.lesions, single.voxel_ml)
    assert parts[0] > 0.8 * parts.sum()
    diffuse = another(grade=None, involvement=0.5, distribution="diffuse").truth.drawn["involvement_by_part"]
    assert min(diffuse[lobe] for lobe in LOBES) > 0.1


def test_consolidation_is_dense(plain):
    solid = another(patterns="consolidation")
    mask = solid.truth.masks["consolidation"]
    assert 0.02 < mask.sum() / solid.truth.lesions.sum() < 0.5
    assert np.median(solid.hu[mask]) > -200
    assert np.median(solid.hu[solid.truth.masks["ggo"]]) < -450
    assert not plain.truth.masks["consolidation"].any()


def test_an_air_bronchogram_is_air_within_consolidation():
    scans = [
        another(patterns=patterns, grade=4, seed=3, noise_hu=0, shape=(64, 160, 160))
        for patterns in (("consolidation",), ("consolidation", "air_bronchogram"))
    ]
    change = scans[0].hu.astype(int) - scans[1].hu
    assert change.min() >= 0
    assert (change > 150).sum() > 20
    assert scans[0].truth.masks["consolidation"][change > 300].mean() > 0.8


def test_crazy_paving_draws_a_net_into_the_haze(plain):
    paved = another(patterns="crazy_paving")
    change = (paved.hu.astype(int) - plain.hu)[plain.truth.lesions]
    assert np.percentile(change, 95) > 80
    assert np.median(change) < 60
    assert np.array_equal(paved.truth.lesions, plain.truth.lesions)


def test_subpleural_bands_follow_the_chest_wall(plain):
    banded = another(patterns="subpleural_bands")
    change = banded.hu.astype(int) - plain.hu
    distance = ndimage.distance_transform_edt(plain.truth.lungs, plain.spacing)
    dense = (change > 120) & banded.truth.lesions
    assert dense.sum() * plain.voxel_ml > 3
    assert 2 < np.median(distance[dense]) < 14


def test_a_reversed_halo_is_dense_around_a_hazy_core(plain):
    halo = another(patterns="reversed_halo", noise_hu=0, shape=(64, 160, 160))
    ring = halo.truth.masks["consolidation"]
    assert ring.any()
    filled = np.stack([ndimage.binary_fill_holes(plane) for plane in ring])
    core = filled & ~ring & halo.truth.lesions
    assert core.sum() * halo.voxel_ml > 0.3
    assert np.median(halo.hu[ring]) > np.median(halo.hu[core]) + 200


def test_patterns_are_as_frequent_as_published_and_more_so_in_graver_disease():
    def share(involvement):
        drawn = [sample_disease(np.random.default_rng(seed), involvement).patterns for seed in range(400)]
        return np.array([np.mean([name in seen for seen in drawn]) for name in PATTERNS])

    by_grade = np.array([share(involvement) for involvement in (0.12, 0.37, 0.62, 0.87)])
    assert (by_grade[-1, :4] > by_grade[0, :4] + 0.1).all()
    over_all = np.array([0.29, 0.27, 0.36, 0.08]) @ by_grade
    published = [0.43, 0.49, 0.35, 0.53]
    assert np.abs(over_all[:4] - published).max() < 0.07


def test_growing_disease_keeps_its_character():
    for seed in range(20):
        early, late = (sample_disease(np.random.default_rng(seed), share) for share in (0.1, 0.8))
        assert set(early.patterns) <= set(late.patterns)
        assert early.lesion_scale_mm == late.lesion_scale_mm


@pytest.mark.parametrize(
    "arguments, words",
    [
        ({"grade": 5}, "grade=5"),
        ({"grade": 0}, "grade=0"),
        ({"involvement": 1.2}, "1.2"),
        ({"involvement": -0.1}, "-0.1"),
        ({"involvement": float("nan")}, "nan"),
        ({"involvement": "0.3"}, "not a number"),
        ({"grade": 1, "involvement": 0.6}, "contradict"),
        ({"grade": 1, "involvement": 0.0}, "no lesion"),
        ({"seed": -1}, "seed=-1"),
        ({"seed": 1.5}, "seed=1.5"),
        ({"shape": (64, 256)}, "shape=(64, 256)"),
        ({"shape": (4, 16, 16)}, "at least"),
        ({"shape": (64.5, 256, 256)}, "64.5"),
        ({"shape": 64}, "shape=64"),
        ({"patient_seed": -2}, "patient_seed=-2"),
        ({"sex": "man"}, "sex='man'"),
        ({"arms": "left"}, "arms='left'"),
        ({"lung_volume_l": 40}, "1.5 to 7.5 litres"),
        ({"age_years": 7}, "18 to 100 years"),
        ({"inspiration": 0}, "0.5 to 1 of a full breath"),
        ({"dose": -1}, "0.1 to 2 of a routine dose"),
        ({"field_of_view_mm": 900}, "600 mm"),
        ({"contrast_hu": "yes"}, "contrast_hu='yes'"),
        ({"confounders": ("cough",)}, "confounders='cough'"),
        ({"patterns": "ggo"}, "patterns='ggo'"),
        ({"distribution": "patchy"}, "distribution='patchy'"),
        ({"slice_mm": 0}, "0.5 to 10 mm"),
        ({"kernel": "B70f"}, "kernel='B70f'"),
        ({"noise_hu": float("nan")}, "noise_hu=nan"),
        ({"padded": "no"}, "padded='no'"),
        ({"quality": "png"}, "quality='png'"),
    ],
)
def test_wrong_arguments_are_explained(arguments, words):
    with pytest.raises(ChoiceError) as caught:
        make_phantom(**arguments)
    assert words in str(caught.value)


def test_agreeing_grade_and_involvement_are_accepted():
    for grade in (2, "moderate"):
        scan = make_phantom(grade=grade, involvement=0.4, seed=1, shape=(8, 32, 32))
        assert 0.25 < scan.truth.involvement < 0.5


def test_healthy_lungs_of_the_wide_world_are_uneven_and_hold_less_air_at_the_pleura():
    patient = sample_patient(np.random.default_rng(3), inspiration=0.7, confounders=())
    grid = Grid.over(seen_box(patient, 400), (24, 96, 96))
    anatomy = build_anatomy(patient, grid, np.random.default_rng(4))
    depth = grid.sample(anatomy.coarse, anatomy.depth_mm.astype(np.float32), anatomy.lung_box)

    def tissue(**changed):
        hu = parenchyma(replace(patient, **changed), anatomy, grid, np.random.default_rng(5))
        local = ndimage.gaussian_filter(hu, [8 / step for step in grid.spacing])
        return local[depth > 10].std(), hu[(depth > 0) & (depth < 3)].mean() - hu[depth > 10].mean()

    (smooth, at_pleura), (uneven, _), (_, layered) = tissue(), tissue(uneven=0.06), tissue(pleural_layer=0.1)
    assert uneven > smooth + 10, (smooth, uneven)
    assert layered > at_pleura + 30, (at_pleura, layered)


def test_the_wide_world_is_wider_and_its_truth_still_holds():
    wide = [make_phantom(involvement=0.2, seed=seed, shape=(20, 64, 64), world="wide") for seed in range(6)]
    people = [make_phantom(involvement=0.2, seed=seed, shape=(20, 64, 64)) for seed in range(6)]
    for scan in wide:
        assert scan.truth.involvement == pytest.approx(0.2, abs=0.01)
        assert not np.any(scan.truth.lesions & ~scan.truth.lungs)
    spread = {
        name: [np.std([scan.truth.drawn[name] for scan in scans]) for scans in (people, wide)]
        for name in ("lung_hu", "field_share", "dome_steepness", "uneven", "pleural_layer")
    }
    assert all(wider > usual for usual, wider in spread.values()), spread
    with pytest.raises(ChoiceError, match="world"):
        make_phantom(seed=0, shape=(8, 32, 32), world="narrow")
