import contextlib
import itertools
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import joblib
import numpy as np
import pandas as pd
import pytest

import ggo_lab as gl
from ggo_lab.images import caching


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
            "label": [i % 4 for i in range(n)],
            "split": (["train", "test", "validation"] * n)[:n],
        }
    )
    return gl.Cohort(table, open_row or (lambda row: ramp()), lambda row: row["name"])


@pytest.mark.parametrize(("pick", "expected"), [("middle", (5, 6, 7)), ("spread", (2, 6, 10))])
def test_slices_are_chosen_as_documented(pick, expected):
    assert gl.Recipe(pick=pick).cut(ramp((13, 8, 8))).slices == expected


def test_lung_slices_stay_inside_the_lungs():
    lungs = np.zeros((20, 8, 8), bool)
    lungs[10:16] = True
    assert gl.Recipe(pick="lungs").cut(ramp((20, 8, 8)), lungs).slices == (11, 13, 15)


def test_a_scan_shorter_than_the_image_repeats_slices():
    assert gl.Recipe().cut(ramp((1, 8, 8))).slices == (0, 0, 0)
    assert gl.Recipe(pick="middle").cut(ramp((2, 8, 8))).slices == (0, 0, 1)


def test_grey_follows_the_window():
    image = gl.Recipe(slices=15, pick="middle", size=16).cut(ramp((15, 40, 40))).image()
    assert image.shape == (15, 16, 16) and image.dtype == np.uint8
    # -1000 HU is black, 400 HU is white, -300 HU is half-way.
    assert (image[0] == 0).all() and (image[14] == 255).all() and (image[7] == 128).all()
    paper = gl.Recipe().window
    assert (paper.black, paper.white) == (-1000, 400) and gl.Recipe(window="lung").window == gl.WINDOWS["lung"]


@pytest.mark.parametrize("window", ["paper", "bone"])
def test_a_slice_that_is_not_square_is_not_stretched_and_lies_on_black(window):
    hu = np.full((1, 20, 40), 1400, np.int16)
    image = gl.Recipe(slices=1, size=40, window=window).cut(gl.Scan(hu, (1, 1, 1))).image()
    assert (image[0, :9] == 0).all() and (image[0, 31:] == 0).all()
    assert (image[0, 12:28] == 255).all()


def test_a_map_goes_back_to_where_it_came_from():
    hu = np.full((1, 30, 50), -1000, np.int16)
    hu[0, 12:18, 34:40] = 400
    cut = gl.Recipe(slices=1, size=100).cut(gl.Scan(hu, (1, 1, 1)))
    back = cut.lay(cut.image()[0] / 255.0)[0]
    assert back.shape == (30, 50)
    assert back[13:17, 35:39].min() > 0.9 and back[:10].max() == 0 and back[:, :32].max() == 0


def test_a_map_for_each_slice_goes_to_its_slice_and_one_for_all_to_all():
    cut = gl.Recipe(size=8).cut(ramp((13, 8, 8)))
    each = np.stack([np.full((8, 8), share, np.float32) for share in (0.1, 0.5, 0.9)])
    assert {z: float(plane.max()) for z, plane in cut.lay(each).items()} == pytest.approx({2: 0.1, 6: 0.5, 10: 0.9})
    assert set(cut.lay(each[0])) == {2, 6, 10}
    twice = gl.Recipe(size=8).cut(ramp((2, 8, 8)))
    assert twice.slices == (0, 1, 1) and twice.lay(each)[1].max() == np.float32(0.9), "the hotter of two counts"
    for wrong in (each[:2], each[None], each[0, 0]):
        with pytest.raises(gl.ChoiceError, match="fits no image of 3 slices"):
            cut.lay(wrong)


def test_cropping_to_the_lungs_shows_them_larger_and_maps_back():
    hu = np.full((3, 60, 60), 40, np.int16)
    lungs = np.zeros(hu.shape, bool)
    lungs[:, 20:40, 25:35] = True
    hu[lungs] = -850
    scan = gl.Scan(hu, (5, 1, 1))
    whole, cropped = gl.Recipe(size=60).cut(scan), gl.Recipe(size=60, crop="lungs").cut(scan, lungs)
    dark = lambda image: (image[0] < 100).mean()  # noqa: E731
    assert dark(cropped.image()) > 3 * dark(whole.image())
    back = cropped.lay((cropped.image()[1] < 100).astype(float))[1] > 0.5
    assert (back & lungs[1]).sum() / (back | lungs[1]).sum() > 0.9


