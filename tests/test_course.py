"""Checks of exercises: what they say to right, wrong, missing and impossible answers."""

import numpy as np

import ggo_lab as gl


@gl.exercise
def check_third(answer):
    """Check a third."""
    if abs(answer - 1 / 3) > 0.01:
        return "Divide one by three."


def test_right_wrong_and_not_yet_given():
    assert check_third(0.333) == gl.RIGHT
    assert check_third(0.5) == "Divide one by three."
    assert check_third(...) == "Write your answer in place of the dots."
    assert check_third.__doc__ == "Check a third."


def test_an_answer_of_another_kind_is_told_so_without_a_traceback():
    assert "could not use this answer. TypeError" in check_third("a third")
    assert "ValueError" in check_third(np.zeros(3))  # neither true nor false


def test_a_text_must_be_more_than_a_word():
    assert gl.check_text("Because two dozen scans are few, the interval is wide.") == gl.RIGHT
    for answer in ("yes", " " * 80, 7):
        assert gl.check_text(answer).startswith("Write a sentence or two")
    assert "dots" in gl.check_text(...)
