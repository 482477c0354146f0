"""A scan made small enough for an e-mail."""

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
from PIL import Image

from ggo_lab.rendering import Heat
from ggo_lab.scan import Scan

# What keeps a page small enough for an e-mail, below 5 MB for 64 x 256 x 256 voxels: wider slices are reduced, and with
# many voxels the HU are rounded, by less than the noise of a scan (18-37 HU). The page says so.
_MOST_COLUMNS = 256
_ROUNDING_HU = (
    (4_000_000, 1),
    (5_000_000, 2),
    (12_000_000, 4),
    (np.inf, 8),
)  # up to so many voxels, steps of so many HU


class Reduced:
    """A scan with its masks and heat as small as a page can carry them.

    Args:
        scan: to be shown.
        masks: bool (Z, Y, X) by name.
        heat: 0..1, float (Z, Y, X), or maps (Y, X) by axial slice, or None.

    Attributes:
        scan: on the page's grid, its HU in units of `step`.
        step: HU.
        masks: on the page's grid.
        heat: on the page's grid.
        footnote: what was changed, one sentence.
    """

    def __init__(self, scan: Scan, masks: Mapping[str, np.ndarray], heat: Heat | None):
        """Reduce a scan; the class says how."""
        slices, rows, columns = scan.shape
        factor = max(1.0, max(rows, columns) / _MOST_COLUMNS)
        self._rows, self._columns = (max(1, round(n / factor)) for n in (rows, columns))
        shape = (slices, self._rows, self._columns)
        self.step: int = next(step for most, step in _ROUNDING_HU if np.prod(shape) <= most)
        hu = np.empty(shape, np.int16)
        for z, part in enumerate(scan.hu):
            hu[z] = np.rint(self._smooth(part) / self.step)
        spacing = (scan.spacing[0], scan.spacing[1] * rows / self._rows, scan.spacing[2] * columns / self._columns)
        self.scan: Scan = replace(scan, hu=hu, spacing=spacing, truth=None)
        self.masks: dict[str, np.ndarray] = {name: self._pick(mask) for name, mask in masks.items()}
        maps = heat if isinstance(heat, Mapping) else dict(enumerate([] if heat is None else heat))
        self.heat: Heat | None = (
            None if heat is None else {int(z): self._smooth(np.nan_to_num(values)) for z, values in maps.items()}
        )
        changes = []
        if factor > 1:
            changes.append(f"{self._rows} × {self._columns} of the scan's {rows} × {columns} pixels a slice")
        if self.step > 1:
            changes.append(f"HU in steps of {self.step}")
        self.footnote: str = (
            f"This page keeps {' and '.join(changes)}." if changes else "This page keeps every voxel exactly."
        )

    def _smooth(self, picture: np.ndarray) -> np.ndarray:
        """Return a slice's values on the page's grid: the mean of what each pixel covers."""
        if picture.shape == (self._rows, self._columns):
            return picture
        resized = Image.fromarray(picture.astype(np.float32)).resize((self._columns, self._rows), Image.Resampling.BOX)
        return np.asarray(resized)

    def _pick(self, mask: np.ndarray) -> np.ndarray:
        """Return a mask's voxels at the centres of the page's."""
        rows = ((np.arange(self._rows) + 0.5) * mask.shape[1] / self._rows).astype(int)
        columns = ((np.arange(self._columns) + 0.5) * mask.shape[2] / self._columns).astype(int)
        return mask[:, rows[:, None], columns]
