"""A saliency map with its score: no map is shown without the numbers that say how far to trust it."""

import html
from dataclasses import dataclass

import numpy as np
import pandas as pd

from ggo_lab.backbones import Backbone, backbone_of
from ggo_lab.errors import check_choice
from ggo_lab.lungs import segment_lungs
from ggo_lab.saliency.maps import METHODS, predicted_label
from ggo_lab.saliency.scores import Hit, InsideShare, deletion_insertion, pointing_game, share_inside
from ggo_lab.scan import Scan
from ggo_lab.tasks import Task


@dataclass(frozen=True, eq=False)
class Saliency:
    """Where a network looked on a scan, and how far to trust that.

    Attributes:
        heat: maps (Y, X), 0..1, by axial slice, as SliceViewer and plot_slice take them.
        method: "grad_cam", "occlusion" or "integrated_gradients".
        label: of the class that the heat speaks for.
        task: what the label means.
        shape: of the scan, (Z, Y, X).
        in_lungs: share of the heat inside the lungs, beside chance.
        in_lesions: the same for the true lesions; None where they are not known.
        pointed: whether the hottest place lies in a true lesion, beside chance; None where they are not known.
        curves: of deletion_insertion.
    """

    heat: dict[int, np.ndarray]
    method: str
    label: int
    task: Task
    shape: tuple[int, int, int]
    in_lungs: InsideShare
    in_lesions: InsideShare | None
    pointed: Hit | None
    curves: pd.DataFrame

    @property
    def volume(self) -> np.ndarray:
        """The heat on the scan's grid, float32 (Z, Y, X); 0 in slices that the network did not see."""
        volume = np.zeros(self.shape, np.float32)
        for z, plane in self.heat.items():
            volume[z] = plane
        return volume

    @property
    def sentence(self) -> str:
        """The scores in words, each beside what chance would give."""
        name = self.task.names[self.label]
        if not any(plane.any() for plane in self.heat.values()):
            return f"{self.method}: nothing in the image speaks for {name}, so there is no heat."
        said = f"{self.method} for {name}: {_said(self.in_lungs, 'the lungs')}"
        if self.in_lesions is not None and self.pointed is not None:
            where = "a lesion" if self.pointed.hit else "no lesion"
            said += f"; {_said(self.in_lesions, 'lesions')}; the hottest place lies in {where}"
        ours, blind = self.curves["deletion"].mean(), self.curves["random_deletion"].mean()
        return (
            f"{said}. With the hottest pixels taken away first the probability of {name} averages "
            f"{ours:.2f}, in a random order {blind:.2f} (lower is a map that the network needs)."
        )

    def __repr__(self) -> str:
        return self.sentence

    def _repr_html_(self) -> str:
        return f"<p>{html.escape(self.sentence)}</p>"


def explain(
    model: Backbone,
    scan: Scan,
    label: int | None = None,
    method: str = "grad_cam",
    steps: int = 10,
) -> Saliency:
    """Map where a fitted network looked on a scan, slice by slice, and score the map.

    Args:
        model: fitted, so that its recipe says which image it sees.
        scan: to look at.
        label: 0..K-1, of a class; the predicted one if left out. model.task.label_of("severe") gives it.
        method: "grad_cam" (quick, coarse, one map for all slices), "occlusion" (slow, a map for each slice) or
            "integrated_gradients" (fine and noisy, a map for each slice).
        steps: of the deletion and insertion curves.

    Raises:
        ChoiceError: an unknown label or method.
        ModelError: a model without a recipe, or what is no Backbone.
        ScanError: no lungs found.
    """
    check_choice("method", method, METHODS)
    model = backbone_of(model)
    cut = model.fitted_recipe.cut(scan)
    image = cut.image()
    label = predicted_label(model, image) if label is None else label
    on_image = METHODS[method](model, image, label)
    heat = cut.lay(on_image)
    lungs = scan.truth.lungs if scan.truth else segment_lungs(scan) if cut.lungs is None else cut.lungs
    lesions = None if scan.truth is None else scan.truth.lesions
    return Saliency(
        heat,
        method,
        label,
        model.task,
        scan.shape,
        share_inside(heat, lungs),
        None if lesions is None else share_inside(heat, lesions),
        None if lesions is None else pointing_game(heat, lesions),
        deletion_insertion(model, image, on_image, label, steps),
    )


def _said(inside: InsideShare, where: str) -> str:
    return f"{inside.share:.0%} of the heat lies in {where}, which cover {inside.chance:.0%} of these slices"
