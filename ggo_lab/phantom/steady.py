"""Functions whose float32 results are the same on every processor, so that a seed means the same scan everywhere.

NumPy computes exp, sin, cos and powers with the widest vector unit it finds, and their last bit differs from one unit
to the next; sums, products and square roots do not. Here they are computed in float64 and rounded to float32, which
hides that bit.
"""

import numpy as np


def exp(x: np.ndarray) -> np.ndarray:
    """Raise e to the power of x, float32."""
    return np.exp(np.asarray(x, np.float64)).astype(np.float32)


def sin(x: np.ndarray) -> np.ndarray:
    """Compute the sine of x in radians, float32."""
    return np.sin(np.asarray(x, np.float64)).astype(np.float32)


def cos(x: np.ndarray) -> np.ndarray:
    """Compute the cosine of x in radians, float32."""
    return np.cos(np.asarray(x, np.float64)).astype(np.float32)


def power(x: np.ndarray, exponent: float) -> np.ndarray:
    """Raise x to a power, float32."""
    return np.power(np.asarray(x, np.float64), exponent).astype(np.float32)


def length(a: np.ndarray | float, b: np.ndarray) -> np.ndarray:
    """Compute the length of the vector (a, b); float32 stays float32."""
    return np.sqrt(a * a + b * b)
