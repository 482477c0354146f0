"""Predict, judge with error bars, compare with what no network would reach."""

from ggo_lab.evaluation.intervals import Interval, wilson
from ggo_lab.evaluation.predictions import Predictions, predict
from ggo_lab.evaluation.report import Report, evaluate

__all__ = ["Interval", "Predictions", "Report", "evaluate", "predict", "wilson"]
