"""Backbone: a network with an output for each class of a task, of which the layers of its extent learn."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torchvision.models import Inception3
from torchvision.models.inception import InceptionOutputs

from ggo_lab.backbones.discover import first_convolution
from ggo_lab.backbones.layers import put, with_outputs
from ggo_lab.backbones.ordinal import READINGS
from ggo_lab.backbones.specs import IMAGENET_MEAN, IMAGENET_SD, BackboneSpec
from ggo_lab.errors import ChoiceError, ModelError, check_choice
from ggo_lab.images import Recipe
from ggo_lab.settled import settled
from ggo_lab.tasks import GGO_SEVERITY, Task

EXTENTS = ("head", "last_block", "all")
OWN = "own"  # begins the name of a network that Backbone.around was given
_AUXILIARY_SIDE = 17  # rows and columns of the maps that Inception's auxiliary classifier was built for
# Share of each batch in BatchNorm's running averages while random weights learn. They change fast, and torch's 0.1
# averages over some 20 batches, four epochs of a small cohort: validation would judge with averages of older weights.
_FAST_MOMENTUM = 0.3


class Backbone(nn.Module):
    """A network with K outputs, one for each class of a task, that takes images as they are.

    Attributes:
        name: as given to build_backbone; of a network of one's own it begins with "own".
        extent: which layers learn: "head", "last_block" or "all".
        weights: what was really loaded: "imagenet", "phantom", "random", or the path of a file.
        network: the module inside, from normalised images to K outputs.
        spec: where things are in it.
        task: what the outputs mean.
        recipe: the Recipe of the images it was fitted on; None before `fit`.
        reading: what the outputs stand for, a key of READINGS; set by `fit`, from the loss.
        bf16: whether it learns in 16-bit arithmetic; set by `fit`, see `set_speed`.
    """

    mean: Tensor
    sd: Tensor

    def __init__(
        self,
        name: str,
        network: nn.Module,
        extent: str,
        weights: str,
        spec: BackboneSpec,
        task: Task = GGO_SEVERITY,
    ):
        """Put a network that has its K outputs inside; build_backbone and Backbone.around make one."""
        super().__init__()
        self.name, self.extent, self.weights, self.spec, self.task = name, extent, weights, spec, task
        self.recipe: Recipe | None = None
        self.reading, self.bf16 = "logits", False
        self.network = network
        self.register_buffer("mean", self._channels(spec.mean), persistent=False)
        self.register_buffer("sd", self._channels(spec.sd), persistent=False)
        self._freeze()
        if weights == "random":
            for module in network.modules():
                if isinstance(module, nn.BatchNorm2d):
                    module.momentum = _FAST_MOMENTUM

    @classmethod
    @settled()
    def around(
        cls,
        module: nn.Module,
        head: str,
        *,
        cam: str = "",
        last_block: tuple[str, ...] = (),
        extent: str = "all",
        task: Task = GGO_SEVERITY,
        size: int = 224,
        least_size: int = 1,
        step: int = 1,
        layout: str = "maps",
        mean: tuple[float, ...] = IMAGENET_MEAN,
        sd: tuple[float, ...] = IMAGENET_SD,
        weights: str = "random",
        name: str = "network",
    ) -> "Backbone":
        """Return a Backbone around a network of one's own, to be trained, stored and explained as any other.

        Args:
            module: takes images float (B, C, H, W), normalised by mean and sd, to outputs (B, anything).
            head: the place of its last layer, such as "fc" or "classifier.6": a Linear or Conv2d, replaced by a new
                one where it does not have an output for each class.
            cam: the place of the layer whose output Grad-CAM reads; what is before the head if left out.
            last_block: the places of what else learns with extent="last_block".
            extent: which layers learn: "head", "last_block" or "all".
            task: what the outputs mean.
            size: rows and columns of its images.
            least_size: the fewest that it can take.
            step: rows and columns must be multiples of it.
            layout: what cam gives: "maps" (B, C, h, w), "maps_last" (B, h, w, C) or "tokens" (B, 1 + h * w, C).
            mean: of its images' channels, on 0..1; one for all, or one a channel.
            sd: the standard deviations, likewise.
            weights: where its weights come from, to be said in tables.
            name: what to call it.

        Raises:
            ChoiceError: an unknown extent.
            ModelError: a place that is not in the network, or a head of another kind.

        >>> layers = nn.Sequential(nn.Conv2d(3, 8, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 2))
        >>> Backbone.around(layers, head="3")(torch.zeros(2, 3, 16, 16)).shape
        torch.Size([2, 4])
        """
        check_choice("extent", extent, EXTENTS)
        first = first_convolution(module)
        slices = getattr(module.get_submodule(first), "in_channels", 3) if first else 3
        if slices != 3 and mean == IMAGENET_MEAN and sd == IMAGENET_SD:
            mean, sd = (sum(mean) / 3,), (sum(sd) / 3,)
        spec = BackboneSpec(
            head=head, last_block=last_block, cam=cam or _before(module, head), size=size, least_size=least_size,
            step=step, layout=layout, first=first, slices=slices, mean=mean, sd=sd,
        )  # fmt: skip
        for place in (spec.head, spec.cam, *spec.last_block):
            if place not in dict(module.named_modules()):
                children = ", ".join(name for name, _ in module.named_children())
                raise ModelError(f"{type(module).__name__} has no module {place!r}; it has {children}.", place)
        old: Any = module.get_submodule(head)
        if getattr(old, "out_features", getattr(old, "out_channels", None)) != len(task):
            put(module, head, with_outputs(old, len(task)))
        return cls(f"{OWN} {name}", module, extent, weights, spec, task)

    @property
    def fitted_recipe(self) -> Recipe:
        """The Recipe of the images it was fitted on.

        Raises:
            ModelError: it has not been fitted.
        """
        if self.recipe is None:
            raise ModelError(
                f"{self.name} has not been fitted, so nothing says which image of a scan it sees; call fit first."
            )
        return self.recipe

    @property
    def cam_layer(self) -> nn.Module:
        """The module whose output Grad-CAM reads, in the layout that spec.layout names."""
        return self.network.get_submodule(self.spec.cam)

    def forward(self, images: Tensor) -> Tensor | InceptionOutputs:
        """Return the logits (B, K) of images (B, C, H, W), uint8 or float, both in 0..255.

        Only Inception gives more: while all its layers learn, torchvision's InceptionOutputs, with the logits of its
        auxiliary classifier. That is there to send gradients into the early layers; with a frozen trunk it has no job.

        Raises:
            ModelError: images of a shape that the network cannot take.
        """
        with self.arithmetic():
            return self.read(self.network(self.normalise(images)))

    def arithmetic(self) -> AbstractContextManager:
        """Return the arithmetic of a forward pass: in 16 bits while it learns, if it is to (`bf16`); else as it is."""
        if not (self.bf16 and self.training):
            return nullcontext()
        # Without autocast's cache, which would hand out the weights of earlier steps: it is emptied only where the
        # outermost autocast ends, and `fit` has one.
        return torch.autocast(self.mean.device.type, torch.bfloat16, cache_enabled=False)

    def normalise(self, images: Tensor) -> Tensor:
        """Return images as the network was pretrained on them: float (B, C, H, W), mean 0 and sd 1 over its data."""
        self.check_shape(images.shape)
        normalised = (images.float() - self.mean) / self.sd
        return normalised.to(self._kind) if self._kind != torch.float32 else normalised

    def read(self, outputs: Tensor | InceptionOutputs) -> Tensor | InceptionOutputs:
        """Return the logits that the network's outputs (B, K) stand for: themselves, or as its `reading` has it."""
        logits_of = READINGS[self.reading]
        if isinstance(outputs, InceptionOutputs):
            return InceptionOutputs(*(logits_of(part, self.task) for part in outputs))
        return logits_of(outputs, self.task)

    def check_shape(self, shape: torch.Size | tuple[int, ...]) -> None:
        """Raise ModelError unless the network takes images of this shape (B, C, H, W)."""
        spec = self.spec
        if (
            len(shape) == 4
            and self._takes_slices(shape[1])
            and all(n >= spec.least_size and n % spec.step == 0 for n in shape[2:])
        ):
            return
        multiples = f" that are multiples of {spec.step}" if spec.step > 1 else ""
        raise ModelError(
            f"{self.name} takes images of shape {self._shape_in_words()} with at least {spec.least_size} rows and "
            f"columns{multiples}; found {tuple(shape)}. {self._advice(shape)}",
            tuple(shape),
        )

    def unfreeze(self) -> list[nn.Parameter]:
        """Let the layers of the next larger extent learn too; return the parameters that are new to learning.

        Raises:
            ChoiceError: all layers learn already.
        """
        if self.extent == EXTENTS[-1]:
            raise ChoiceError(f"All layers of {self.name} learn already; there is nothing to unfreeze.", self.extent)
        before = {p for p in self.parameters() if p.requires_grad}
        self.extent = EXTENTS[EXTENTS.index(self.extent) + 1]
        self._freeze()
        return [p for p in self.parameters() if p.requires_grad and p not in before]

    def train(self, mode: bool = True) -> "Backbone":
        """Switch to training, except in frozen layers: a BatchNorm there must not go on averaging."""
        super().train(mode)
        for module in self.network.modules():
            parameters = list(module.parameters())
            if parameters and not any(p.requires_grad for p in parameters):
                module.eval()
        return self

    @property
    def _kind(self) -> torch.dtype:
        return next(self.network.parameters()).dtype

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "Backbone":
        super()._apply(fn, recurse)
        # .half() would round the mean and sd of the images.
        self.mean, self.sd = (self._channels(values).to(self.mean.device) for values in (self.spec.mean, self.spec.sd))
        return self

    def _channels(self, values: tuple[float, ...]) -> Tensor:
        return torch.tensor(values, dtype=torch.float32).mul(255).view(-1, 1, 1)

    def _takes_slices(self, slices: int) -> bool:
        return slices == self.spec.slices

    def _shape_in_words(self) -> str:
        return f"(B, {self.spec.slices}, H, W)"

    def _advice(self, shape: torch.Size | tuple[int, ...]) -> str:
        """What to do about images of this shape."""
        wanted = f"Use Recipe(slices={self.spec.slices}, size={self.spec.size})"
        if len(shape) == 4 and shape[1] and not self._takes_slices(shape[1]):
            return f"{wanted}, or build the network for {shape[1]} slices: build_backbone(..., slices={shape[1]})."
        return f"{wanted}."

    def _freeze(self) -> None:
        """Let only the layers of the extent learn."""
        everything = self.extent == "all"
        self.network.requires_grad_(everything)
        if not everything:
            learning = (self.spec.head, *(self.spec.last_block if self.extent == "last_block" else ()))
            for place in learning:
                self.network.get_submodule(place).requires_grad_(True)
        if isinstance(self.network, Inception3):
            if not everything:
                self.network.AuxLogits, self.network.aux_logits = None, False
            elif self.network.AuxLogits is not None:
                self.network.AuxLogits.register_forward_pre_hook(_enlarge_for_auxiliary)


