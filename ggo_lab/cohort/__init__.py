"""Tables of scans with labels, patients and splits, and where they come from."""

from ggo_lab.cohort.challenge import cov19_ctdb, write_predictions
from ggo_lab.cohort.datasets import covid_ct_md, mosmed, stoic
from ggo_lab.cohort.files import read_cohort
from ggo_lab.cohort.findings import Finding, Findings
from ggo_lab.cohort.layouts import write_as_cov19_ctdb, write_as_mosmed
from ggo_lab.cohort.phantoms import PAPER_GRADE_SHARES, phantom_cohort
from ggo_lab.cohort.real import RealScan, real_scans
from ggo_lab.cohort.splits import SPLITS
from ggo_lab.cohort.table import Cohort

__all__ = [
    "PAPER_GRADE_SHARES",
    "SPLITS",
    "Cohort",
    "Finding",
    "Findings",
    "RealScan",
    "cov19_ctdb",
    "covid_ct_md",
    "mosmed",
    "phantom_cohort",
    "read_cohort",
    "real_scans",
    "stoic",
    "write_as_cov19_ctdb",
    "write_as_mosmed",
    "write_predictions",
]
