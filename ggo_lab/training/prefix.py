"""The frozen prefix: layers that do not learn give the same outputs in every epoch, so they are computed once."""

from collections.abc import Callable, Iterator
from contextlib import nullcontext
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, fx, nn
from torch.nn.functional import dropout, dropout1d, dropout2d, dropout3d
from torchvision.ops import StochasticDepth, stochastic_depth

from ggo_lab.backbones import Backbone
from ggo_lab.progress import bar
from ggo_lab.training.augment import augments
from ggo_lab.training.batches import Views, alter
from ggo_lab.training.config import Speed, TrainConfig, memory_format
from ggo_lab.training.devices import reproducible
from ggo_lab.training.features import FeatureStore

# More would be slow to keep, or would push out what else lives there. ResNet-152's features, 72 scans, two views:
# 1.2 MB for "head", 116 MB for "last_block".
_MOST_BYTES = 2 * 1024**3
_BATCH = 16  # images at once; it changes memory and time, not the result
_CHANCE = (nn.modules.dropout._DropoutNd, StochasticDepth)
_CHANCE_FUNCTIONS = (dropout, dropout1d, dropout2d, dropout3d, stochastic_depth)


class Rest(nn.Module):
    """What comes after the frozen prefix, in the place of the whole model: it takes features for images."""

    def __init__(self, model: Backbone, layers: nn.Module):
        """Put the layers inside.

        Args:
            model: the whole, with which the layers are shared.
            layers: from features to the network's outputs.
        """
        super().__init__()
        self.model, self.layers = model, layers

    def forward(self, features: Tensor) -> Any:
        """Return the logits (B, K) of features (B, ...)."""
        # Where only the head is left to compute, 16 bits win nothing.
        with nullcontext() if self.model.extent == "head" else self.model.arithmetic():
            return self.model.read(self.layers(features))

    def train(self, mode: bool = True) -> "Rest":
        """Switch the model that these layers are part of; it leaves frozen layers as they are."""
        self.training = mode
        self.model.train(mode)
        return self


def frozen_once(
    model: Backbone, images: Tensor, judged: Tensor, config: TrainConfig, speed: Speed, progress: bool = False
) -> tuple[nn.Module, Tensor | Views, Tensor]:
    """Compute the frozen layers' outputs for every image once, in every view that training will ask for.

    Where images are at most mirrored, both views of each are computed, and training sees what it would have seen
    otherwise. Where they are altered in other ways too, `config.views` views of each are drawn. Outputs are kept in
    the cache folder too, so another run with the same network, weights and images finds them there.

    Args:
        model: on its device.
        images: uint8 (N, C, H, W) of the train split, on the model's device or still in the memory map.
        judged: the same of the validation split.
        config: the settings.
        speed: of which bf16 counts for the train split.
        progress: whether to show a bar.

    Returns:
        What learns, and what it learns from and is judged on: the layers behind the frozen ones, views, and features
        float32 (N, ...); or all as it was given, where no layers are frozen in front, or where their outputs would
        take more than 2 GiB.
    """
    if model.extent == "all" or not config.reuse_frozen or config.unfreeze_at:
        return model, images, judged
    parts = split_at_frozen(model)
    if parts is None:
        return model, images, judged
    prefix, rest = parts
    model.eval()
    device, views = next(model.parameters()).device, _views(config)
    with reproducible(config.seed, device), torch.no_grad():
        model.to(memory_format=torch.channels_last)  # for these layers alone it is the faster format
        shape = prefix(model.normalise(images[:1].to(device))).shape[1:]
        if 4 * shape.numel() * (len(views) * len(images) + len(judged)) > _MOST_BYTES:
            model.to(memory_format=memory_format(speed))
            return model, images, judged
        features_of_views = torch.empty(len(views), len(images), *shape, device=device)
        features_of_judged = torch.empty(len(judged), *shape, device=device)
        work = [(images, view, speed.bf16, features) for view, features in zip(views, features_of_views, strict=True)]
        # The validation split as `score` computes it: in 32 bits, so that `predict` finds the same numbers.
        work.append((judged, _AS_IT_IS, False, features_of_judged))
        store, total = FeatureStore(model, prefix), sum(len(pixels) for pixels, *_ in work)
        with bar(total, "frozen layers", unit="image", delay=2, disable=not progress) as shown:
            for pixels, view, bf16, features in work:
                for done in _fill(features, store, model, prefix, pixels, view, bf16):
                    shown.update(done)
        store.tidy()
    model.to(memory_format=memory_format(speed))
    return rest, Views(features_of_views), features_of_judged


def features_of(model: Backbone, images: np.ndarray) -> tuple[nn.Module, Tensor] | None:
    """Compute what the frozen layers make of images, or find it in the cache folder, to predict from it.

    Args:
        model: on its device; it is left in evaluation mode.
        images: uint8 (N, C, H, W).

    Returns:
        The layers behind the frozen ones, and their inputs float32 (N, ...), computed in 32 bits as `predict` does;
        None where no layers are frozen in front.
    """
    if model.extent == "all" or (parts := split_at_frozen(model)) is None:
        model.eval()
        return None
    prefix, rest = parts
    pixels, device = torch.from_numpy(images), next(model.parameters()).device
    store = FeatureStore(model.eval(), prefix)
    with torch.no_grad():
        shape = prefix(model.normalise(pixels[:1].to(device))).shape[1:]
        features = torch.empty(len(pixels), *shape, device=device)
        for _ in _fill(features, store, model, prefix, pixels, _AS_IT_IS, bf16=False):
            pass
    store.tidy()
    return rest.eval(), features


