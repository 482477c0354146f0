"""What a network sees of a scan, what it says of it, and where it looks."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ggo_lab.images import image_set_of
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
        """Cut the scan as the model's recipe says."""
        self.scan, self.model, self.recipe = scan, model, model.fitted_recipe
        self.cut = self.recipe.cut(scan)
        self.images = image_set_of(self.cut, model.task)
        self.pixels: np.ndarray = self.images.pixels[0]
        self.slices: tuple[int, ...] = self.cut.slices

    def probabilities(self) -> np.ndarray:
        """What the network says of the scan now, (K,)."""
        from ggo_lab.evaluation import predict

        return predict(self.model, self.images).probabilities[0]

    def explain(self, label: int | None) -> Heat:
        """The Grad-CAM map of a class (of the predicted one if None), laid on each slice the network sees."""
        from ggo_lab.saliency import grad_cam

        return self.cut.lay(grad_cam(self.model, self.pixels, label))

    def score(self, heat: Heat) -> str:
        """One sentence: how much of the heat lies in lesions, and what chance would give; none without the truth."""
        if self.scan.truth is None:
            return ""
        from ggo_lab.saliency import share_inside

        inside = share_inside(heat, self.scan.truth.lesions)
        if np.isnan(inside.share):
            return "Nothing in the image speaks for this class, so there is no heat."
        return f"{inside.share:.0%} of the heat lies in lesions, which cover {inside.chance:.0%} of these slices."