class FromDisk:
    """A scan whose slices are fetched when they are asked for."""

    def __init__(self, scan):
        self.scan, self.shape, self.spacing, self.fetched = scan, scan.shape, scan.spacing, []

    def grey(self, slices, shown):
        self.fetched += slices
        return self.scan.grey(slices, shown)

    def whole(self):
        self.fetched += range(self.shape[0])
        return self.scan


def test_only_the_slices_that_are_shown_are_fetched_and_the_image_is_the_same():
    scan = gl.make_phantom(seed=3, shape=(16, 64, 48))
    for recipe in (gl.Recipe(size=32), gl.Recipe(slices=5, pick="middle", size=32)):
        lazy = FromDisk(scan)
        cut = recipe.cut(lazy)
        assert np.array_equal(cut.image(), recipe.cut(scan).image()) and lazy.fetched == list(cut.slices)
    lazy = FromDisk(scan)
    recipe = gl.Recipe(size=32, pick="lungs", crop="lungs")
    assert np.array_equal(recipe.cut(lazy).image(), recipe.cut(scan).image()) and len(lazy.fetched) == 16 + 3


@pytest.mark.parametrize(
    "wrong",
    [{"pick": "top"}, {"crop": "body"}, {"window": (400, -1000)}, {"window": "wide"}, {"slices": 0}, {"size": 4}],
)
def test_a_recipe_refuses_what_it_cannot_do(wrong):
    with pytest.raises(gl.ChoiceError):
        gl.Recipe(**wrong)


@pytest.mark.parametrize("label", [5, -1, 2.5, "mild"])
def test_labels_written_into_the_table_are_refused_at_every_door_and_never_break_what_shows_it(label):
    table = pd.DataFrame({"name": ["a", "b"], "patient": ["a", "b"], "label": [0, 1], "split": "train"}, dtype=object)
    images = gl.images.ImageSet(np.zeros((2, 3, 8, 8), np.uint8), table, gl.Recipe(size=8))
    images.table.loc[0, "label"] = label
    judged = gl.Predictions(table.assign(label=[0, 1]), np.eye(4)[:2])
    judged.table["label"] = judged.table["label"].astype(object)
    judged.table.loc[0, "label"] = label
    found = gl.Cohort(table.assign(label=[0, 1]), lambda row: ramp(), lambda row: row["name"])
    found.table["label"] = found.table["label"].astype(object)
    found.table.loc[0, "label"] = label
    doors = [
        lambda: images.labels,
        lambda: images.train,
        lambda: judged.labels,
        lambda: gl.evaluate(judged),
        lambda: found.labels,
        lambda: found.train,
        lambda: gl.prepare(found, gl.Recipe(size=8), progress=False),
    ]
    for door in doors:
        with pytest.raises(gl.CohortError, match="label holds"):
            door()
    for shown in (images, judged, found):
        repr(shown)
        for column in list(shown.table):
            if column != "name":
                del shown.table[column]
                repr(shown)


def test_a_recipe_survives_json():
    recipe = gl.Recipe(slices=5, pick="lungs", window=(-600, 1500), size=96, crop="lungs")
    assert gl.Recipe.from_dict(json.loads(json.dumps(recipe.to_dict()))) == recipe


def test_prepare_orders_by_split_and_takes_the_second_run_from_the_cache():
    opened = []

    def open_row(row):
        opened.append(row["name"])
        return ramp()

    cohort = toy_cohort(4, open_row)
    first = gl.prepare(cohort, gl.Recipe(size=16), progress=False)
    assert first.table["split"].tolist() == ["train", "train", "validation", "test"]
    assert first.names == ["s0", "s3", "s2", "s1"] and first.labels.tolist() == [0, 3, 2, 1]
    assert len(opened) == 4
    again = gl.prepare(cohort, gl.Recipe(size=16), progress=False)
    assert len(opened) == 4 and np.array_equal(first.pixels, again.pixels)
    gl.prepare(cohort, gl.Recipe(size=24), progress=False)
    assert len(opened) == 8, "another recipe needs other images"


