"""The torchvision networks of the course: how each is built, which layers learn, what it looks at."""

from ggo_lab.backbones.build import backbone_from_state, build_backbone, parameter_table
from ggo_lab.backbones.network import EXTENTS, Backbone, Learner, count_parameters
from ggo_lab.backbones.specs import BACKBONES, BackboneSpec
from ggo_lab.backbones.weights import RandomWeightsWarning

__all__ = [
    "BACKBONES",
    "EXTENTS",
    "Backbone",
    "BackboneSpec",
    "Learner",
    "RandomWeightsWarning",
    "backbone_from_state",
    "build_backbone",
    "count_parameters",
    "parameter_table",
]
