"""What a network would say if a phantom had more or less disease: the same patient, made again."""

import html
from collections.abc import Callable

import ipywidgets as widgets
import numpy as np

from ggo_lab.cohort import Cohort
from ggo_lab.grades import GRADE_NAMES, Grade
from ggo_lab.scan import Scan
from ggo_lab.viewers.verdicts import fine, paragraph

MOST_INVOLVED = 0.9
# Where the curve is computed: ten patients, two or three in each band.
STEPS = tuple(round(float(x), 2) for x in np.linspace(0, MOST_INVOLVED, 10))
_WIDTH, _HEIGHT, _LEFT, _TOP = 520, 170, 36, 22  # pixels of the drawing, and its margins
_DASHES = ("", "7 3", "2 3", "9 3 2 3")  # a line a grade, to be told apart without its colour


def can_be_remade(cohort: Cohort, name: str) -> bool:
    """Whether a scan is a phantom of phantom_cohort, whose row says how to make it."""
    return {"involvement", "phantom_seed"} <= cohort.row(name).keys()


def remake(cohort: Cohort, name: str, involvement: float) -> Scan:
    """Make a phantom again with another involvement, 0..0.9: anatomy, scanner, noise and places of disease stay."""
    scan = cohort.open_row({**cohort.row(name), "involvement": involvement})
    return scan.renamed(f"{name}, remade with {involvement:.0%} involved")


class WhatIf:
    """The controls: a slider of involvement, and the curve of the answers.

    Args:
        choose: called with the involvement asked for, None for the scan as it is.
        trace: called to compute the whole curve.
    Attributes:
        box: the widget to show.
    """

    def __init__(self, choose: Callable[[float | None], None], trace: Callable[[], object]):
        self.slider = widgets.FloatSlider(
            min=0, max=MOST_INVOLVED, step=0.01, description="involvement", readout_format=".0%",
            continuous_update=False, layout=widgets.Layout(flex="1 1 300px"), style={"description_width": "auto"},
        )  # fmt: skip
        self.reset = widgets.Button(description="as it is", layout=widgets.Layout(width="90px"))
        self.whole = widgets.Button(layout=widgets.Layout(width="auto"))
        self.drawing = widgets.HTML()
        title = widgets.HTML(paragraph("<b>What if this patient had more or less disease?</b>"))
        self.box = widgets.VBox(
            [
                title,
                widgets.HBox([self.slider, self.reset, self.whole], layout=widgets.Layout(flex_flow="row wrap")),
                self.drawing,
            ],
            layout=widgets.Layout(width=f"{_WIDTH + 10}px", max_width="100%"),
        )
        self._following = False
        self.slider.observe(lambda change: None if self._following else choose(change.new), "value")
        self.reset.on_click(lambda _: choose(None))
        self.whole.on_click(lambda _: trace())

    def show(self, answers: dict[float, np.ndarray], own: float, now: float, seconds: float) -> None:
        """Bring the controls in line.

        Args:
            answers: probabilities (4,) by involvement, as far as they are known.
            own: the involvement that the scan has.
            now: the one now shown.
            seconds: that one patient takes.
        """
        self._following = True
        self.slider.value = now
        self._following = False
        left = sum(x not in answers for x in STEPS)
        self.whole.disabled = left == 0
        self.whole.description = f"draw the curve: {left} patients, about {max(1, round(left * seconds))} s"
        self.reset.disabled = now == own
        self.drawing.value = draw(answers, own, now) + fine(html.escape(turns(answers)))


def turns(answers: dict[float, np.ndarray]) -> str:
    """Say between which involvements the answer turns from one grade to another.

    >>> mild, severe = np.array([0.9, 0.1, 0, 0]), np.array([0, 0.1, 0.9, 0])
    >>> turns({0.1: mild, 0.2: mild, 0.3: severe})
    'The answer turns from mild to severe between 20% and 30%.'
    """
    if len(answers) < 2:
        return "Each patient is made again with the same anatomy, scanner and noise; only the disease grows or shrinks."
    xs = sorted(answers)
    grades = [GRADE_NAMES[int(answers[x].argmax())] for x in xs]
    found = [
        f"from {before} to {after} between {x:.0%} and {y:.0%}"
        for x, y, before, after in zip(xs, xs[1:], grades, grades[1:], strict=False)
        if before != after
    ]
    if not found:
        return f"The answer is {grades[0]} from {xs[0]:.0%} to {xs[-1]:.0%}, however much disease there is."
    return f"The answer turns {'; '.join(found)}."


def draw(answers: dict[float, np.ndarray], own: float, now: float) -> str:
    """The four probabilities over the involvement as a drawing, SVG: a line a grade, the grades' bands behind them."""
    parts = [
        f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" width="{_WIDTH}" style="max-width:100%" role="img" font-size="11" '
        f'fill="currentColor" stroke-linecap="round" aria-label="{html.escape(_spoken(answers))}">'
    ]
    bottom = _y(0)
    for grade in Grade:
        low, high = (_x(edge) for edge in grade.band)
        shade = 0.10 if grade.index % 2 else 0.04
        line = _line(grade, [(low + 8, 9), (low + 34, 9)])
        parts.append(
            f'<rect x="{low:.1f}" y="{_TOP - 6}" width="{high - low:.1f}" height="{bottom - _TOP + 6:.1f}" '
            f'opacity="{shade}"/>{line}<text x="{low + 40:.1f}" y="13">{grade.label}</text>'
        )
    for share in (0, 0.5, 1):
        parts.append(
            f'<text x="{_LEFT - 5}" y="{_y(share) + 4:.1f}" text-anchor="end" opacity=".75">{share:.0%}</text>'
        )
    for edge in (0, 0.25, 0.5, 0.75, 1):
        anchor = "middle" if edge < 1 else "end"
        parts.append(
            f'<text x="{_x(edge):.1f}" y="{bottom + 14:.1f}" text-anchor="{anchor}" opacity=".75">{edge:.0%}</text>'
        )
    parts.append(f'<text x="{_x(0.5):.1f}" y="{_HEIGHT - 3}" text-anchor="middle" opacity=".75">lung involved</text>')
    for x, width, dash in ((own, 1.5, ""), (now, 1.5, "3 3")):
        parts.append(
            f'<path d="M{_x(x):.1f} {_TOP - 6}V{bottom:.1f}" stroke="currentColor" stroke-width="{width}" '
            f'stroke-dasharray="{dash}"/>'
        )
    xs = sorted(answers)
    for grade in Grade:
        places = [(_x(x), _y(float(answers[x][grade.index]))) for x in xs]
        parts.append(_line(grade, places))
        parts += [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="2.6" fill="{grade.color}"/>' for x, y in places]
    return "".join(parts) + "</svg>"


def _spoken(answers: dict[float, np.ndarray]) -> str:
    said = ", ".join(f"at {x:.0%} {GRADE_NAMES[int(answers[x].argmax())]}" for x in sorted(answers))
    return f"Predicted grade by involvement: {said}"


def _line(grade: Grade, places: list[tuple[float, float]]) -> str:
    points = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
    return (
        f'<polyline points="{points}" fill="none" stroke="{grade.color}" stroke-width="2.2" '
        f'stroke-dasharray="{_DASHES[grade.index]}"/>'
    )


def _x(involvement: float) -> float:
    return _LEFT + involvement * (_WIDTH - _LEFT - 6)


def _y(share: float) -> float:
    return _TOP + (1 - share) * (_HEIGHT - _TOP - 32)
