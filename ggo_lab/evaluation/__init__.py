"""Predict, judge with error bars, compare with what no network would reach."""

from ggo_lab.evaluation.baselines import ggo_baseline
from ggo_lab.evaluation.comparison import Comparison, compare, how_many_scans_needed
from ggo_lab.evaluation.intervals import Interval, wilson
from ggo_lab.evaluation.predictions import Predictions, predict
from ggo_lab.evaluation.report import Report, evaluate

__all__ = [
    "Comparison",
    "Interval",
    "Predictions",
    "Report",
    "compare",
    "evaluate",
    "ggo_baseline",
    "how_many_scans_needed",
    "predict",
    "wilson",
]
