"""Scans and predictions to look at in JupyterLab and Colab, with core ipywidgets only."""

from ggo_lab.viewers.linking import link
from ggo_lab.viewers.predictions import PredictionViewer
from ggo_lab.viewers.slices import SliceViewer

__all__ = ["PredictionViewer", "SliceViewer", "link"]
