"""Nothing implausible comes back in silence: lungs that are missing, cut off, gas or no lungs are said to be."""

from dataclasses import replace

import numpy as np
import pytest

import ggo_lab as gl
from ggo_lab.errors import GgoLabError
from ggo_lab.lungs.doubts import doubts_about
from ggo_lab.scan import Scan


@pytest.fixture(scope="module")
def chest():
    return gl.make_phantom(involvement=0.05, seed=3, shape=(48, 128, 128), confounders=(), lung_volume_l=4.5)


def doubts(scan: Scan, right: np.ndarray | None = None, left: np.ndarray | None = None) -> str:
    masks = scan.truth.masks
    right = masks["right_lung"] if right is None else right
    return " ".join(doubts_about(scan, right, masks["left_lung"] if left is None else left))


def test_a_usual_chest_raises_no_doubt(chest):
    assert doubts(chest) == ""


def test_a_missing_or_far_smaller_lung_is_named(chest):
    left = chest.truth.masks["left_lung"]
    assert "No left lung was found" in doubts(chest, left=np.zeros_like(left))
    part = left & (np.arange(left.shape[1])[:, None] < np.flatnonzero(left.any(axis=(0, 2)))[15])
    assert "The left lung has 0." in doubts(chest, left=part)


def test_too_small_a_volume_is_told_where_the_whole_thorax_is_seen_and_too_large_a_one_always(chest):
    small = replace(chest, spacing=(chest.spacing[0], *(step * 0.4 for step in chest.spacing[1:])))
    assert "an adult's have" in doubts(small)
    middle = slice(16, 32)
    masks = [chest.truth.masks[name][middle] for name in ("right_lung", "left_lung")]
    assert "an adult's have" not in " ".join(doubts_about(replace(small, hu=small.hu[middle], truth=None), *masks))
    large = replace(chest, hu=chest.hu[middle], spacing=tuple(step * 2 for step in chest.spacing), truth=None)
    assert "an adult's have" in " ".join(doubts_about(large, *masks))


def test_dense_and_empty_lungs_are_told_apart(chest):
    dense = np.where(chest.truth.lungs, chest.hu + 300, chest.hu).astype(np.int16)
    assert "hardly hold air" in doubts(replace(chest, hu=dense))
    empty = np.where(chest.truth.lungs, -1000, chest.hu).astype(np.int16)
    assert "gas in the bowel" in doubts(replace(chest, hu=empty))


@pytest.mark.parametrize("frame_hu", [0, gl.scan.PADDING_HU])
def test_lungs_that_a_frame_cuts_off_are_told(chest, frame_hu):
    columns = np.flatnonzero(chest.truth.lungs.any(axis=(0, 1)))
    cut = columns[0] + 14
    hu = chest.hu.copy()
    hu[:, :, :cut], hu[:, :, -4:], hu[:, :4], hu[:, -4:] = (frame_hu,) * 4
    right = chest.truth.masks["right_lung"].copy()
    right[:, :, :cut] = False
    assert "cut off" in doubts(replace(chest, hu=hu), right=right)


def test_a_chest_without_a_windpipe_is_doubted(chest):
    hu = np.where(chest.truth.masks["airways"], 40, chest.hu).astype(np.int16)
    assert "No windpipe" in doubts(replace(chest, hu=hu))


def specks(shape: tuple[int, int, int]) -> np.ndarray:
    """A block of tissue with two specks of air, which have no volume."""
    hu = np.full(shape, 40, np.int16)
    hu[:, 40:44, 40:44] = -700
    return hu


@pytest.mark.parametrize("method", ["rule", "both"])
@pytest.mark.parametrize(
    "hu",
    [
        specks((1, 96, 96)),
        np.zeros((6, 64, 64), np.int16),
        np.full((6, 64, 64), -1000, np.int16),
        np.random.default_rng(0).normal(-300, 400, (8, 96, 96)).astype(np.int16),
        np.full((1, 3, 5), -700, np.int16),
    ],
    ids=["specks", "water", "air", "noise", "tiny"],
)
def test_what_is_no_chest_is_refused_or_doubted_and_never_crashes(hu, method):
    try:
        lungs = gl.find_lungs(Scan(hu, (2.0, 3.0, 3.0)), method)
    except GgoLabError:
        return
    assert lungs.notes


