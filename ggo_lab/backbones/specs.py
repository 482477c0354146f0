"""The networks of the course: where things are in each."""

from dataclasses import dataclass, replace


@dataclass(frozen=True)
class BackboneSpec:
    """Where things are in one torchvision network; places are dotted module names."""

    head: str  # the last layer, replaced by one with four outputs
    last_block: tuple[str, ...]  # what learns besides the head when extent="last_block"
    cam: str  # the layer whose output Grad-CAM reads
    idea: str  # what is new about this network, in a few words
    size: int = 224  # rows and columns it was pretrained at
    least_size: int = 32  # the smallest image it can take
    step: int = 1  # rows and columns must be multiples of it


_RESNET = BackboneSpec(head="fc", last_block=("layer4",), cam="layer4", idea="")
_DENSENET = BackboneSpec(
    head="classifier",
    last_block=("features.denseblock4", "features.norm5"),
    cam="features",
    idea="every layer sees the outputs of all before it",
)

BACKBONES: dict[str, BackboneSpec] = {
    "alexnet": BackboneSpec(
        head="classifier.6",
        last_block=("features.10", "classifier"),
        cam="features.11",
        idea="the first deep network that won",
        least_size=63,
    ),
    "vgg11_bn": BackboneSpec(
        head="classifier.6",
        last_block=("features.22", "features.23", "features.25", "features.26", "classifier"),
        cam="features.27",
        idea="small filters, many of them",
    ),
    "squeezenet1_0": BackboneSpec(
        head="classifier.1",
        last_block=("features.12",),
        cam="features.12",
        idea="few parameters: squeeze, then expand",
    ),
    "resnet18": replace(_RESNET, idea="shortcuts around each pair of layers"),
    "resnet50": replace(_RESNET, idea="shortcuts around bottlenecks"),
    "resnet152": replace(_RESNET, idea="the same, three times as deep"),
    "wide_resnet101_2": replace(_RESNET, idea="twice as wide inside the bottlenecks"),
    "densenet121": _DENSENET,
    "densenet201": _DENSENET,
    "inception_v3": BackboneSpec(
        head="fc",
        last_block=("Mixed_7b", "Mixed_7c"),
        cam="Mixed_7c",
        idea="several filter sizes side by side",
        size=299,
        least_size=75,
    ),
    "mobilenet_v3_small": BackboneSpec(
        head="classifier.3",
        last_block=("features.11", "features.12", "classifier"),
        cam="features.12",
        idea="made for phones",
    ),
    "vit_b_32": BackboneSpec(
        head="heads.head",
        last_block=("encoder.layers.encoder_layer_11", "encoder.ln"),
        # The tokens that the last attention reads: after it, only the class token matters to the head.
        cam="encoder.layers.encoder_layer_11.ln_1",
        idea="no convolutions: patches that attend to each other",
        step=32,
    ),
}