class SequenceBackbone(Backbone):
    """A Backbone around SliceGru: images (B, C, H, W) of any number C of slices, each seen on its own."""

    def normalise(self, images: Tensor) -> Tensor:
        """Return each slice as three equal channels, normalised: float (B, C, 3, H, W)."""
        self.check_shape(images.shape)
        normalised = (images[:, :, None].float() - self.mean) / self.sd
        if normalised.shape[2] == 1:  # of a network normalised by one number
            normalised = normalised.expand(-1, -1, 3, -1, -1)
        return normalised.to(self._kind)

    def _takes_slices(self, slices: int) -> bool:
        return slices >= 1

    def _shape_in_words(self) -> str:
        return "(B, C, H, W), C being the slices,"

    def _advice(self, shape: torch.Size | tuple[int, ...]) -> str:
        return f"Use Recipe(size={self.spec.size})."


def backbone_of(model: nn.Module) -> Backbone:
    """Return the Backbone that a model is, or that torch.compile or a parallel wrapper has wrapped.

    Raises:
        ModelError: there is none.
    """
    inner: Any = model
    while not isinstance(inner, Backbone):
        # torch.compile keeps the module as _orig_mod; DataParallel and DistributedDataParallel as module.
        parts = dict(inner.named_children()) if isinstance(inner, nn.Module) else {}
        inner = parts.get("_orig_mod") or parts.get("module")
        if inner is None or isinstance(model, torch.jit.ScriptModule):
            raise ModelError(
                f"A Backbone is needed, and this is a {type(model).__name__}; make one with build_backbone, or around "
                "a network of your own with Backbone.around(network, head=...).",
                type(model).__name__,
            )
    kinds = {p.dtype for p in inner.parameters()}
    if any(p.is_meta for p in inner.parameters()):
        raise ModelError(f"{inner.name} is on torch's device meta, which holds no weights; build it anew.", inner.name)
    if strange := [str(kind) for kind in kinds if not kind.is_floating_point]:
        raise ModelError(f"{inner.name} has weights of {strange[0]}, which no layer computes with.", inner.name)
    if len(kinds) > 1 and not inner.name.startswith(OWN):
        raise ModelError(
            f"{inner.name} has weights of {', '.join(sorted(map(str, kinds)))}, which cannot be computed with each "
            "other; call model.float().",
            inner.name,
        )
    return inner


