import os

import numpy as np
import pandas as pd
import pytest

import ggo_lab as gl
from ggo_lab import images as images_room


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("GGO_LAB_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def ramp(shape=(12, 40, 40)):
    """A scan whose HU tell the slice: slice z holds -1000 + 100 z."""
    hu = np.empty(shape, np.int16)
    hu[:] = (-1000 + 100 * np.arange(shape[0]))[:, None, None]
    return gl.Scan(hu, (5.0, 1.0, 1.0), name="ramp")


def toy_cohort(n=6, open_row=None):
    table = pd.DataFrame(
        {
            "name": [f"s{i}" for i in range(n)],
            "patient": [f"p{i}" for i in range(n)],
            "grade": [1 + i % 4 for i in range(n)],
            "split": (["train", "test", "validation"] * n)[:n],
        }
    )
    return gl.Cohort(table, open_row or (lambda row: ramp()), lambda row: row["name"])


@pytest.mark.parametrize(("where", "expected"), [("middle", (5, 6, 7)), ("spread", (2, 6, 10))])
def test_slices_are_chosen_as_documented(where, expected):
    scan = ramp((13, 8, 8))
    assert gl.choose_slices(scan, gl.Recipe(where=where)) == expected


def test_lung_slices_stay_inside_the_lungs():
    lungs = np.zeros((20, 8, 8), bool)
    lungs[10:16] = True
    chosen = gl.choose_slices(ramp((20, 8, 8)), gl.Recipe(where="lungs"), lungs)
    assert chosen == (11, 13, 15)


def test_a_scan_shorter_than_the_image_repeats_slices():
    assert gl.choose_slices(ramp((1, 8, 8)), gl.Recipe()) == (0, 0, 0)
    assert gl.choose_slices(ramp((2, 8, 8)), gl.Recipe(where="middle")) == (0, 0, 1)


def test_grey_follows_the_clip():
    image = gl.scan_to_image(ramp((15, 40, 40)), gl.Recipe(slices=15, where="middle", size=16))
    assert image.shape == (15, 16, 16) and image.dtype == np.uint8
    # -1000 HU is black, 400 HU is white, -300 HU is half-way.
    assert (image[0] == 0).all() and (image[14] == 255).all() and (image[7] == 128).all()


def test_a_slice_that_is_not_square_is_not_stretched():
    hu = np.full((1, 20, 40), 400, np.int16)
    hu[0, 0, 0] = -1000  # the darkest value is what the square is filled with
    image = gl.scan_to_image(gl.Scan(hu, (1, 1, 1)), gl.Recipe(slices=1, size=40))
    assert (image[0, :9] == 0).all() and (image[0, 31:] == 0).all()
    assert (image[0, 12:28] == 255).all()


def test_a_map_goes_back_to_where_it_came_from():
    hu = np.full((1, 30, 50), -1000, np.int16)
    hu[0, 12:18, 34:40] = 400
    scan, recipe = gl.Scan(hu, (1, 1, 1)), gl.Recipe(slices=1, size=100)
    back = gl.image_to_scan_grid(gl.scan_to_image(scan, recipe)[0] / 255.0, scan, recipe)
    assert back.shape == (30, 50)
    assert back[13:17, 35:39].min() > 0.9 and back[:10].max() == 0 and back[:, :32].max() == 0


def test_cropping_to_the_lungs_shows_them_larger_and_maps_back():
    hu = np.full((3, 60, 60), 40, np.int16)
    lungs = np.zeros(hu.shape, bool)
    lungs[:, 20:40, 25:35] = True
    hu[lungs] = -850
    scan, recipe = gl.Scan(hu, (5, 1, 1)), gl.Recipe(size=60, crop="lungs")
    whole = gl.scan_to_image(scan, gl.Recipe(size=60))
    cropped = gl.scan_to_image(scan, recipe, lungs)
    dark = lambda image: (image[0] < 100).mean()  # noqa: E731
    assert dark(cropped) > 3 * dark(whole)
    back = gl.image_to_scan_grid((cropped[1] < 100).astype(float), scan, recipe, lungs) > 0.5
    assert (back & lungs[1]).sum() / (back | lungs[1]).sum() > 0.9


@pytest.mark.parametrize(
    "wrong", [{"where": "top"}, {"crop": "body"}, {"clip_hu": (400, -1000)}, {"slices": 0}, {"size": 4}]
)
def test_a_recipe_refuses_what_it_cannot_do(wrong):
    with pytest.raises(gl.ChoiceError):
        gl.Recipe(**wrong)


def test_a_recipe_survives_json():
    recipe = gl.Recipe(slices=5, where="lungs", clip_hu=(-1350, 150), size=96, crop="lungs")
    assert gl.Recipe.from_dict(images_room.json.loads(images_room.json.dumps(recipe.to_dict()))) == recipe


def test_prepare_orders_by_split_and_takes_the_second_run_from_the_cache():
    opened = []

    def open_row(row):
        opened.append(row["name"])
        return ramp()

    cohort = toy_cohort(4, open_row)
    first = gl.prepare(cohort, gl.Recipe(size=16), progress=False)
    assert first.table["split"].tolist() == ["train", "train", "validation", "test"]
    assert first.names == ["s0", "s3", "s2", "s1"] and first.indices.tolist() == [0, 3, 2, 1]
    assert len(opened) == 4
    again = gl.prepare(cohort, gl.Recipe(size=16), progress=False)
    assert len(opened) == 4 and np.array_equal(first.pixels, again.pixels)
    gl.prepare(cohort, gl.Recipe(size=24), progress=False)
    assert len(opened) == 8, "another recipe needs other images"


def test_splits_are_views_of_the_file_and_cannot_be_written_through():
    cohort = toy_cohort()
    images = gl.prepare(cohort, gl.Recipe(size=16), progress=False)
    assert np.shares_memory(images.train.pixels, images.pixels)
    before = np.array(images.pixels)
    images.pixels[:] = 7
    assert np.array_equal(gl.prepare(cohort, gl.Recipe(size=16), progress=False).pixels, before)


@pytest.mark.parametrize("damage", ["truncate", "flip", "empty", "foreign"])
def test_a_damaged_entry_is_made_again(own_cache, damage):
    cohort = toy_cohort(2)
    good = np.array(gl.prepare(cohort, gl.Recipe(size=16), progress=False).pixels)
    part = sorted((own_cache / "images").glob("*.npz"))[0]
    data = bytearray(part.read_bytes())
    if damage == "truncate":
        data = data[: len(data) // 2]
    elif damage == "flip":
        data[300] ^= 0xFF
    elif damage == "empty":
        data = bytearray()
    else:
        np.savez(part, something=np.zeros(3))
        data = bytearray(part.read_bytes())
    part.write_bytes(data)
    assert np.array_equal(gl.prepare(cohort, gl.Recipe(size=16), progress=False).pixels, good)
    assert images_room._read_part(part, gl.Recipe(size=16)) is not None


def test_a_changed_file_is_read_again(tmp_path):
    file = tmp_path / "scan.nii.gz"
    scan = gl.make_phantom(involvement=0.3, seed=1, shape=(12, 48, 48))
    gl.write_nifti(scan, file)
    (tmp_path / "cohort.csv").write_text("path,grade,split\nscan.nii.gz,2,train\n")
    cohort = gl.read_cohort(tmp_path / "cohort.csv")
    before = np.array(gl.prepare(cohort, gl.Recipe(size=32)).pixels)
    gl.write_nifti(gl.make_phantom(involvement=0.3, seed=2, shape=(12, 48, 48)), file)
    os.utime(file, (1, 1))
    assert not np.array_equal(gl.prepare(cohort, gl.Recipe(size=32)).pixels, before)


def test_bad_scans_are_left_out_by_name_and_the_rest_is_right():
    def open_row(row):
        if row["name"] in ("s1", "s4"):
            raise gl.ScanError(f"{row['name']}: broken")
        return ramp()

    with pytest.warns(UserWarning, match="2 of 6 scans were left out"):
        images = gl.prepare(toy_cohort(6, open_row), gl.Recipe(size=16), jobs=1, progress=False)
    assert images.left_out["name"].tolist() == ["s1", "s4"] and "broken" in images.left_out["reason"][0]
    assert images.names == ["s0", "s3", "s2", "s5"]
    with pytest.raises(gl.CohortError, match="None of the 6 scans"):
        gl.prepare(toy_cohort(6, lambda row: open_row({"name": "s1"})), gl.Recipe(size=20), jobs=1, progress=False)


def test_an_interrupted_run_goes_on_where_it_stopped():
    opened = []

    def open_row(row):
        opened.append(row["name"])
        if len(opened) == 3:
            raise KeyboardInterrupt
        return ramp()

    with pytest.raises(KeyboardInterrupt):
        gl.prepare(toy_cohort(4, open_row), gl.Recipe(size=16), progress=False)
    gl.prepare(toy_cohort(4, open_row), gl.Recipe(size=16), progress=False)
    assert len(opened) == 5, "two were stored before the interruption, so only two more are opened after it"


def test_many_processes_give_the_same_images():
    cohort = gl.phantom_cohort(6, seed=1, shape=(8, 48, 48))
    recipe = gl.Recipe(size=32)
    alone = np.array(gl.prepare(cohort, recipe, jobs=1, progress=False).pixels)
    for part in (gl.cache_folder() / "images").glob("*.npz"):
        part.unlink()
    assert np.array_equal(gl.prepare(cohort, recipe, jobs=2, progress=False).pixels, alone)


def test_a_full_disk_says_so_and_leaves_nothing_half_written(own_cache, monkeypatch):
    def no_space(file, **arrays):
        file.write(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(images_room.np, "savez", no_space)
    with pytest.raises(gl.GgoLabError, match="No space left"):
        gl.prepare(toy_cohort(2), gl.Recipe(size=16), progress=False)
    assert list((own_cache / "images").iterdir()) == []


def test_a_cache_that_cannot_be_made_says_what_to_do(monkeypatch, tmp_path):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("GGO_LAB_CACHE", str(tmp_path / "file"))
    with pytest.raises(gl.GgoLabError, match="GGO_LAB_CACHE"):
        gl.prepare(toy_cohort(2), gl.Recipe(size=16), progress=False)


def test_an_empty_cohort_is_refused():
    with pytest.raises(gl.CohortError, match="empty"):
        gl.prepare(toy_cohort(2).subset([]), gl.Recipe(size=16))


def test_a_cohort_without_splits_is_prepared_in_its_own_order():
    table = toy_cohort(3).table.assign(split=[None, "train", None])
    images = gl.prepare(gl.Cohort(table, lambda row: ramp(), lambda row: row["name"]), gl.Recipe(size=16), jobs=1)
    assert images.names == ["s1", "s0", "s2"] and len(images.test) == 0
