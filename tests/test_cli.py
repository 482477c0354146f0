import io
import json
import os
import re
import subprocess
import sys
from dataclasses import asdict, fields

import numpy as np
import pandas as pd
import pytest
import SimpleITK as sitk
from PIL import Image
from safetensors import safe_open

import ggo_lab as gl
from ggo_lab.backbones import RandomWeightsWarning
from ggo_lab.cli import main

SMALL = (16, 64, 64)


@pytest.fixture(scope="module")
def model_file(tmp_path_factory):
    """A model trained on a few small phantoms: what it answers does not matter here, that it is the same does."""
    folder = tmp_path_factory.mktemp("model")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GGO_LAB_CACHE", str(folder / "cache"))
        images = gl.prepare(gl.phantom_cohort(16, seed=1, shape=SMALL), gl.Recipe(size=64), jobs=1)
        model = gl.build_backbone("squeezenet1_0", weights=None, seed=1)
        config = gl.TrainConfig(max_epochs=2, batch_size=8, speed="plain")
        history = gl.fit(model, images.train, images.validation, config)
        gl.save_model(model, folder / "model.safetensors", history)
    return folder / "model.safetensors"


@pytest.fixture(scope="module")
def phantom():
    return gl.make_phantom(involvement=0.6, seed=3, shape=SMALL)


def write_mha(scan, path):
    """As a DICOM series reaches MetaImage: first slice at the head, rows and columns as on the screen."""
    image = sitk.GetImageFromArray(scan.hu[::-1])
    image.SetSpacing(tuple(float(s) for s in scan.spacing[::-1]))
    image.SetDirection((1, 0, 0, 0, 1, 0, 0, 0, -1))
    sitk.WriteImage(image, str(path))
    return path


def write_jpg_folder(scan, folder):
    folder.mkdir()
    for number, hu in enumerate(scan.hu[::-1]):
        grey = gl.window(hu, *gl.WINDOWS["paper"])
        Image.fromarray(grey).save(folder / f"{number}.jpg", quality=95)
    return folder


def answer(capsys, *arguments):
    code = main(list(map(str, arguments)))
    printed = capsys.readouterr()
    return code, printed.out, printed.err


def graded(out):
    """The grade line and the four probabilities that were printed."""
    shares = [float(p) / 100 for p in re.findall(r"([\d.]+)%", out.split("Grade:")[0])]
    return re.search(r"^Grade: (\d)", out, re.M).group(1), np.array(shares[-4:])


def test_one_scan_in_three_formats_gets_one_grade(capsys, tmp_path, model_file, phantom):
    files = [
        gl.write_nifti(phantom, tmp_path / "scan.nii.gz"),
        write_mha(phantom, tmp_path / "scan.mha"),
        write_jpg_folder(phantom, tmp_path / "scan_jpg"),
    ]
    answers = []
    for file in files:
        code, out, err = answer(capsys, "grade", file, "--model", model_file)
        assert code == 0, err
        answers.append(graded(out))
    assert len({grade for grade, _ in answers}) == 1
    nifti, mha, jpg = (shares for _, shares in answers)
    assert nifti.sum() == pytest.approx(1, abs=0.003)
    assert np.array_equal(nifti, mha), "HU are the same to the voxel"
    assert np.abs(nifti - jpg).max() < 0.1, "JPG loses a little"


def test_grade_writes_a_page(capsys, tmp_path, model_file, phantom):
    scan = gl.write_nifti(phantom, tmp_path / "scan.nii.gz")
    code, out, _ = answer(capsys, "grade", scan, "--model", model_file, "--html", tmp_path / "page.html")
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert code == 0 and "page.html" in out
    assert "not a medical device" in page.lower()
    assert "http" not in page.replace("http-equiv", "").replace("http://www.w3.org/2000/svg", "")  # names, no addresses


