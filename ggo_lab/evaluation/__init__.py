"""Predict, judge with error bars, compare with what no network would reach."""

from ggo_lab.evaluation.abstention import PredictionSets, conformal_sets, risk_coverage
from ggo_lab.evaluation.baselines import ggo_baseline
from ggo_lab.evaluation.calibration import Reliability, calibrate, fit_temperature, reliability
from ggo_lab.evaluation.comparison import Comparison, compare, how_many_scans_needed
from ggo_lab.evaluation.intervals import Interval, wilson
from ggo_lab.evaluation.predictions import Predictions, predict
from ggo_lab.evaluation.report import Report, evaluate

__all__ = [
    "Comparison",
    "Interval",
    "PredictionSets",
    "Predictions",
    "Reliability",
    "Report",
    "calibrate",
    "compare",
    "conformal_sets",
    "evaluate",
    "fit_temperature",
    "ggo_baseline",
    "how_many_scans_needed",
    "predict",
    "reliability",
    "risk_coverage",
    "wilson",
]
