import json
import re
from dataclasses import asdict, fields

import numpy as np
import pytest
import SimpleITK as sitk
from PIL import Image
from safetensors import safe_open

import ggo_lab as gl
from ggo_lab.backbones import RandomWeightsWarning
from ggo_lab.cli import _SETTINGS, main

SMALL = (16, 64, 64)


@pytest.fixture(scope="module")
def model_file(tmp_path_factory):
    """A model trained on a few small phantoms: what it answers does not matter here, that it is the same does."""
    folder = tmp_path_factory.mktemp("model")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GGO_LAB_CACHE", str(folder / "cache"))
        images = gl.prepare(gl.phantom_cohort(16, seed=1, shape=SMALL), gl.Recipe(size=64), jobs=1)
        model = gl.build_backbone("squeezenet1_0", extent="scratch", weights="none", seed=1)
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
    assert "not a medical device" in page.lower() and "http://" not in page


def test_a_real_dicom_series_is_graded(capsys, tmp_path, model_file, real_data):
    series = real_data / "cip_thorax" / "ct-64-dicom"
    code, out, err = answer(capsys, "grade", series, "--model", model_file, "--html", tmp_path / "page.html")
    assert code == 0, err
    assert graded(out)[0] in "1234" and (tmp_path / "page.html").stat().st_size > 100_000


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
    arguments = ["--cohort", tmp_path / "cohort.csv", "--backbone", "squeezenet1_0", "--extent", "scratch"]
    arguments += ["--weights", "none", "--size", 64, "--max-epochs", 1, "--out", out_file]
    code, out, err = answer(capsys, "train", *arguments)
    assert code == 0, err
    assert "drawn by patient" in out and "macro-F1" in out
    scan = gl.write_nifti(phantom, tmp_path / "scan.nii.gz")
    assert answer(capsys, "grade", scan, "--model", out_file)[0] == 0


def small_phantoms(monkeypatch):
    monkeypatch.setattr(
        "ggo_lab.cohort.phantoms.make_phantom",
        lambda involvement, seed, shape: gl.make_phantom(involvement=involvement, seed=seed, shape=(8, 48, 48)),
    )


def test_sweep_fills_a_folder_and_prints_its_table(capsys, tmp_path, monkeypatch):
    monkeypatch.setenv("GGO_LAB_CACHE", str(tmp_path / "cache"))
    small_phantoms(monkeypatch)
    arguments = ["--cohort", "phantom", "--scans", 12, "--size", 64, "--folder", tmp_path / "runs", "--weights", "none"]
    arguments += ["--max-epochs", 1, "--backbone", "squeezenet1_0", "--extent", "scratch", "--seed", 0, 1]
    arguments += ["--no-flip", "--speed", "plain"]
    code, out, err = answer(capsys, "sweep", *arguments)
    assert code == 0, err
    assert "validation_macro_f1" in out and out.count("squeezenet1_0") == 2
    assert len(list((tmp_path / "runs").glob("*.json"))) == 2


def test_train_goes_on_from_its_checkpoint(capsys, tmp_path, monkeypatch):
    monkeypatch.setenv("GGO_LAB_CACHE", str(tmp_path / "cache"))
    small_phantoms(monkeypatch)
    arguments = ["--cohort", "phantom", "--scans", 12, "--size", 64, "--backbone", "squeezenet1_0", "--weights", "none"]
    arguments += ["--extent", "scratch", "--checkpoint", tmp_path / "c", "--out", tmp_path / "m", "--loss", "corn"]
    arguments += ["--rotate", 5, "--balance", "loss", "--optimizer", "adamw"]
    for epochs in (1, 2):
        code, out, err = answer(capsys, "train", *arguments, "--max-epochs", epochs)
        assert code == 0, err
        assert f"History: {epochs} epochs" in out
    assert gl.load_model(tmp_path / "m").ordinal


def test_every_setting_has_its_flag_and_states_its_true_default():
    settings = {field.name: field.default for field in fields(gl.TrainConfig)}
    assert set(_SETTINGS) == set(settings)
    for name, (kind, said) in _SETTINGS.items():
        assert kind is type(settings[name])
        assert "(default" in said or not settings[name]
        stated = re.search(r"\(default ([^)]+)\)|(\S+) \(default\)", said)
        if stated and kind in (int, float, str):
            assert kind(stated[1] or stated[2]) == settings[name]


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
        (["train", "--cohort", "phantom", "--out", "m", "--where", "top"], "where='top'"),
        (["train", "--cohort", "phantom", "--out", "m", "--speed", "bf16,fast"], "speed='fast'"),
        (["train", "--cohort", "phantom", "--out", "m", "--min-delta", "8"], "min_delta=8"),
        (["sweep", "--cohort", "phantom", "--folder", "f", "--speed", "slow"], "speed='slow'"),
        (["prepare", "--cohort", "phantom", "--scans", "0"], "n=0"),
    ],
)
def test_bad_choices_are_named(capsys, arguments, message):
    code, _, err = answer(capsys, *arguments)
    assert code == 2 and message in err and err.count("\n") == 1