def test_a_real_dicom_series_is_graded(capsys, tmp_path, model_file, real_data):
    series = real_data / "cip_thorax" / "ct-64-dicom"
    code, out, err = answer(capsys, "grade", series, "--model", model_file, "--html", tmp_path / "page.html")
    assert code == 0, err
    assert graded(out)[0] in "1234" and (tmp_path / "page.html").stat().st_size > 100_000
    # This chest breathed in fully and has no disease; what the grade says of it is another matter.
    assert "haze in 0% of them" in out


def bad_inputs(folder, phantom):
    (folder / "empty").mkdir()
    (folder / "text.nii.gz").write_text("this is no scan")
    whole = gl.write_nifti(phantom, folder / "whole.nii.gz").read_bytes()
    (folder / "cut.nii.gz").write_bytes(whole[: len(whole) // 2])
    (folder / "colour").mkdir()
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (32, 32, 3), np.uint8)).save(folder / "colour" / "1.png")
    import nibabel

    nibabel.save(nibabel.Nifti1Image(np.zeros((8, 8, 8, 3), np.int16), np.eye(4)), folder / "4d.nii.gz")
    names = ["absent.nii.gz", "empty", "text.nii.gz", "cut.nii.gz", "colour", "4d.nii.gz"]
    return [folder / name for name in names]


def test_bad_scans_end_in_one_sentence_and_exit_code_2(capsys, tmp_path, model_file, phantom):
    for path in bad_inputs(tmp_path, phantom):
        code, out, err = answer(capsys, "grade", path, "--model", model_file)
        assert code == 2, f"{path.name} was accepted:\n{out}"
        assert err.startswith("ggo-lab: ") and err.count("\n") == 1 and "Traceback" not in err, err
        assert path.name in err


@pytest.mark.parametrize("content", [None, b"", b"no model", b"\x80\x04\x95pickle"])
def test_bad_models_end_in_one_sentence_and_exit_code_2(capsys, tmp_path, phantom, content):
    scan, model = gl.write_nifti(phantom, tmp_path / "scan.nii.gz"), tmp_path / "model.safetensors"
    if content is not None:
        model.write_bytes(content)
    code, _, err = answer(capsys, "grade", scan, "--model", model)
    assert code == 2 and err.startswith("ggo-lab: ") and err.count("\n") == 1


def test_train_makes_a_model_that_grade_reads(capsys, tmp_path, monkeypatch, phantom):
    monkeypatch.setenv("GGO_LAB_CACHE", str(tmp_path / "cache"))
    rows = ["path,patient,grade"]
    for seed in range(12):
        scan = gl.make_phantom(grade=1 + seed % 4, seed=seed, shape=(8, 48, 48))
        gl.write_nifti(scan, tmp_path / f"{seed}.nii.gz")
        rows.append(f"{seed}.nii.gz,p{seed},{1 + seed % 4}")
    (tmp_path / "cohort.csv").write_text("\n".join(rows))
    out_file = tmp_path / "model.safetensors"
    arguments = ["--cohort", tmp_path / "cohort.csv", "--backbone", "squeezenet1_0", "--extent", "all"]
    arguments += ["--weights", "none", "--size", 64, "--max-epochs", 1, "--out", out_file]
    code, out, err = answer(capsys, "train", *arguments)
    assert code == 0, err
    assert "drawn by patient" in out and "macro-F1" in out
    scan = gl.write_nifti(phantom, tmp_path / "scan.nii.gz")
    assert answer(capsys, "grade", scan, "--model", out_file)[0] == 0


def test_a_table_is_opened_before_a_network_is_built_or_fetched(capsys, tmp_path, monkeypatch):
    def built(*_args, **_settings):
        raise AssertionError("45 MB may have been fetched for nothing")

    monkeypatch.setattr("ggo_lab.backbones.build_backbone", built)
    code, _, err = answer(capsys, "train", "--cohort", tmp_path / "nowhere.csv", "--out", tmp_path / "m.safetensors")
    assert code == 2 and "nowhere.csv" in err and err.count("\n") == 1


def small_phantoms(monkeypatch):
    monkeypatch.setattr(
        "ggo_lab.cohort.phantoms.make_phantom",
        lambda involvement, seed, shape: gl.make_phantom(involvement=involvement, seed=seed, shape=(8, 48, 48)),
    )


