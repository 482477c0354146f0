"""The fissures that part the lungs into five lobes."""

import numpy as np

from ggo_lab.phantom.patient import Patient

LOBES = ("right_upper_lobe", "right_middle_lobe", "right_lower_lobe", "left_upper_lobe", "left_lower_lobe")


def lobe_of(patient: Patient, x, y, z) -> np.ndarray:
    """Number of the lobe of positions in mm: 0, 1, 2 right upper, middle, lower; 3, 4 left upper, lower."""
    left = x > 0
    lower = oblique_fissure(patient, x, y, z) < 0
    middle = (horizontal_fissure(patient, x, y, z) < 0) & ~lower
    return np.where(left, np.where(lower, 4, 3), np.where(lower, 2, np.where(middle, 1, 0)))


def oblique_fissure(patient: Patient, x, y, z):
    """Height above the oblique fissure, mm: negative in the lower lobe."""
    back, deep = y / patient.half_depth_mm, patient.lung_height_mm
    lift = np.where(x > 0, 0.04, 0.0)
    return (z - deep * (0.47 + lift + 0.32 * back + 0.05 * back**2) + 0.12 * (np.abs(x) - 55)) * 0.7


def horizontal_fissure(patient: Patient, x, y, z):
    """Height above the right lung's horizontal fissure, mm; meaningless elsewhere."""
    return z - patient.lung_height_mm * 0.50 + 0.05 * (np.abs(x) - 60) - 0.06 * y
