"""What a network sees of a scan, what it says of it, and where it looks."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ggo_lab.grades import Grade
from ggo_lab.images import image_set_of, image_to_scan_grid
from ggo_lab.lungs import segment_lungs
from ggo_lab.rendering import Heat
from ggo_lab.scan import Scan

if TYPE_CHECKING:
    from ggo_lab.backbones import Backbone


class SeenScan:
    """A scan with the image that a network sees of it.

    Attributes:
        pixels: uint8 (C, H, W), the image.
        slices: that it shows.
    """

    def __init__(self, scan: Scan, model: Backbone):
        self.scan, self.model, self.recipe = scan, model, model.fitted_recipe
        self.lungs = segment_lungs(scan) if self.recipe.needs_lungs else None
        self.images = image_set_of(scan, self.recipe, self.lungs)
        self.pixels: np.ndarray = self.images.pixels[0]
        self.slices: tuple[int, ...] = self.images.table["slices"][0]

    def probabilities(self) -> np.ndarray:
        """What the network says of the scan now, (4,)."""
        from ggo_lab.evaluation import predict

        return predict(self.model, self.images).probabilities[0]

    def explain(self, grade: Grade | None) -> Heat:
        """The Grad-CAM map of a grade (of the predicted one if None), laid on each slice the network sees."""
        from ggo_lab.saliency import grad_cam

        heat = grad_cam(self.model, self.pixels, grade)
        laid = image_to_scan_grid(heat, self.scan, self.recipe, self.lungs)
        return dict.fromkeys(self.slices, laid)

    def score(self, heat: Heat) -> str:
        """One sentence: how much of the heat lies in lesions, and what chance would give; none without the truth."""
        if self.scan.truth is None:
            return ""
        from ggo_lab.saliency import share_inside

        inside = share_inside(heat, self.scan.truth.lesions)
        if np.isnan(inside.share):
            return "Nothing in the image speaks for this grade, so there is no heat."
        return f"{inside.share:.0%} of the heat lies in lesions, which cover {inside.chance:.0%} of these slices."
