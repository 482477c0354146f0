"""Networks: how each is built from a library or a module of one's own, which layers learn, what it looks at."""

from ggo_lab.backbones.batches import batches_for
from ggo_lab.backbones.build import backbone_from_state, build_backbone, parameter_table
from ggo_lab.backbones.network import EXTENTS, Backbone, backbone_of, count_parameters
from ggo_lab.backbones.slice_reader import added, read_slices
from ggo_lab.backbones.specs import BACKBONES, BackboneSpec
from ggo_lab.backbones.weights import PHANTOM_WEIGHTS, RandomWeightsWarning

__all__ = [
    "BACKBONES",
    "EXTENTS",
    "PHANTOM_WEIGHTS",
    "Backbone",
    "BackboneSpec",
    "RandomWeightsWarning",
    "added",
    "backbone_from_state",
    "backbone_of",
    "batches_for",
    "build_backbone",
    "count_parameters",
    "parameter_table",
    "read_slices",
]