def test_splits_are_views_of_the_file_and_cannot_be_written_through():
    cohort = toy_cohort()
    images = gl.prepare(cohort, gl.Recipe(size=16), jobs=1, progress=False)
    assert np.shares_memory(images.train.pixels, images.pixels)
    before = np.array(images.pixels)
    images.pixels[:] = 7
    assert np.array_equal(gl.prepare(cohort, gl.Recipe(size=16), progress=False).pixels, before)


@pytest.mark.parametrize("damage", ["truncate", "flip", "empty", "foreign", "method", "folder"])
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
    elif damage == "method":  # of packing, which no zip program knows
        for mark, behind in ((b"PK\x03\x04", 8), (b"PK\x01\x02", 10)):
            place = data.index(mark) + behind
            data[place : place + 2] = (99).to_bytes(2, "little")
    elif damage == "folder":  # the arrays lie in one, and so have other names
        data = bytearray(bytes(data).replace(b"pixels.npy", b"a/xels.npy"))
    else:
        np.savez(part, something=np.zeros(3))
        data = bytearray(part.read_bytes())
    part.write_bytes(data)
    assert np.array_equal(gl.prepare(cohort, gl.Recipe(size=16), progress=False).pixels, good)
    assert caching._read_part(part, gl.Recipe(size=16)) is not None


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


