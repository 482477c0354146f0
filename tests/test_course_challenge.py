"""A challenge keeps its secret, takes one submission of a team, and judges the network that was handed in."""

import json
from pathlib import Path

import pytest

import ggo_lab as gl
from ggo_lab.cli import main
from ggo_lab.course.challenge import new_challenge, reveal, standings, submit

SENTENCE = "Macro-F1 between 0.2 and 0.5 on the hidden patients, and the critical ones worst."


@pytest.fixture(scope="module")
def model_file(tmp_path_factory):
    images = gl.prepare(gl.phantom_cohort(40, shape=(16, 64, 64)), gl.Recipe(size=32), progress=False)
    model = gl.build_backbone("squeezenet1_0", weights=None)
    gl.fit(model, images.train, images.validation, gl.TrainConfig(max_epochs=1, speed="plain"), progress=False)
    return gl.save_model(model, tmp_path_factory.mktemp("model") / "m.safetensors")


def test_from_new_to_reveal(tmp_path, model_file, capsys):
    folder = tmp_path / "challenge"
    secret = new_challenge(folder, patients=24, shape=(16, 64, 64))
    hidden = json.loads(secret.read_text())["seed"]
    assert str(hidden) not in (folder / "public.json").read_text()
    away = secret.rename(tmp_path / "teacher.json")
    arguments = ["challenge", "submit", str(folder), "--team", "a", "--model", str(model_file), "--sentence", SENTENCE]
    assert main(arguments) == 0 and "Team a has submitted" in capsys.readouterr().out
    with pytest.raises(gl.ChoiceError, match="has submitted"):
        submit(folder, "a", model_file, SENTENCE)
    with pytest.raises(gl.ChoiceError, match="secret is not there"):
        reveal(folder)
    reports = reveal(folder, away, progress=False)
    assert len(reports["a"].predictions) == 24
    table = standings(folder, reports)
    assert table.loc["a", "sentence"] == SENTENCE and table.loc["a", "low"] <= table.loc["a", "macro_f1"]
    assert main(["challenge", "reveal", str(folder), "--secret", str(away)]) == 0
    assert "a had said: Macro-F1" in capsys.readouterr().out


def test_two_challenges_have_other_patients_and_do_not_take_each_others_secret(tmp_path, model_file):
    secrets = [new_challenge(tmp_path / name, patients=20, shape=(16, 64, 64)) for name in ("one", "two")]
    seeds = [json.loads(secret.read_text())["seed"] for secret in secrets]
    assert seeds[0] != seeds[1] and min(seeds) >= 2**32
    submit(tmp_path / "one", "a", model_file, SENTENCE)
    with pytest.raises(gl.ChoiceError, match="another challenge"):
        reveal(tmp_path / "one", secrets[1])


def test_a_model_that_was_exchanged_afterwards_is_refused(tmp_path, model_file):
    new_challenge(tmp_path / "c", patients=20, shape=(16, 64, 64))
    submit(tmp_path / "c", "a", model_file, SENTENCE)
    (tmp_path / "c" / "submissions" / "a.safetensors").write_bytes(b"a better one")
    with pytest.raises(gl.ChoiceError, match="is not the file that team a handed in"):
        reveal(tmp_path / "c")


@pytest.mark.parametrize(
    ("team", "sentence", "said"), [("../a", SENTENCE, "letters, digits"), ("a", "good", "predicts too little")]
)
def test_what_does_not_do_is_refused_and_leaves_nothing(tmp_path, model_file, team, sentence, said):
    new_challenge(tmp_path / "c", patients=20, shape=(16, 64, 64))
    with pytest.raises(gl.ChoiceError, match=said):
        submit(tmp_path / "c", team, model_file, sentence)
    assert not any((tmp_path / "c" / "submissions").iterdir())


def test_a_file_that_is_no_model_is_refused(tmp_path):
    new_challenge(tmp_path / "c", patients=20, shape=(16, 64, 64))
    (tmp_path / "m.safetensors").write_bytes(b"nothing")
    with pytest.raises(gl.GgoLabError):
        submit(tmp_path / "c", "a", tmp_path / "m.safetensors", SENTENCE)
    with pytest.raises(gl.ChoiceError, match="no challenge"):
        submit(tmp_path, "a", tmp_path / "m.safetensors", SENTENCE)
    with pytest.raises(gl.ChoiceError, match="nobody has submitted"):
        reveal(tmp_path / "c")


def test_a_full_disk_leaves_the_team_another_try(tmp_path, model_file, monkeypatch):
    new_challenge(tmp_path / "c", patients=20, shape=(16, 64, 64))
    write = Path.write_bytes
    monkeypatch.setattr(Path, "write_bytes", lambda *_: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    with pytest.raises(OSError, match="No space"):
        submit(tmp_path / "c", "a", model_file, SENTENCE)
    monkeypatch.setattr(Path, "write_bytes", write)
    assert submit(tmp_path / "c", "a", model_file, SENTENCE).team == "a"
