"""Backbone: a torchvision network with four outputs, of which the layers of its extent learn."""

import torch
from torch import Tensor, fx, nn
from torchvision.models import Inception3, VisionTransformer
from torchvision.models.inception import InceptionOutputs

from ggo_lab.backbones.ordinal import corn_logits
from ggo_lab.backbones.specs import BACKBONES, BackboneSpec
from ggo_lab.errors import ModelError
from ggo_lab.images import Recipe

EXTENTS = ("scratch", "head", "last_block", "all")
# Mean and standard deviation of ImageNet's red, green and blue, on 0..1: what every pretrained network expects.
_IMAGENET_MEAN, _IMAGENET_SD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
_AUXILIARY_WEIGHT = 0.4  # of Inception's second output in the loss: the paper's, and torchvision's when it trained it
_AUXILIARY_SIDE = 17  # rows and columns of the maps that Inception's auxiliary classifier was built for
# Share of each batch in BatchNorm's running averages while random weights learn. They change fast, and torch's 0.1
# averages over some 20 batches, four epochs of a small cohort: validation then judges a network that is no more.
_FAST_MOMENTUM = 0.3


class Learner(nn.Module):
    """What takes training steps: a Backbone, or what stands in its place while it learns.

    Attributes:
        name: the backbone's.
    """

    name: str

    def outputs(self, images: Tensor) -> list[tuple[float, Tensor]]:
        """Give every output that the loss counts, as (weight, logits (B, 4)); the first is the main one."""
        raise NotImplementedError


class Backbone(Learner):
    """A torchvision network with four outputs that takes images as they are.

    Attributes:
        name, extent: as given to build_backbone.
        weights: what was really loaded: "imagenet", "random", or the path of a file.
        network: the torchvision module.
        recipe: the Recipe of the images it was fitted on; None before `fit`.
        ordinal: whether outputs are read by corn_logits; set by `fit`, from the loss.
    """

    mean: Tensor
    sd: Tensor

    def __init__(self, name: str, network: nn.Module, extent: str, weights: str, spec: BackboneSpec | None = None):
        super().__init__()
        self.spec = spec or BACKBONES[name]  # where things are in this network
        self.name, self.extent, self.weights = name, extent, weights
        self.recipe: Recipe | None = None
        self.ordinal = False
        self.network = network
        self.register_buffer("mean", 255 * torch.tensor(_IMAGENET_MEAN).view(3, 1, 1), persistent=False)
        self.register_buffer("sd", 255 * torch.tensor(_IMAGENET_SD).view(3, 1, 1), persistent=False)
        self._freeze()
        if weights == "random":
            for module in network.modules():
                if isinstance(module, nn.BatchNorm2d):
                    module.momentum = _FAST_MOMENTUM

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
    def input_size(self) -> int:
        """Rows and columns that the network was designed for."""
        return self.spec.size

    @property
    def cam_layer(self) -> nn.Module:
        """The module whose output Grad-CAM reads: maps (B, C, h, w), or tokens (see cam_is_tokens)."""
        return self.network.get_submodule(self.spec.cam)

    @property
    def cam_is_tokens(self) -> bool:
        """Whether cam_layer gives tokens (B, 1 + h * w, C): the class token, then the patches row by row."""
        return self.name.startswith("vit")

    def forward(self, images: Tensor) -> Tensor:
        """Give the logits (B, 4) of images (B, 3, H, W), uint8 or float, both in 0..255."""
        return self.outputs(images)[0][1]

    def outputs(self, images: Tensor) -> list[tuple[float, Tensor]]:
        """Give every output that the loss counts, as (weight, logits (B, 4)); the first is the main one.

        Only Inception has a second: its auxiliary classifier, while all its layers learn. It is there to send
        gradients into the early layers, so with a frozen trunk it has no job.
        """
        return self.read(self.network(self.normalise(images)))

    def normalise(self, images: Tensor) -> Tensor:
        """Give images as the network was pretrained on them: float (B, 3, H, W), mean 0 and sd 1 over ImageNet."""
        self._check(images)
        return (images.float() - self.mean) / self.sd

    def read(self, found: Tensor | InceptionOutputs) -> list[tuple[float, Tensor]]:
        """Give what the network found as (weight, logits (B, 4)), as `outputs` does."""
        read = corn_logits if self.ordinal else lambda outputs: outputs
        if isinstance(found, Tensor):
            return [(1.0, read(found))]
        return [(1.0, read(found.logits)), (_AUXILIARY_WEIGHT, read(found.aux_logits))]

    def _check(self, images: Tensor) -> None:
        least, step, native = self.spec.least_size, self.spec.step, self.spec.size
        rows_columns = images.shape[2:]
        if images.ndim == 4 and images.shape[1] == 3 and all(n >= least and n % step == 0 for n in rows_columns):
            return
        multiples = f" that are multiples of {step}" if step > 1 else ""
        raise ModelError(
            f"{self.name} takes images of shape (B, 3, H, W) with at least {least} rows and columns{multiples}; found "
            f"{tuple(images.shape)}. Use Recipe(slices=3, size={native}).",
            tuple(images.shape),
        )

    def unfreeze(self) -> list[nn.Parameter]:
        """Let the layers of the next larger extent learn too; give the parameters that are new to learning."""
        before = {p for p in self.parameters() if p.requires_grad}
        self.extent = EXTENTS[EXTENTS.index(self.extent) + 1]
        self._freeze()
        return [p for p in self.parameters() if p.requires_grad and p not in before]

    def _freeze(self) -> None:
        """Let only the layers of the extent learn."""
        everything = self.extent in ("scratch", "all")
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

    def train(self, mode: bool = True) -> "Backbone":
        """Switch to training, except in frozen layers: a BatchNorm there must not go on averaging."""
        super().train(mode)
        for module in self.network.modules():
            parameters = list(module.parameters())
            if parameters and not any(p.requires_grad for p in parameters):
                module.eval()
        return self


