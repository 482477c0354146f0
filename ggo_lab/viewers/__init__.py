"""Scans and predictions to look at in a notebook: anywidgets around the viewer that pages use as well."""

from typing import TYPE_CHECKING

from ggo_lab.viewers.linking import link
from ggo_lab.viewers.slices import SliceViewer

if TYPE_CHECKING:
    from ggo_lab.viewers.predictions import PredictionViewer

__all__ = ["PredictionViewer", "SliceViewer", "link"]


def __getattr__(name: str) -> object:
    """Import the PredictionViewer when it is first used: a SliceViewer must not wait for pandas, pydicom and SciPy."""
    if name == "PredictionViewer":
        from ggo_lab.viewers.predictions import PredictionViewer

        return PredictionViewer
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