def test_sweep_fills_a_folder_and_prints_its_table(capsys, tmp_path, monkeypatch):
    monkeypatch.setenv("GGO_LAB_CACHE", str(tmp_path / "cache"))
    small_phantoms(monkeypatch)
    arguments = ["--cohort", "phantom", "--scans", 12, "--size", 64, "--folder", tmp_path / "runs", "--weights", "none"]
    arguments += ["--max-epochs", 1, "--backbone", "squeezenet1_0", "--extent", "all", "--seed", 0, 1]
    arguments += ["--no-flip", "--speed", "plain"]
    code, out, err = answer(capsys, "sweep", *arguments)
    assert code == 0, err
    assert "validation_macro_f1" in out and out.count("squeezenet1_0") == 2
    assert len(list((tmp_path / "runs").glob("*.json"))) == 2


def test_train_goes_on_from_its_checkpoint(capsys, tmp_path, monkeypatch):
    monkeypatch.setenv("GGO_LAB_CACHE", str(tmp_path / "cache"))
    small_phantoms(monkeypatch)
    arguments = ["--cohort", "phantom", "--scans", 12, "--size", 64, "--backbone", "squeezenet1_0", "--weights", "none"]
    arguments += ["--extent", "all", "--checkpoint", tmp_path / "c", "--out", tmp_path / "m", "--loss", "corn"]
    arguments += ["--rotate", 5, "--balance", "loss", "--optimizer", "adamw"]
    for epochs in (1, 2):
        code, out, err = answer(capsys, "train", *arguments, "--max-epochs", epochs)
        assert code == 0, err
        assert f"History: {epochs} epochs" in out
    assert gl.load_model(tmp_path / "m").reading == "corn"


@pytest.mark.parametrize("command", ["train", "sweep"])
def test_every_setting_has_its_flag_and_states_its_default(capsys, command):
    with pytest.raises(SystemExit):
        main([command, "--help"])
    said = " ".join(capsys.readouterr().out.split())
    for field in fields(gl.TrainConfig):
        (about,) = re.findall(rf"(?<=[^,]) --{field.name.replace('_', '-')}[ ,](.*?\(default: .*?\))(?= )", said)[-1:]
        assert about.endswith(f"(default: {field.default})") and len(about.split()) > 5, about


def test_help_does_not_wait_for_torch():
    code = "import sys; from ggo_lab.cli import main; main([]); assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


def settings_in(model_file):
    with safe_open(model_file, "pt") as file:
        return json.loads(file.metadata()["ggo_lab"])["config"]


def test_what_is_typed_is_what_the_run_is_given(capsys, tmp_path, monkeypatch):
    monkeypatch.setenv("GGO_LAB_CACHE", str(tmp_path / "cache"))
    small_phantoms(monkeypatch)
    arguments = ["--cohort", "phantom", "--scans", 12, "--size", 64, "--out", tmp_path / "m", "--weights", "none"]
    arguments += ["--backbone", "squeezenet1_0", "--extent", "head", "--unfreeze-at", 2, 3, "--speed", "channels_last"]
    arguments += ["--min-delta", 0.05, "--views", 2, "--no-flip", "--no-reuse-frozen", "--device", "cpu"]
    arguments += ["--patience", 3, "--max-epochs", 1, "--seed", 7, "--lr", 1e-4, "--batch-size", 4]
    with pytest.warns(RandomWeightsWarning):
        code, _, err = answer(capsys, "train", *arguments)
    assert code == 0, err
    given = {"unfreeze_at": [2, 3], "speed": [True, False, False], "min_delta": 0.05, "views": 2, "flip": False}
    given |= {"reuse_frozen": False, "device": "cpu", "patience": 3, "max_epochs": 1, "seed": 7, "lr": 1e-4}
    assert settings_in(tmp_path / "m") == {**asdict(gl.TrainConfig()), **given, "batch_size": 4}


