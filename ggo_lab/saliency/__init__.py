"""Where a network looked: maps, how much of them lies where it should, and whether they would look so anyway."""

from ggo_lab.saliency.checks import randomise_layers, shuffle_labels, similarity
from ggo_lab.saliency.explain import Saliency, explain
from ggo_lab.saliency.maps import grad_cam, integrated_gradients, occlusion
from ggo_lab.saliency.scores import Hit, InsideShare, deletion_insertion, pointing_game, share_inside

__all__ = [
    "Hit",
    "InsideShare",
    "Saliency",
    "deletion_insertion",
    "explain",
    "grad_cam",
    "integrated_gradients",
    "occlusion",
    "pointing_game",
    "randomise_layers",
    "share_inside",
    "shuffle_labels",
    "similarity",
]
