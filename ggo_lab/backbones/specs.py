"""The networks of the course: where things are in each."""

import re
from dataclasses import asdict, dataclass, fields, replace

from ggo_lab.errors import ModelError

# Mean and standard deviation of ImageNet's red, green and blue, on 0..1: what most pretrained networks expect.
IMAGENET_MEAN, IMAGENET_SD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
LAYOUTS = ("maps", "maps_last", "tokens")
_PLACE = re.compile(r"[A-Za-z_0-9]+(\.[A-Za-z_0-9]+)*")


@dataclass(frozen=True)
class BackboneSpec:
    """Where things are in one network, and which images it takes; places are dotted module names."""

    head: str  # the last layer, replaced by one with an output for each class of the task
    last_block: tuple[str, ...]  # what learns besides the head when extent="last_block"
    cam: str  # the layer whose output Grad-CAM reads
    idea: str = ""  # what is new about this network, in a few words
    size: int = 224  # rows and columns it was pretrained at
    least_size: int = 32  # the smallest image it can take
    step: int = 1  # rows and columns must be multiples of it
    layout: str = "maps"  # what cam gives: "maps" (B, C, h, w), "maps_last" (B, h, w, C), "tokens" (B, 1 + h * w, C)
    first: str = ""  # the first convolution, whose input channels are the slices; found where it is not given
    slices: int = 3  # channels of an image
    mean: tuple[float, ...] = IMAGENET_MEAN  # of its pretraining's channels, on 0..1; one for all, or one a slice
    sd: tuple[float, ...] = IMAGENET_SD

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if field.name in ("head", "cam", "first", "idea", "layout"):
                fits = isinstance(value, str) and len(value) < 200
            elif field.name in ("last_block", "mean", "sd"):
                object.__setattr__(self, field.name, value := tuple(value))
                kind = str if field.name == "last_block" else (int, float)
                fits = len(value) < 1000 and all(isinstance(part, kind) for part in value)
            else:
                fits = isinstance(value, int) and 1 <= value <= 4096
            if not fits:
                raise ModelError(f"{field.name}={value!r} cannot describe a network.", value)
        places = [place for place in (self.head, self.cam, self.first, *self.last_block) if place]
        if self.layout not in LAYOUTS or not all(_PLACE.fullmatch(place) for place in places):
            raise ModelError(
                f"layout={self.layout!r} and places {places} cannot describe a network; give one of {LAYOUTS} and "
                "dotted names of modules, such as layer4.1.",
                places,
            )
        if any(len(values) not in (1, self.slices) for values in (self.mean, self.sd)) or min(self.sd) <= 0:
            raise ModelError(
                f"mean={self.mean} and sd={self.sd} must hold one number, or one for each of {self.slices} slices; and "
                "each sd is above 0.",
                self.mean,
            )

    def with_slices(self, slices: int) -> "BackboneSpec":
        """Return the spec of the same network for images of another number of slices, all normalised alike."""
        if slices == self.slices:
            return self
        mean, sd = ((sum(values) / len(values),) for values in (self.mean, self.sd))
        return replace(self, slices=slices, mean=mean, sd=sd)

    def to_dict(self) -> dict:
        """Return plain values, for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict) -> "BackboneSpec":
        """Return the spec that to_dict gave.

        Raises:
            ModelError: values that describe no network.
        """
        try:
            return cls(**values)
        except TypeError as error:
            raise ModelError(f"{str(values)[:200]} does not describe a network ({error}).", values) from None


_RESNET = BackboneSpec(head="fc", last_block=("layer4",), cam="layer4")
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
    "efficientnet_lite0": BackboneSpec(
        head="fc",
        last_block=("blocks.15", "last"),
        cam="last",
        idea="depth, width and image size grown together, then made lite",
        mean=(127 / 255,) * 3,
        sd=(128 / 255,) * 3,
    ),
    "vit_b_32": BackboneSpec(
        head="heads.head",
        last_block=("encoder.layers.encoder_layer_11", "encoder.ln"),
        # The tokens that the last attention reads: after it, only the class token matters to the head.
        cam="encoder.layers.encoder_layer_11.ln_1",
        layout="tokens",
        idea="no convolutions: patches attend to one another",
        step=32,
    ),
}