class SequenceBackbone(Backbone):
    """A Backbone around SliceGru: images (B, C, H, W) of any number C of slices, each seen on its own."""

    def normalise(self, images: Tensor) -> Tensor:
        """Give each slice as three equal channels, normalised: float (B, C, 3, H, W)."""
        self._check(images)
        return (images[:, :, None].float() - self.mean) / self.sd

    def _check(self, images: Tensor) -> None:
        if images.ndim != 4 or not images.shape[1]:
            raise ModelError(
                f"{self.name} takes images of shape (B, C, H, W), C being the slices; found {tuple(images.shape)}.",
                tuple(images.shape),
            )
        super()._check(images[:, :1].expand(-1, 3, -1, -1))


def count_parameters(model: nn.Module) -> tuple[int, int]:
    """Count the parameters that learn, and all of them."""
    counts = [(p.numel(), p.requires_grad) for p in model.parameters()]
    return sum(n for n, learns in counts if learns), sum(n for n, _ in counts)


class AnyGridTransformer(VisionTransformer):
    """torchvision's VisionTransformer for images of any multiple of the patch size.

    Its own forward insists on 224 x 224, because it has learnt one position embedding per patch. For other grids of
    patches the learnt grid is interpolated, as Dosovitskiy et al. 2021 (section 3.2) do; at 224 nothing changes.
    """

    def forward(self, images: Tensor) -> Tensor:
        """Give the outputs (B, 4) of normalised images (B, 3, H, W)."""
        encoder, side = self.encoder, self.image_size // self.patch_size
        tokens = _tokens(self.conv_proj(images), self.class_token, encoder.pos_embedding, side)
        return self.heads(encoder.ln(encoder.layers(encoder.dropout(tokens)))[:, 0])


@fx.wrap  # one step for torch.fx, which cannot follow its `if`
def _tokens(patches: Tensor, class_token: Tensor, places: Tensor, side: int) -> Tensor:
    grid = places[:, 1:].transpose(1, 2).unflatten(2, (side, side))
    if grid.shape[2:] != patches.shape[2:]:
        grid = nn.functional.interpolate(grid, patches.shape[2:], mode="bicubic", align_corners=False)
    tokens = (patches + grid).flatten(2).transpose(1, 2)
    return torch.cat([(class_token + places[:, :1]).expand(len(patches), -1, -1), tokens], dim=1)


def _enlarge_for_auxiliary(module: nn.Module, given: tuple[Tensor]) -> tuple[Tensor]:
    """Enlarge the maps that Inception's auxiliary classifier reads, which fit it only for images of 299 and above."""
    (maps,) = given
    side = tuple(max(n, _AUXILIARY_SIDE) for n in maps.shape[2:])
    return (maps if maps.shape[2:] == side else nn.functional.interpolate(maps, side),)
