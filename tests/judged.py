"""Predictions from lists, for tests of whatever judges them."""

import numpy as np
import pandas as pd

import ggo_lab as gl


def predictions_of(names, patients, labels, probabilities, made_by="network", task=gl.GGO_SEVERITY):
    """Predictions for scans of the given labels; -1 where the label is not known."""
    labels = [pd.NA if label == -1 else label for label in labels]
    table = pd.DataFrame({"name": names, "patient": patients, "label": labels})
    return gl.Predictions(table, np.asarray(probabilities), task, made_by)
