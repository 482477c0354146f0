"""Images for timings: their content does not matter, their number and size do."""

import numpy as np
import pandas as pd

import ggo_lab as gl


def images(n: int, split: str, size: int = 224, seed: int = 0) -> gl.images.ImageSet:
    """Make n images of noise, with the four grades in turn."""
    pixels = np.random.default_rng(seed).integers(0, 256, (n, 3, size, size), dtype=np.uint8)
    names = [f"{split}-{i}" for i in range(n)]
    table = pd.DataFrame({"name": names, "patient": names, "label": np.arange(n) % 4, "split": split})
    return gl.images.ImageSet(pixels, table, gl.Recipe(size=size))
