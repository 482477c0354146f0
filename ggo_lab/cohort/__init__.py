"""Tables of scans with grades, patients and splits, and where they come from."""

from ggo_lab.cohort.files import read_cohort
from ggo_lab.cohort.phantoms import PAPER_GRADE_SHARES, phantom_cohort
from ggo_lab.cohort.table import SPLITS, Cohort

__all__ = ["PAPER_GRADE_SHARES", "SPLITS", "Cohort", "phantom_cohort", "read_cohort"]
