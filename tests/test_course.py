"""Checks of exercises: what they say to right, wrong, missing and impossible answers, in whatever form."""

import re

import numpy as np
import pytest
import torch
from IPython.core.interactiveshell import InteractiveShell

import ggo_lab as gl


def check_for(gives, right):
    """Make a check of one right answer."""
    return gl.exercise(lambda answer: None if np.all(answer == right) else "Try again.", gives=gives)


@gl.exercise(gives=float)
def check_third(answer):
    """Check a third."""
    if abs(answer - 1 / 3) > 0.01:
        return "Divide one by three."


def test_right_wrong_and_not_yet_given():
    assert check_third(0.333) == gl.RIGHT
    assert check_third(0.5) == "Divide one by three."
    assert check_third(...) == "Write your answer in place of the dots."
    assert check_third.__doc__ == "Check a third."


@pytest.mark.parametrize(
    ("gives", "right", "answers"),
    [
        (int, 12, [12, 12.0, "12", " 12 ", "12.0", np.int64(12), np.array([12]), torch.tensor(12), [12]]),
        (float, 0.25, [0.25, "0.25", np.float32(0.25), torch.tensor([0.25], requires_grad=True), "2.5e-1"]),
        (gl.GGO_SEVERITY, 1, ["moderate", "Moderate", 2, "2", 2.0, np.int64(2), "2.0"]),
        (gl.tasks.MOSMED, 0, ["CT-0", "ct 0", 0, "0", np.uint8(0)]),
        (bool, True, [True, np.True_, "yes", "True", "true ", 1]),
        (bool, False, [False, np.False_, "No", "false", 0]),
        (str, "case 7", ["case 7", " case 7", np.str_("case 7")]),
        (set, {"a", "b"}, [{"a", "b"}, ["b", "a"], ("a", "b"), frozenset("ab")]),
        ((float, float), (1, 2), [(1, 2), [1, 2], np.array([1, 2]), ("1", "2.0"), torch.tensor([1.0, 2.0])]),
        (np.ndarray, [1, 2], [np.array([1, 2]), [1, 2], (1.0, 2.0), torch.tensor([1, 2])]),
    ],
)
def test_a_right_answer_is_right_in_every_form(gives, right, answers):
    check = check_for(gives, right)
    for answer in answers:
        assert check(answer) == gl.RIGHT, answer


ODD = [None, "a third", "0,25", "25%", [1, 2, 3], {}, np.zeros(3), np.zeros((2, 2)), torch.zeros(2, 3), (0, 25), len,
       lambda: 1, object(), float("nan"), np.inf, 1j, True, b"1", np.array(["x"]), gl.Recipe(), 7, -1, "", 10**400,
       range(2), "nan", gl, np.array(None), [[1], [1, 2]], {"a": 1}]  # fmt: skip


@pytest.mark.parametrize(
    "gives",
    [None, int, float, bool, str, set, np.ndarray, (float, float), callable, gl.GGO_SEVERITY, gl.Recipe],
    ids=str,
)
def test_an_answer_of_another_kind_is_told_so_in_words(gives):
    """No word of numpy's, torch's or Python's own errors, and one sentence or two."""

    @gl.exercise(gives=gives)
    def check(answer):
        found = answer(1, 2) if gives is callable else answer
        return "It is something else." if found[0] + found.size < 3 else "It is still something else."

    for answer in ODD:
        said = check(answer)
        assert said != gl.RIGHT and len(said) > 10 and "\n" not in said
        if gives is not callable:
            assert not re.search(r"Error|ambiguous|ufunc|dtype|object is not", said), f"{answer!r}: {said}"


def test_each_kind_says_what_it_needs():
    assert check_for(float, 0.28)("0,28") == "Write a decimal point, not a comma: 0.28."
    assert check_for(float, 0.28)((0, 28)) == "Write a decimal point, not a comma: 0.28."
    assert check_for(float, 0.28)("28%") == "Give a share of 1: 0.28 instead of 28%."
    assert check_for(int, 3)(2.5) == "Give a whole number; this is 2.5."
    assert "lack its return" in check_for(float, 1)(None)
    assert check_for(callable, 1)(5) == "Give a function: its name, without brackets. This is 5."
    assert check_for(gl.Recipe, 1)(3) == "Give a Recipe; this is 3."
    assert "1 (mild), 2 (moderate)" in check_for(gl.GGO_SEVERITY, 1)("grave")


def test_a_label_that_is_meant_as_one_is_asked_back():
    check = check_for(gl.GGO_SEVERITY, 1)
    assert check(1) == "Grade 1 is mild. If you meant the label 1, write its name."
    assert check(3) == "Try again."


def test_what_stops_a_learners_function_is_said():
    check = gl.exercise(lambda function: None if function(2) == 4 else "Square it.", gives=callable)
    assert check(lambda x: x * x) == gl.RIGHT
    assert check(lambda x: x) == "Square it."
    assert (
        check(lambda x: x.square()) == "Your function stops with AttributeError: 'int' object has no attribute 'square'"
    )
    assert check(lambda: 1).startswith("Your function stops with TypeError")


def test_right_and_wrong_look_different_and_names_are_escaped():
    shown = [gl.RIGHT, check_third(2), check_third(...), gl.NOTED]
    assert len({verdict.sign for verdict in shown}) == 4 and gl.RIGHT.colour != shown[1].colour
    wrong = gl.exercise(lambda answer: f"not {answer}")("<script>")
    assert "&lt;script&gt;" in wrong._repr_html_() and "<script>" not in wrong._repr_html_()
    assert repr(wrong) == "✗ not <script>" and str(wrong) == "not <script>"


def test_an_open_answer_is_noted_never_right():
    assert gl.check_text("Because two dozen scans are few, the interval is wide.") == gl.NOTED != gl.RIGHT
    for answer in ("yes", " " * 80, 7, "x" * 40, "ha " * 30, None, ["a"] * 50, "a b c d e f", "-" * 99):
        assert gl.check_text(answer).startswith("Write a sentence or two"), answer
    assert "dots" in gl.check_text(...)


@pytest.fixture
def shell(monkeypatch, tmp_path):
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path))
    shell = InteractiveShell.instance()
    yield shell
    InteractiveShell.clear_instance()


def test_a_solution_overwrites_nothing_and_its_assertions_count(shell):
    shell.run_cell("import ggo_lab as gl; gl.start_lesson(); answer_1 = ...; base = 6").raise_error()
    done = shell.run_cell("%%solution\n# Solution\ndef double(x):\n    return base * x\nanswer_1 = double(2)\n"
                          "assert answer_1 == 12")  # fmt: skip
    done.raise_error()
    assert shell.user_ns["answer_1"] is ... and "double" not in shell.user_ns
    assert isinstance(shell.run_cell("%%solution\nassert answer_1 == 12").error_in_exec, AssertionError)


def test_an_error_of_ours_is_one_sentence_and_others_keep_their_traceback(shell, capsys):
    shell.run_cell("import ggo_lab as gl; gl.start_lesson()").raise_error()
    capsys.readouterr()
    failed = shell.run_cell("gl.read_scan('absent.nii.gz')")
    assert isinstance(failed.error_in_exec, gl.ScanError)
    said = "".join(capsys.readouterr())
    assert "absent.nii.gz" in said and "%tb" in said and "readers" not in said and said.strip().count("\n") <= 2
    shell.run_cell("%tb")
    assert "read_scan" in "".join(capsys.readouterr())
    shell.run_cell("1 / 0")
    assert "Traceback" in "".join(capsys.readouterr())