@pytest.mark.parametrize(("radius", "spacing"), [(2, 1.0), (3, 1.0), (5, 1.0), (7, 0.7)])
@pytest.mark.parametrize("slices", [1, 6])
def test_a_dark_spot_in_a_body_is_no_lung(radius, spacing, slices):
    """Of less than a square centimetre in any slice."""
    y, x = (np.indices((128, 128)) - 63.5) * spacing
    hu = np.where((y / 40) ** 2 + (x / 55) ** 2 < 1, 40, -1000)
    hu[np.hypot(y - 0.5, x + 23.5) <= radius * spacing] = -850
    scan = Scan(np.stack([hu] * slices).astype(np.int16), (5.0, spacing, spacing))
    with pytest.raises(GgoLabError, match="no lung was found"):
        gl.segment_lungs(scan)


def test_the_abdomen_is_no_chest():
    abdomen = next(real.scan for real in gl.real_scans() if real.scan.name == "abdomen")
    with pytest.raises(GgoLabError, match="no lung was found"):
        gl.find_lungs(abdomen, "both")


def test_segment_lungs_warns_of_what_find_lungs_notes(chest):
    left_gone = chest.hu.copy()
    left_gone[:, :, left_gone.shape[2] // 2 :] = -1000
    scan = replace(chest, hu=left_gone, truth=None)
    notes = gl.find_lungs(scan).notes
    assert notes
    with pytest.warns(gl.lungs.LungsWarning, match=notes[0][:20]):
        gl.segment_lungs(scan)


def test_mirroring_the_patient_swaps_the_lungs(chest):
    lungs = gl.find_lungs(chest, "network")
    mirrored = gl.find_lungs(replace(chest, hu=np.ascontiguousarray(chest.hu[:, :, ::-1]), truth=None), "network")
    for seen, expected in ((mirrored.left, lungs.right), (mirrored.right, lungs.left)):
        both = np.count_nonzero(seen[:, :, ::-1] & expected)
        assert 2 * both / (np.count_nonzero(seen) + np.count_nonzero(expected)) > 0.95


def test_what_was_seen_of_other_values_is_not_trusted(chest):
    scan = replace(chest, hu=chest.hu.copy(), truth=None)
    before = gl.find_lungs(scan, "network").litres
    scan.hu[: len(scan.hu) // 2] = 40
    assert gl.find_lungs(scan, "network").litres < 0.8 * before


def turned(scan: Scan, *axes: int) -> Scan:
    """The same scan with its slices in reverse order (axis 0) or flipped from front to back (axis 1)."""
    return replace(scan, hu=np.ascontiguousarray(np.flip(scan.hu, axes)), truth=None)


@pytest.mark.parametrize("world", ["people", "wide"])
@pytest.mark.parametrize(("grade", "seed"), [(1, 5), (3, 6), (4, 7)])
def test_a_chest_that_is_upside_down_or_flipped_is_told_and_no_other(grade, seed, world):
    scan = gl.make_phantom(grade=grade, seed=seed, shape=(40, 96, 96), world=world)
    for axes in ((), (0,), (1,), (0, 1)):
        notes = " ".join(gl.find_lungs(turned(scan, *axes), "rule" if seed == 5 else "both").notes)
        assert ("upside down" in notes) == (0 in axes)
        assert ("flipped from front to back" in notes) == (1 in axes)


def test_half_a_chest_is_not_taken_for_one_upside_down(chest):
    z = np.flatnonzero(chest.truth.lungs.any(axis=(1, 2)))
    middle = (z[0] + z[-1]) // 2
    for part in (slice(0, middle), slice(middle, None)):
        masks = [chest.truth.masks[name][part] for name in ("right_lung", "left_lung")]
        assert "upside down" not in " ".join(doubts_about(replace(chest, hu=chest.hu[part], truth=None), *masks))


def test_a_real_chest_upside_down_is_told():
    thorax = next(real.scan for real in gl.real_scans() if real.scan.shape[0] > 30)
    for method in ("rule", "network", "both"):
        assert "upside down" not in " ".join(gl.find_lungs(thorax, method).notes)
        assert "upside down" in " ".join(gl.find_lungs(turned(thorax, 0), method).notes)


def test_of_one_slice_it_is_told_what_cannot_be_judged(chest):
    one = len(chest.hu) // 2
    for part, where in ((slice(one, one + 1), "in one slice only"), (slice(one, one + 4), "mm only")):
        notes = gl.find_lungs(replace(chest, hu=chest.hu[part].copy(), truth=None)).notes
        assert any(where in note and "cannot be judged" in note for note in notes)
