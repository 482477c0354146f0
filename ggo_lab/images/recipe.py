"""How a scan becomes the one small image that a 2-D network sees."""

import dataclasses
from dataclasses import dataclass

import numpy as np

from ggo_lab.errors import ScanError, check_choice, check_whole
from ggo_lab.images.cut import Cut, Planes, Square
from ggo_lab.lungs import find_lungs
from ggo_lab.scan import WINDOWS, Window, as_window

_MARGIN_MM = 5.0  # of chest wall around the lungs, so that the pleura stays visible

# A CT slice has 512 rows, rarely more; an image much larger is a mistake, or a file's attempt to fill the memory.
_RANGES = {"slices": (1, 512), "size": (8, 1024)}


@dataclass(frozen=True)
class Recipe:
    """How a scan becomes an image of shape (slices, size, size).

    The paper (arXiv:2303.16904) is Recipe(pick="middle").

    Raises:
        ChoiceError: a value that is none of those named below.
    """

    slices: int = 3  # how many, the channels of the image; networks pretrained on colour photographs want 3
    pick: str = "spread"  # "middle": neighbours at the scan's middle; "spread": even over it; "lungs": over the lungs
    window: str | Window | tuple[float, float] = WINDOWS["paper"]  # a name or (level, width), HU; the paper's clip
    size: int = 224  # rows and columns of the image; what most ImageNet networks were trained at
    crop: str = "none"  # "none": the whole slice; "lungs": the square around the lungs

    def __post_init__(self) -> None:
        plain = {
            "pick": check_choice("pick", self.pick, ("middle", "spread", "lungs")),
            "crop": check_choice("crop", self.crop, ("none", "lungs")),
            "window": as_window(self.window),
            **{name: check_whole(name, getattr(self, name), *range_) for name, range_ in _RANGES.items()},
        }
        for name, value in plain.items():  # a frozen dataclass is set up through object.__setattr__
            object.__setattr__(self, name, value)

    @property
    def needs_lungs(self) -> bool:
        """Whether the lungs must be found first, which costs more than all the rest and needs the whole scan."""
        return self.pick == "lungs" or self.crop == "lungs"

    def cut(self, scan: Planes, lungs: np.ndarray | None = None) -> Cut:
        """Choose the slices of a scan and the square of them that the image shows, before anything is resampled.

        Args:
            scan: a Scan, or anything that has its shape and spacing and reads slices when they are asked for.
            lungs: bool (Z, Y, X), found here if the recipe needs them and they are not given.

        Returns:
            The cut, with the chosen slices, the image, and the way back onto the scan.

        Raises:
            ScanError: the recipe needs lungs, and there are none.

        >>> from ggo_lab import make_phantom
        >>> cut = Recipe(size=64).cut(make_phantom(seed=1, shape=(16, 64, 64)))
        >>> cut.slices, cut.image().shape
        ((2, 8, 13), (3, 64, 64))
        """
        notes: tuple[str, ...] = ()
        if self.needs_lungs and lungs is None:
            found = find_lungs(scan.whole())
            lungs, notes = found.mask, found.notes
        elif self.needs_lungs and not np.any(lungs):
            raise ScanError("The lungs that were given are empty; give a mask that holds lung, or leave it out.")
        return Cut(scan, self, self._slices(scan.shape[0], lungs), self._square(scan, lungs), lungs, notes)

    def to_dict(self) -> dict:
        """Return plain values, for JSON."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, values: dict) -> "Recipe":
        """Return the recipe that to_dict wrote."""
        return cls(**values)

    def _slices(self, total: int, lungs: np.ndarray | None) -> tuple[int, ...]:
        """Return indices into axis 0, from feet to head; in a very short scan a slice may repeat."""
        first, end = 0, total
        if self.pick == "lungs" and lungs is not None:
            with_lung = np.flatnonzero(lungs.any(axis=(1, 2)))
            first, end = with_lung[0], with_lung[-1] + 1
        if self.pick == "middle":
            chosen = (end - self.slices) // 2 + np.arange(self.slices)
        else:
            # The centres of equal parts: 3 slices stand at 1/6, 3/6 and 5/6 of the way up.
            chosen = np.floor(first + (end - first) * (np.arange(self.slices) + 0.5) / self.slices)
        return tuple(int(z) for z in np.clip(chosen, 0, total - 1))

    def _square(self, scan: Planes, lungs: np.ndarray | None) -> Square:
        """Return the square of a slice that the image shows; it may reach over the edges."""
        if self.crop == "lungs" and lungs is not None:
            rows, columns = (np.flatnonzero(lungs.any(axis=axes)) for axes in ((0, 2), (0, 1)))
            margin = _MARGIN_MM / scan.spacing[2]
            top, bottom = rows[0] - margin, rows[-1] + 1 + margin
            left, right = columns[0] - margin, columns[-1] + 1 + margin
        else:
            top, left, (bottom, right) = 0.0, 0.0, scan.shape[1:]
        side = int(np.ceil(max(bottom - top, right - left)))
        return Square(round((top + bottom - side) / 2), round((left + right - side) / 2), side)