def test_prepare_fills_the_cache(capsys, tmp_path, monkeypatch):
    monkeypatch.setenv("GGO_LAB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(
        "ggo_lab.cohort.phantoms.make_phantom",
        lambda **choices: gl.make_phantom(**{**choices, "shape": (8, 48, 48)}),
    )
    code, out, _ = answer(capsys, "prepare", "--cohort", "phantom", "--scans", 3, "--size", 32)
    assert code == 0 and "ImageSet of 3 images" in out
    assert len(list((tmp_path / "cache" / "images").glob("*.npz"))) == 3


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["train", "--cohort", "absent.csv", "--out", "m"], "absent.csv: no such file"),
        (["train", "--cohort", "phantom", "--out", "m", "--backbone", "resnet19"], "resnet19"),
        (["train", "--cohort", "phantom", "--out", "m", "--pick", "top"], "pick='top'"),
        (["train", "--cohort", "phantom", "--out", "m", "--speed", "bf16,fast"], "speed='fast'"),
        (["train", "--cohort", "phantom", "--out", "m", "--min-delta", "8"], "min_delta=8"),
        (["sweep", "--cohort", "phantom", "--folder", "f", "--speed", "slow"], "speed='slow'"),
        (["prepare", "--cohort", "phantom", "--scans", "0"], "n=0"),
    ],
)
def test_bad_choices_are_named(capsys, arguments, message):
    code, _, err = answer(capsys, *arguments)
    assert code == 2 and message in err and err.count("\n") == 1


def cohort_table(folder, scans=4):
    rows = ["path,patient,grade"]
    for seed in range(scans):
        gl.write_nifti(gl.make_phantom(grade=1 + seed % 4, seed=seed, shape=(8, 48, 48)), folder / f"{seed}.nii.gz")
        rows.append(f"{seed}.nii.gz,p{seed},{1 + seed % 4}")
    (folder / "cohort.csv").write_text("\n".join(rows))
    return folder / "cohort.csv"


