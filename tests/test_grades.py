"""The four grades: numbers, bands and their edges, and what is refused."""

import pytest

from ggo_lab.errors import ChoiceError
from ggo_lab.grades import BAND_EDGES, GRADE_NAMES, Grade, grade_of


@pytest.mark.parametrize(
    ("involvement", "grade"),
    [
        (1e-6, Grade.MILD),
        (0.25, Grade.MILD),
        (0.2501, Grade.MODERATE),
        (0.5, Grade.MODERATE),
        (0.5001, Grade.SEVERE),
        (0.7499, Grade.SEVERE),
        (0.75, Grade.CRITICAL),
        (1.0, Grade.CRITICAL),
    ],
)
def test_the_edges_belong_where_the_data_sets_put_them(involvement, grade):
    assert grade_of(involvement) is grade


def test_no_lesion_has_no_grade():
    assert grade_of(0.0) is None


@pytest.mark.parametrize("involvement", [-0.01, 1.01, 30, float("nan")])
def test_what_is_no_fraction_is_refused(involvement):
    with pytest.raises(ChoiceError, match=r"from 0 to 1 \(0\.3 for 30%\)") as caught:
        grade_of(involvement)
    assert caught.value.subject is involvement


def test_numbers_indices_and_names_agree_with_the_data_sets():
    assert [int(g) for g in Grade] == [1, 2, 3, 4]
    assert [g.index for g in Grade] == [0, 1, 2, 3]
    assert GRADE_NAMES == ("mild", "moderate", "severe", "critical")
    assert len({g.color for g in Grade}) == 4


def test_bands_tile_the_whole_range_and_hold_their_grade():
    bands = [g.band for g in Grade]
    assert bands[0][0] == 0.0 and bands[-1][1] == 1.0
    assert tuple(upper for _, upper in bands[:-1]) == BAND_EDGES == tuple(lower for lower, _ in bands[1:])
    for grade, (lower, upper) in zip(Grade, bands, strict=True):
        assert grade_of((lower + upper) / 2) is grade
