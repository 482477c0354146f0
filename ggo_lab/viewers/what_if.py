"""What a network would say if a phantom had more or less disease: the same patient, made again."""

import numpy as np

from ggo_lab.cohort import Cohort
from ggo_lab.scan import Scan
from ggo_lab.tasks import GGO_SEVERITY, Task

MOST_INVOLVED = 0.9
# Where the curve is computed: ten patients, two or three in each band.
STEPS = tuple(round(float(x), 2) for x in np.linspace(0, MOST_INVOLVED, 10))


def can_be_remade(cohort: Cohort, name: str) -> bool:
    """Return whether a scan is a phantom of phantom_cohort, whose row says how to make it."""
    return {"involvement", "phantom_seed"} <= cohort.row(name).keys()


def remake(cohort: Cohort, name: str, involvement: float) -> Scan:
    """Make a phantom again with another involvement, 0..0.9: anatomy, scanner, noise and places of disease stay."""
    scan = cohort.open_row({**cohort.row(name), "involvement": involvement})
    return scan.renamed(f"{name}, remade with {involvement:.0%} involved")


def turns(answers: dict[float, np.ndarray], task: Task = GGO_SEVERITY) -> str:
    """Return in words between which involvements the answer turns from one class to another.

    >>> mild, severe = np.array([0.9, 0.1, 0, 0]), np.array([0, 0.1, 0.9, 0])
    >>> turns({0.1: mild, 0.2: mild, 0.3: severe})
    'The answer turns from mild to severe between 20% and 30%.'
    """
    if len(answers) < 2:
        return "Each patient is made again with the same anatomy, scanner and noise; only the disease grows or shrinks."
    xs = sorted(answers)
    grades = [task.names[int(answers[x].argmax())] for x in xs]
    found = [
        f"from {before} to {after} between {x:.0%} and {y:.0%}"
        for x, y, before, after in zip(xs, xs[1:], grades, grades[1:], strict=False)
        if before != after
    ]
    if not found:
        return f"The answer is {grades[0]} from {xs[0]:.0%} to {xs[-1]:.0%}, however much disease there is."
    return f"The answer turns {'; '.join(found)}."


def spoken(answers: dict[float, np.ndarray], task: Task) -> str:
    """Return the predicted class at every involvement, for those who do not see the curve."""
    said = ", ".join(f"at {x:.0%} {task.names[int(answers[x].argmax())]}" for x in sorted(answers))
    return f"Predicted {task.noun} by involvement: {said}"
