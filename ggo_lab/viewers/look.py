"""The state of a SliceViewer: plain traits, shared with the browser, each refused where it does not fit the scan."""

from collections.abc import Iterable, Mapping
from numbers import Integral, Real

import numpy as np
import traitlets

from ggo_lab.errors import ChoiceError, check_choice
from ggo_lab.rendering import PLANES
from ggo_lab.scan import Scan, Window, as_window

# The state, in the order in which it can be taken over: which slices there are depends on the plane, and a probe takes
# every plane to its slice.
LOOK = (
    *("plane", "probe", "index", "cross", "window", "shown", "overlay", "opacity", "zoom", "centre"),
    *("three_planes", "slab", "projection"),
)
MOST_ZOOM = 12.0
_CHOICES = {
    "plane": tuple(PLANES),
    "overlay": ("outline", "fill"),
    "projection": ("mean", "MIP", "MinIP"),
    "asking": ("", "point", "circle"),
}


class Look(traitlets.HasTraits):
    """What of a scan is shown, and how; SliceViewer says what each trait means.

    Attributes:
        scan: what the traits have to fit; set before any of them.
        masks: bool (Z, Y, X) by name; set before any trait.
    """

    scan: Scan
    masks: Mapping[str, np.ndarray]

    plane = traitlets.Unicode("axial").tag(sync=True)
    index = traitlets.Int().tag(sync=True)
    cross = traitlets.Any().tag(sync=True)
    window = traitlets.Any("lung").tag(sync=True)
    shown = traitlets.Tuple().tag(sync=True)
    overlay = traitlets.Unicode("outline").tag(sync=True)
    opacity = traitlets.Float(0.4, min=0.0, max=1.0).tag(sync=True)
    zoom = traitlets.Float(1.0, min=1.0, max=MOST_ZOOM).tag(sync=True)
    centre = traitlets.Any(None).tag(sync=True)
    probe = traitlets.Any(None).tag(sync=True)
    pointer = traitlets.Any(None).tag(sync=True)
    three_planes = traitlets.Bool(False).tag(sync=True)
    slab = traitlets.Float(0.0, min=0.0).tag(sync=True)
    projection = traitlets.Unicode("mean").tag(sync=True)
    ruler = traitlets.Any(None).tag(sync=True)
    circle = traitlets.Any(None).tag(sync=True)
    question = traitlets.Unicode("").tag(sync=True)
    asking = traitlets.Unicode("").tag(sync=True)
    answer = traitlets.Any(None).tag(sync=True)
    feedback = traitlets.Unicode("").tag(sync=True)

    @property
    def last_index(self) -> int:
        """The last of the plane's slices."""
        return self.scan.shape[self._axis] - 1

    @property
    def _axis(self) -> int:
        return PLANES[self.plane][0]

    @property
    def look(self) -> dict[str, object]:
        """What is shown and how, to give to another viewer of the same shape: `other.look = viewer.look`.

        Pointer, measures and question are not part of it.
        """
        return {trait: getattr(self, trait) for trait in LOOK}

    @look.setter
    def look(self, look: Mapping[str, object]) -> None:
        for trait in LOOK:  # the plane first, since the index is one of its slices
            if trait in look:
                setattr(self, trait, look[trait])

    # Slice, plane and probe belong together: `cross` holds the slice of every plane.

    @traitlets.observe("plane")
    def _to_plane(self, _change: traitlets.Bunch) -> None:
        if self.cross is not None:
            self.index = self.cross[self._axis]

    @traitlets.observe("index")
    def _to_index(self, _change: traitlets.Bunch) -> None:
        if self.cross is not None:
            at = list(self.cross)
            at[self._axis] = self.index
            self.cross = tuple(at)

    @traitlets.observe("cross")
    def _to_cross(self, _change: traitlets.Bunch) -> None:
        self.index = self.cross[self._axis]

    @traitlets.observe("probe")
    def _to_probe(self, _change: traitlets.Bunch) -> None:
        if self.probe is not None:
            self.cross = self.probe

    @traitlets.validate("index")
    def _valid_index(self, proposal: traitlets.Bunch) -> int:
        if not 0 <= proposal["value"] <= self.last_index:
            raise ChoiceError(
                f"index={proposal['value']} is outside {self.scan.name}: its {self.plane} slices are 0 to "
                f"{self.last_index}.",
                proposal["value"],
            )
        return proposal["value"]

    @traitlets.validate("plane", "overlay", "projection", "asking")
    def _valid_choice(self, proposal: traitlets.Bunch) -> str:
        name = proposal["trait"].name
        check_choice(name, proposal["value"], _CHOICES[name])
        return proposal["value"]

    @traitlets.validate("window")
    def _valid_window(self, proposal: traitlets.Bunch) -> str | Window:
        window = as_window(proposal["value"])
        return proposal["value"] if isinstance(proposal["value"], str) else window

    @traitlets.validate("centre", "probe", "pointer", "cross")
    def _valid_voxel(self, proposal: traitlets.Bunch) -> tuple[float, float, float] | None:
        name, value = proposal["trait"].name, proposal["value"]
        if value is None and name != "cross":
            return None
        if name == "centre":
            return self._place(name, value)
        z, y, x = self._place(name, value)
        if not all(isinstance(at, Integral) for at in value):
            raise ChoiceError(f"{name}={value!r} is no voxel (z, y, x): give whole numbers.", value)
        return int(z), int(y), int(x)

    @traitlets.validate("ruler", "circle")
    def _valid_measure(self, proposal: traitlets.Bunch) -> dict[str, object] | None:
        """Take a measure with its plane and places; what is computed of them is the browser's to fill in."""
        name, value = proposal["trait"].name, proposal["value"]
        if value is None:
            return None
        ends = ("from", "to") if name == "ruler" else ("centre",)
        if not isinstance(value, Mapping) or not {"plane", *ends} <= value.keys():
            needed = ", ".join(("plane", *ends, *(("radius_mm",) if name == "circle" else ())))
            raise ChoiceError(f"{name}={value!r} is no {name}; give a dict with {needed}.", value)
        check_choice("plane", value["plane"], PLANES)
        places = {end: self._place(f"{name}[{end!r}]", value[end]) for end in ends}
        if name == "circle" and not (isinstance(value.get("radius_mm"), Real) and value["radius_mm"] > 0):
            raise ChoiceError(f"circle={value!r} needs a radius_mm above 0.", value)
        if name == "ruler":
            steps = np.subtract(places["from"], places["to"]) * np.array(self.scan.spacing)
            return {"plane": value["plane"], **places, "mm": float(np.linalg.norm(steps))}
        return {**value, **places}

    def _place(self, name: str, value: object) -> tuple[float, float, float]:
        place = tuple(value) if isinstance(value, Iterable) else ()
        numbers = len(place) == 3 and all(isinstance(at, Real) for at in place)
        if not numbers or not all(0 <= at < n for at, n in zip(place, self.scan.shape, strict=True)):
            raise ChoiceError(f"{name}={value!r} is no voxel (z, y, x) of {self.scan.name}, {self.scan.shape}.", value)
        z, y, x = place
        return z, y, x

    @traitlets.validate("shown")
    def _valid_shown(self, proposal: traitlets.Bunch) -> tuple[str, ...]:
        for name in proposal["value"]:
            check_choice("shown", name, [*self.masks, "heat"])
        return proposal["value"]