def numbered(row):
    """A scan of its own for each row, so that two that are swapped show."""
    number = int(row["name"][1:])
    hu = np.full((6, 40, 40), -1000, np.int16)
    hu[:, :, : 2 + number % 38] = 400
    hu[:, : 2 + number // 38, :] = -300
    return gl.Scan(hu, (5.0, 1.0, 1.0), name=row["name"])


def test_ten_bad_files_of_two_hundred_are_named_and_the_rest_is_right(tmp_path):
    for number in range(200):
        gl.write_nifti(numbered({"name": f"s{number}"}), tmp_path / f"s{number}.nii")
    reasons = {}
    for number in range(5, 200, 20):
        file = tmp_path / f"s{number}.nii"
        content = file.read_bytes()
        damaged = [
            (b"", "0 bytes"),
            (content[: len(content) // 2], "s"),
            (b"\0" * 400, "not a NIfTI"),
            (None, "no such"),
        ]
        content, reasons[f"s{number}.nii"] = damaged[number // 20 % 4]
        file.unlink() if content is None else file.write_bytes(content)
    rows = "\n".join(f"s{n}.nii,{1 + n % 4},{('train', 'validation', 'test')[n % 3]}" for n in range(200))
    (tmp_path / "cohort.csv").write_text(f"path,grade,split\n{rows}\n")
    cohort, recipe = gl.read_cohort(tmp_path / "cohort.csv"), gl.Recipe(size=40)
    with pytest.warns(UserWarning, match="10 of 200 scans were left out"):
        images = gl.prepare(cohort, recipe, jobs=1, progress=False)
    assert set(images.left_out["name"]) == set(reasons) and len(images) == 190
    for name, reason in zip(images.left_out["name"], images.left_out["reason"], strict=True):
        assert name in reason and reasons[name] in reason, reason
    for name, pixels in zip(images.names, images.pixels, strict=True):
        expected = recipe.cut(numbered({"name": name.removesuffix(".nii")})).image()
        assert np.array_equal(pixels, expected), name


def kill_self():
    os.kill(os.getpid(), signal.SIGKILL)


def killed_after(call, n):
    """Wrap a function so that its n-th call kills the process instead of working."""
    calls = itertools.count(1)
    return lambda *arguments, **named: kill_self() if next(calls) == n else call(*arguments, **named)


def half_then_kill(file, **arrays):
    file.write(b"half of it")
    file.flush()
    kill_self()


# What is patched in the process that dies, and so the moment at which it dies.
MOMENTS = {
    "while a scan is read": lambda patch: patch.setattr("test_images.numbered", killed_after(numbered, 3)),
    "while an image is written": lambda patch: patch.setattr(caching.np, "savez", half_then_kill),
    "before it gets its name": lambda patch: patch.setattr(os, "replace", killed_after(os.replace, 3)),
    "while images are laid together": lambda patch: patch.setattr(
        caching, "_write_at", killed_after(caching._write_at, 4)
    ),
}


def prepared(cohort):
    return gl.prepare(cohort, gl.Recipe(size=32), jobs=1, progress=False)


def run_and_die(work, after_s=None):
    """Run work in a copy of this process that is killed, by itself or after so many seconds; whether it was killed."""
    child = os.fork()
    if child == 0:
        try:
            work()
        finally:
            os._exit(0)
    if after_s is not None:
        time.sleep(after_s)
        os.kill(child, signal.SIGKILL)
    return os.WIFSIGNALED(os.waitpid(child, 0)[1])


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs a system that can copy a process")
@pytest.mark.parametrize("moment", [*MOMENTS, "at any time"])
def test_killed_at_any_moment_it_resumes_with_the_same_bytes(own_cache, monkeypatch, tmp_path, moment):
    cohort = toy_cohort(12, lambda row: numbered(row))
    if moment == "at any time":
        killed = [run_and_die(lambda: prepared(cohort), after_ms / 1000) for after_ms in (1, 5, 10, 20, 30, 40, 60)]
        assert killed[0], "the process was done before it could be killed: the test tests nothing"
    else:

        def work():
            MOMENTS[moment](monkeypatch)
            prepared(cohort)

        assert run_and_die(work), "the process outlived its moment: the test tests nothing"
    resumed = np.array(prepared(cohort).pixels)
    stored = {p.name: p.read_bytes() for p in (own_cache / "images").glob("*.npz")}
    monkeypatch.setenv("GGO_LAB_CACHE", str(tmp_path / "clean"))
    assert np.array_equal(resumed, prepared(cohort).pixels)
    assert stored == {p.name: p.read_bytes() for p in (tmp_path / "clean" / "images").glob("*.npz")}


SEVERAL_PROCESSES = """
import time
import ggo_lab as gl
from test_images import numbered, toy_cohort

def slowly(row):
    time.sleep(0.05)
    return numbered(row)

gl.prepare(toy_cohort(40, slowly), gl.Recipe(size=32), jobs=2, progress=False)
"""


@pytest.mark.skipif(not hasattr(os, "killpg"), reason="needs groups of processes")
def test_killed_with_several_processes_at_work_it_resumes_with_the_same_bytes(own_cache, monkeypatch, tmp_path):
    here = Path(__file__).parent
    monkeypatch.setenv("PYTHONPATH", f"{here}{os.pathsep}{here.parent}")
    dying = subprocess.Popen([sys.executable, "-c", SEVERAL_PROCESSES], start_new_session=True)
    try:
        while dying.poll() is None and len(list((own_cache / "images").glob("*.npz"))) < 5:
            time.sleep(0.01)
        dying.kill()
        assert dying.wait() == -signal.SIGKILL, "it was done before it could be killed: the test tests nothing"
        resumed = np.array(prepared(toy_cohort(40, numbered)).pixels)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(dying.pid, signal.SIGKILL)  # its workers, which wait for more to do
    monkeypatch.setenv("GGO_LAB_CACHE", str(tmp_path / "clean"))
    assert np.array_equal(resumed, prepared(toy_cohort(40, numbered)).pixels)


def test_what_killed_processes_left_is_swept_after_a_day(own_cache):
    folder = own_cache / "images"
    folder.mkdir(parents=True)
    for name, days in ((".unfinished-old", 2), (".unfinished-new", 0)):
        (folder / name).write_bytes(b"half")
        os.utime(folder / name, (time.time() - days * 86400,) * 2)
    prepared(toy_cohort(2))
    assert not (folder / ".unfinished-old").exists()
    assert (folder / ".unfinished-new").exists(), "another process may be writing it now"


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
    for part in (gl.storage.cache_folder() / "images").glob("*.npz"):
        part.unlink()
    assert np.array_equal(gl.prepare(cohort, recipe, jobs=2, progress=False).pixels, alone)


def test_images_travel_to_other_processes():
    cohort = gl.phantom_cohort(8, shape=(8, 32, 32))
    images = gl.prepare(cohort, gl.Recipe(size=256), jobs=1, progress=False)
    assert images.pixels.nbytes > 1_000_000, "from here on joblib passes arrays through files"
    sums = joblib.Parallel(n_jobs=2)(joblib.delayed(np.sum)(images.pixels) for _ in range(2))
    assert sums == [images.pixels.sum()] * 2


def test_a_full_disk_says_so_and_leaves_nothing_half_written(own_cache, monkeypatch):
    def no_space(file, **arrays):
        file.write(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(caching.np, "savez", no_space)
    with pytest.raises(gl.GgoLabError, match="No space left"):
        gl.prepare(toy_cohort(2), gl.Recipe(size=16), progress=False)
    assert list((own_cache / "images").iterdir()) == []


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs limits that a process can set on itself")
@pytest.mark.parametrize("room_for", ["nothing", "the images, but not for laying them together"])
def test_a_file_that_the_system_refuses_to_write_is_an_error_and_harms_nothing(own_cache, tmp_path, room_for):
    import resource

    cohort = toy_cohort(8, numbered)
    prepared(cohort.subset([0]))
    before = {p.name: p.read_bytes() for p in (own_cache / "images").glob("*.npz")}
    limit = 1000 if room_for == "nothing" else 8000  # bytes; an image takes 3.5 kB, eight laid together 24.6 kB
    answer = tmp_path / "answer"

    def work():
        try:
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
            prepared(cohort)
        except gl.GgoLabError as error:
            answer.write_text(str(error)[:900])

    run_and_die(work)
    assert "File too large" in answer.read_text(encoding="utf-8") and "GGO_LAB_CACHE" in answer.read_text(
        encoding="utf-8"
    )
    after = {p.name: p.read_bytes() for p in (own_cache / "images").iterdir()}
    assert before.items() <= after.items() and not [name for name in after if name.startswith(".")]
    assert len(prepared(cohort)) == 8


def as_somebody_else(work, tmp_path):
    """Run work in a copy of this process that may write into nothing that is here; what it gave, or its error."""
    answer = Path(tempfile.mkdtemp()) / "answer"
    answer.parent.chmod(0o777)
    for folder in (tmp_path, *tmp_path.parents[:-2]):  # pytest lets nobody else in
        folder.chmod(0o755)

    def ask():
        if os.getuid() == 0:
            os.setuid(65534)
        try:
            told = f"pixels {work().pixels.sum()}"
        except Exception as error:
            told = f"{type(error).__name__}: {error}"
        answer.write_text(told)

    run_and_die(ask)
    told = answer.read_text(encoding="utf-8")
    shutil.rmtree(answer.parent)
    return told


@pytest.mark.skipif(not hasattr(os, "setuid"), reason="needs users")
def test_a_cache_that_may_only_be_read_is_read(own_cache, tmp_path):
    """Shared by a class, say; or on a disk that was mounted so."""
    cohort = toy_cohort(6, numbered)
    images = prepared(cohort.subset(range(4)))
    for folder in (own_cache, own_cache / "images"):
        folder.chmod(0o555)
    try:
        assert as_somebody_else(lambda: prepared(cohort.subset(range(4))), tmp_path) == f"pixels {images.pixels.sum()}"
        told = as_somebody_else(lambda: prepared(cohort), tmp_path)
        assert told.startswith("GgoLabError") and "Permission denied" in told and "GGO_LAB_CACHE" in told
    finally:
        for folder in (own_cache, own_cache / "images"):
            folder.chmod(0o755)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs a system that can copy a process")
def test_two_processes_that_fill_one_cache_at_once_give_the_same_images(own_cache, tmp_path, monkeypatch):
    cohort, children = toy_cohort(12, numbered), []
    for number in range(2):
        if (child := os.fork()) == 0:
            try:
                (tmp_path / str(number)).write_bytes(prepared(cohort).pixels.tobytes())
            finally:
                os._exit(0)
        children.append(child)
    for child in children:
        os.waitpid(child, 0)
    monkeypatch.setenv("GGO_LAB_CACHE", str(tmp_path / "clean"))
    right = prepared(cohort).pixels.tobytes()
    assert [(tmp_path / str(number)).read_bytes() == right for number in range(2)] == [True, True]
    assert not [path for path in (own_cache / "images").iterdir() if path.name.startswith(".")]


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