def check_can_learn(model: Backbone) -> None:
    """Refuse a model through which no gradient can go.

    Raises:
        ModelError: it was converted for predicting alone.
    """
    tensors = list(model.state_dict().values())
    if any(not isinstance(tensor, Tensor) for tensor in tensors):
        raise ModelError(f"{model.name} is quantised, so nothing can be learnt or traced back through it.", model.name)
    if any(tensor.is_inference() for tensor in tensors):
        raise ModelError(
            f"{model.name} was made inside torch.inference_mode(), so nothing can be learnt or traced back through it; "
            "make or copy it outside.",
            model.name,
        )


def count_parameters(model: nn.Module) -> tuple[int, int]:
    """Count the parameters that learn, and all of them."""
    counts = [(p.numel(), p.requires_grad) for p in model.parameters()]
    return sum(n for n, learns in counts if learns), sum(n for n, _ in counts)


def _before(module: nn.Module, head: str) -> str:
    """Return the place of the last convolution before the head, whose output Grad-CAM can read."""
    places = [place for place, part in module.named_modules() if isinstance(part, nn.Conv2d) and place != head]
    return places[-1] if places else head


def _enlarge_for_auxiliary(module: nn.Module, given: tuple[Tensor]) -> tuple[Tensor]:
    """Enlarge the maps that Inception's auxiliary classifier reads, which fit it only for images of 299 and above."""
    (maps,) = given
    side = tuple(max(n, _AUXILIARY_SIDE) for n in maps.shape[2:])
    return (maps if maps.shape[2:] == side else nn.functional.interpolate(maps, side),)