def contents(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_no_output_is_an_input(capsys, tmp_path, model_file):
    """Whatever is read is there afterwards, even with --force, and nothing was worked on for nothing."""
    table = cohort_table(tmp_path)
    scan, model = tmp_path / "0.nii.gz", tmp_path / "model.safetensors"
    model.write_bytes(model_file.read_bytes())
    (tmp_path / "link.html").symlink_to(scan)
    os.link(model, tmp_path / "model.html")
    os.link(table, tmp_path / "table.safetensors")
    (tmp_path / "scan.safetensors").symlink_to(tmp_path / "1.nii.gz")
    before = contents(tmp_path)
    train = ["train", "--cohort", table, "--weights", "none", "--size", 64]
    for arguments in (
        ["grade", scan, "--model", model, "--html", scan],
        ["grade", scan, "--model", model, "--html", tmp_path / "link.html"],
        ["grade", scan, "--model", model, "--html", model],
        ["grade", scan, "--model", model, "--html", tmp_path / "model.html"],
        [*train, "--out", table],
        [*train, "--out", tmp_path / "table.safetensors"],
        [*train, "--out", tmp_path / "scan.safetensors"],
        [*train, "--out", tmp_path / "m", "--checkpoint", table],
        [*train, "--out", tmp_path / "m", "--checkpoint", tmp_path / "2.nii.gz"],
        [*train, "--out", tmp_path / "m", "--checkpoint", tmp_path / "." / "m"],
        [*train, "--weights", model, "--out", model],
    ):
        for force in ([], ["--force"]):
            code, out, err = answer(capsys, *arguments, *force)
            assert code == 2 and err.count("\n") == 1, f"{arguments}: {out}"
            assert "ImageSet" not in out
    assert contents(tmp_path) == before


def test_a_file_of_another_kind_is_replaced_only_by_force(capsys, tmp_path, model_file, phantom):
    scan = gl.write_nifti(phantom, tmp_path / "scan.nii.gz")
    notes = tmp_path / "notes.html"
    notes.write_text("my notes of ten years")
    code, out, err = answer(capsys, "grade", scan, "--model", model_file, "--html", notes)
    assert code == 2 and "--force" in err and notes.read_text() == "my notes of ten years" and "Grade:" not in out
    assert answer(capsys, "grade", scan, "--model", model_file, "--html", notes, "--force")[0] == 0
    assert notes.read_text(encoding="utf-8").startswith("<!DOCTYPE html>")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["notes.html", "scan.nii.gz"]


@pytest.mark.parametrize("place", ["cohort.csv/m.safetensors", "folder", "/proc/m.safetensors", "m.html"])
def test_a_place_to_write_is_checked_before_the_training(capsys, tmp_path, place):
    (tmp_path / "folder").mkdir()
    code, out, err = answer(capsys, "train", "--cohort", cohort_table(tmp_path), "--out", tmp_path / place)
    assert code == 2 and err.count("\n") == 1 and "ImageSet" not in out


def test_bare_help_and_version_and_an_example_for_every_command(capsys):
    code, out, _ = answer(capsys)
    assert code == 0 and "grade" in out and "--help" in out
    commands = re.findall(r"^    (\w+)", out, re.M)
    assert {"grade", "train", "sweep", "prepare", "check"} < set(commands)
    for command in commands:
        with pytest.raises(SystemExit) as ended:
            main([command, "--help"])
        assert ended.value.code == 0
        said = capsys.readouterr().out
        assert f"example:\n  ggo-lab {command}" in said and re.search(r"^[A-Z].*\.", said, re.M)
    with pytest.raises(SystemExit):
        main(["--version"])
    assert capsys.readouterr().out == f"ggo-lab {gl.__version__}\n"


def test_backbones_and_check_say_what_is_here(capsys, monkeypatch, tmp_path):
    monkeypatch.setenv("GGO_LAB_CACHE", str(tmp_path / "cache"))
    code, out, _ = answer(capsys, "backbones")
    assert code == 0 and out.split() == list(gl.BACKBONES)
    code, out, _ = answer(capsys, "check")
    assert code == 0 and str(tmp_path / "cache") in out and not (tmp_path / "cache").exists()
    for word in (gl.__version__, "torch 2", "ipywidgets", "threads", "GPU", "weights", "writable"):
        assert word in out
    monkeypatch.setenv("GGO_LAB_CACHE", "/proc/cache")
    assert "NOT writable" in answer(capsys, "check")[1]


def test_many_scans_make_a_table_and_bad_ones_stop_nothing(capsys, tmp_path, model_file, phantom):
    good = [gl.write_nifti(phantom, tmp_path / f"{n}.nii.gz") for n in range(2)]
    bad = tmp_path / "bad.nii.gz"
    bad.write_text("no scan")
    files = ["--csv", tmp_path / "t.csv", "--json", tmp_path / "t.json"]
    code, out, err = answer(capsys, "grade", good[0], bad, good[1], "--model", model_file, *files)
    assert code == 1 and "bad.nii.gz" in err and err.count("ggo-lab: ") == 1
    assert out.count(str(tmp_path)) == 2 and "probability" in out
    rows = json.loads((tmp_path / "t.json").read_text())
    assert [row["scan"] for row in rows] == [str(path) for path in good]
    assert sum(rows[0]["probabilities"].values()) == pytest.approx(1, abs=1e-4)
    table = pd.read_csv(tmp_path / "t.csv")
    assert list(table["scan"]) == [str(path) for path in good]
    assert list(table.columns[:4]) == ["scan", "class", "number", "name"] and len(table.columns) == 9
    assert list(table["haze"]) == [row["haze"] for row in rows] and table["haze"].between(0, 1).all()
    again = answer(capsys, "grade", good[0], "--model", model_file, *files)
    assert again[0] == 0 and len(pd.read_csv(tmp_path / "t.csv")) == 1, "its own tables are replaced"
    assert answer(capsys, "grade", bad, bad, "--model", model_file)[0] == 2
    for form in ("csv", "json"):
        code, out, err = answer(capsys, "grade", *good, "--model", model_file, f"--{form}", "-")
        assert code == 0 and not err
        assert len(json.loads(out) if form == "json" else pd.read_csv(io.StringIO(out))) == 2
    for wrong in (["--html", tmp_path / "p.html"], ["--csv", "-", "--json", "-"]):
        assert answer(capsys, "grade", *good, "--model", model_file, *wrong)[0] == 2


def test_another_programs_table_is_no_output(capsys, tmp_path, model_file, phantom):
    scan = gl.write_nifti(phantom, tmp_path / "scan.nii.gz")
    for name, flag, content in (("a.csv", "--csv", "path,grade\n"), ("a.json", "--json", '{"a": 1}')):
        (tmp_path / name).write_text(content)
        code, out, _ = answer(capsys, "grade", scan, "--model", model_file, flag, tmp_path / name)
        assert code == 2 and "Grade:" not in out and (tmp_path / name).read_text() == content


def test_names_cannot_give_orders_to_the_terminal(capsys, tmp_path, model_file, phantom):
    """Escape codes, text turned round, line breaks and bytes that are no UTF-8, in names of files."""
    for number, evil in enumerate((b"\x1b[2J\x1b]0;owned\x07", "\u202egpj".encode(), b"\xff\xfe", b"two\nlines\r")):
        name = os.path.join(os.fsencode(tmp_path), evil + b"%d.nii.gz" % number)
        written = gl.write_nifti(phantom, tmp_path / "plain.nii.gz")
        os.rename(written, name)
        code, out, err = answer(capsys, "grade", os.fsdecode(name), "--model", model_file)
        assert code == 0, err
        code, _, refused = answer(capsys, "grade", os.fsdecode(name) + "x", "--model", model_file)
        assert code == 2 and refused.count("\n") == 1
        for text in (out, err, refused):
            assert all(line.isprintable() for line in text.split("\n"))
            text.encode()


def test_a_reader_that_has_seen_enough_is_no_error():
    command = f"{sys.executable} -m ggo_lab.cli backbones"
    ran = subprocess.run(["bash", "-c", f"{command} | true; echo ${{PIPESTATUS[0]}}"], capture_output=True, text=True)
    assert ran.stderr == "" and ran.stdout.strip() in ("0", "1")


def test_a_table_may_hold_any_path(capsys, tmp_path):
    for path in ("a\0b.nii.gz", "x" * 5000, "\x1b[2J", "..", "/dev/zero", "~nobody/x.nii", "\udcff"):
        (tmp_path / "t.csv").write_text(f"path,grade\n{path}\n", encoding="utf-8", errors="surrogateescape")
        code, _, err = answer(capsys, "prepare", "--cohort", tmp_path / "t.csv", "--size", 16)
        assert code == 2 and err.splitlines()[-1].startswith("ggo-lab: ") and "Traceback" not in err
        assert all(line.isprintable() for line in err.split("\n"))


def test_an_output_may_be_typed_as_anything(capsys, tmp_path, monkeypatch, model_file, phantom):
    monkeypatch.chdir(tmp_path)
    scan, table = gl.write_nifti(phantom, tmp_path / "scan.nii.gz"), cohort_table(tmp_path, 1)
    for odd in ("a\0b", "\x1b[2J" * 99, "x" * 5000, ".", "/", "~nobody-of-this-name/" + "x" * 300):
        for line in (
            ["grade", scan, "--model", model_file, "--html", odd],
            ["grade", scan, "--model", model_file, "--json", odd],
            ["train", "--cohort", table, "--weights", "none", "--out", odd],
            ["train", "--cohort", table, "--weights", "none", "--out", tmp_path / "m", "--checkpoint", odd],
        ):
            code, out, err = answer(capsys, *line)
            assert code == 2 and err.count("\n") == 1 and "ImageSet" not in out, (line, err)


def test_settings_that_no_machine_holds_are_refused_at_once(capsys, tmp_path):
    for wrong in (["--size", "20000"], ["--size", "0"], ["--size", "-5"]):
        code, _, err = answer(capsys, "prepare", "--cohort", "phantom", *wrong)
        assert code == 2 and "size=" in err and err.count("\n") == 1