def split_at_frozen(model: Backbone) -> tuple[nn.Module, Rest] | None:
    """Cut a model behind the frozen layers: where one tensor carries all that the rest needs to know.

    The network is traced by torch.fx with frozen modules as black boxes; a step is frozen if nothing before it learns
    and nothing is left to chance, as in dropout. Both parts share their layers with the model.

    Returns:
        The prefix, from normalised images to features, and the rest; None where there is no such place, or where fx
        cannot follow the network.
    """
    model.train()  # so that what draws at random while learning can be told from what is in evaluation mode
    try:
        graph = _Tracer().trace(model.network)
    except fx.proxy.TraceError:  # a network, or a hook on it, whose path depends on the values it sees
        return None
    modules, last = dict(model.network.named_modules()), None
    frozen: dict[fx.Node, None] = {}  # in order
    crossing: set[fx.Node] = set()  # what is computed and still needed
    before: list[fx.Node] = []
    for node in graph.nodes:
        if node.op == "output" or not _is_frozen(node, modules, model.network, frozen):
            break
        frozen[node] = None
        crossing = {n for n in (*crossing, node) if any(user not in frozen for user in n.users)}
        if crossing == {node} and node.op != "placeholder":
            before, last = list(frozen), node
    if last is None:
        return None
    # torch.fx.passes.split_module would make inputs of the parameters that a graph reads, such as a class token.
    prefix, rest = fx.Graph(), fx.Graph()
    copies: dict[fx.Node, fx.Node] = {}
    for node in before:
        copies[node] = prefix.node_copy(node, copies.__getitem__)
    prefix.output(copies[last])
    copies = {last: rest.placeholder("features")}
    for node in graph.nodes:
        if node not in before:
            copies[node] = rest.node_copy(node, copies.__getitem__)
    return fx.GraphModule(model.network, prefix), Rest(model, fx.GraphModule(model.network, rest))


class _Tracer(fx.Tracer):
    def is_leaf_module(self, module: nn.Module, name: str) -> bool:
        """Do not look into frozen modules, nor into those that are one step (whose mode must stay switchable)."""
        if not any(p.requires_grad for p in module.parameters()) or not list(module.children()):
            return True
        return getattr(module, "traced_whole", False) or super().is_leaf_module(module, name)


def _is_frozen(node: fx.Node, modules: dict[str, nn.Module], network: nn.Module, frozen: dict[fx.Node, None]) -> bool:
    if not all(given in frozen for given in node.all_input_nodes):
        return False
    if node.op == "get_attr":
        owner, _, name = str(node.target).rpartition(".")
        return not getattr(network.get_submodule(owner), name).requires_grad
    if node.op == "call_module":
        module = modules[str(node.target)]
        by_chance = any(isinstance(part, _CHANCE) and part.training and part.p > 0 for part in module.modules())
        return not by_chance and not any(p.requires_grad for p in module.parameters())
    return node.target not in _CHANCE_FUNCTIONS


class _View(NamedTuple):
    """One way to alter the images of a split."""

    name: str
    of: Callable[[Tensor, int], Tensor]  # of a batch, and the number of its first image


_AS_IT_IS = _View("as it is", lambda batch, start: batch)
_MIRRORED = _View("mirrored", lambda batch, start: batch.flip(-1))


def _views(config: TrainConfig) -> list[_View]:
    """Return what turns images into each view; with mirroring alone, the mirrored one comes first, as in training."""
    if not augments(config):
        return [_MIRRORED, _AS_IT_IS] if config.flip else [_AS_IT_IS]
    amounts = (config.flip, config.rotate, config.scale, config.intensity, config.seed)
    return [_View(f"view {n} of {amounts}", partial(_altered, config, n)) for n in range(config.views)]


def _altered(config: TrainConfig, view: int, batch: Tensor, start: int) -> Tensor:
    """Alter a batch, by amounts that depend on the view and the place only: a run may begin anywhere."""
    seed = int(np.random.SeedSequence([config.seed % 2**64, view, start]).generate_state(1, np.uint64)[0])
    return alter(batch, config, torch.Generator().manual_seed(seed >> 1))


def _fill(
    features: Tensor, store: FeatureStore, model: Backbone, prefix: nn.Module, images: Tensor, view: _View, bf16: bool
) -> Iterator[int]:
    """Fill features from the store, or compute them, batch by batch; yield how many images each held."""
    folder = store.folder(images, f"{view.name}, bf16={bf16}")
    for start in range(0, len(images), _BATCH):
        rows = slice(start, start + _BATCH)
        compute = partial(_features, model, prefix, images[rows], view, start, bf16)
        features[rows] = store.get(folder, start, tuple(features[rows].shape), compute)
        yield len(images[rows])


def _features(model: Backbone, prefix: nn.Module, images: Tensor, view: _View, start: int, bf16: bool) -> Tensor:
    device = next(model.parameters()).device
    given = model.normalise(view.of(images.to(device), start))  # channels_last weights suffice for all to be
    with torch.autocast(device.type, torch.bfloat16, enabled=bf16, cache_enabled=False):
        return prefix(given).float()
