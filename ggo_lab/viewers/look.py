"""The state of a SliceViewer: plain traits, each refused where it does not fit the scan."""

from collections.abc import Iterable, Mapping
from numbers import Integral

import numpy as np
import traitlets

from ggo_lab.errors import ChoiceError, check_choice
from ggo_lab.rendering import PLANES
from ggo_lab.scan import Scan, Window, as_window

# The state, in the order in which it can be taken over: which slices there are depends on the plane.
LOOK = ("plane", "index", "window", "shown", "overlay", "opacity", "zoom", "centre", "probe")
MOST_ZOOM = 12.0


class Look(traitlets.HasTraits):
    """What of a scan is shown, and how; SliceViewer says what each trait means.

    Attributes:
        scan, masks: what the traits have to fit, set before any of them.
    """

    scan: Scan
    masks: Mapping[str, np.ndarray]

    index = traitlets.Int()
    plane = traitlets.Unicode("axial")
    window = traitlets.Any("lung")
    shown = traitlets.Tuple()
    overlay = traitlets.Unicode("outline")
    opacity = traitlets.Float(0.4, min=0.0, max=1.0)
    zoom = traitlets.Float(1.0, min=1.0, max=MOST_ZOOM)
    centre = traitlets.Any(None)
    probe = traitlets.Any(None)
    pointer = traitlets.Any(None)

    @property
    def last_index(self) -> int:
        """Of the plane's slices."""
        return self.scan.shape[PLANES[self.plane][0]] - 1

    @property
    def look(self) -> dict[str, object]:
        """The whole state but the pointer, to give to another viewer of the same shape: `other.look = viewer.look`."""
        return {trait: getattr(self, trait) for trait in LOOK}

    @look.setter
    def look(self, look: Mapping[str, object]) -> None:
        self._take(look)

    def _take(self, look: Mapping[str, object]) -> None:
        for trait in LOOK:  # the plane first, since the index is one of its slices
            if trait in look:
                setattr(self, trait, look[trait])

    @traitlets.validate("index")
    def _valid_index(self, proposal: traitlets.Bunch) -> int:
        if not 0 <= proposal["value"] <= self.last_index:
            raise ChoiceError(
                f"index={proposal['value']} is outside {self.scan.name}: its {self.plane} slices are 0 to "
                f"{self.last_index}.",
                proposal["value"],
            )
        return proposal["value"]

    @traitlets.validate("plane", "overlay")
    def _valid_choice(self, proposal: traitlets.Bunch) -> str:
        name = proposal["trait"].name
        check_choice(name, proposal["value"], PLANES if name == "plane" else ("outline", "fill"))
        return proposal["value"]

    @traitlets.validate("window")
    def _valid_window(self, proposal: traitlets.Bunch) -> str | Window:
        window = as_window(proposal["value"])
        return proposal["value"] if isinstance(proposal["value"], str) else window

    @traitlets.validate("centre", "probe", "pointer")
    def _valid_voxel(self, proposal: traitlets.Bunch) -> tuple[float, float, float] | None:
        name, value = proposal["trait"].name, proposal["value"]
        if value is None:
            return None
        voxel = tuple(value) if isinstance(value, Iterable) else ()
        whole = name == "centre" or all(isinstance(at, Integral) for at in voxel)
        if not whole or len(voxel) != 3 or not all(0 <= at < n for at, n in zip(voxel, self.scan.shape, strict=True)):
            raise ChoiceError(f"{name}={value!r} is no voxel (z, y, x) of {self.scan.name}, {self.scan.shape}.", value)
        z, y, x = voxel if name == "centre" else (int(at) for at in voxel)
        return z, y, x

    @traitlets.validate("shown")
    def _valid_shown(self, proposal: traitlets.Bunch) -> tuple[str, ...]:
        for name in proposal["value"]:
            check_choice("shown", name, [*self.masks, "heat"])
        return proposal["value"]
