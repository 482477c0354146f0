"""The frozen prefix: layers that do not learn give the same outputs in every epoch, so they are computed once."""

import time
from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch
from torch import Tensor, fx, nn
from torch.nn.functional import dropout, dropout1d, dropout2d, dropout3d
from torchvision.ops import StochasticDepth, stochastic_depth
from tqdm.auto import tqdm

from ggo_lab.backbones import Backbone, Learner
from ggo_lab.backbones.sequence import GruGrader, SliceReader
from ggo_lab.training.augment import alter, augments
from ggo_lab.training.batches import batch_rows
from ggo_lab.training.config import Speed, TrainConfig
from ggo_lab.training.devices import bring
from ggo_lab.training.ranks import rank_and_size
from ggo_lab.training.speed import try_once

# More would be slow to keep, or would push out what else lives there. ResNet-152's features, 72 scans, two views:
# 1.2 MB for "head", 116 MB for "last_block".
_MOST_BYTES = 2 * 1024**3
_IMAGES_WORTH_A_PROBE = 64  # a probe costs the time of 16
_BATCH = 16  # images at once; it changes memory and time, not the result
_CHANCE = (nn.modules.dropout._DropoutNd, StochasticDepth)
_CHANCE_FUNCTIONS = (dropout, dropout1d, dropout2d, dropout3d, stochastic_depth)


class Rest(Learner):
    """What comes after the frozen prefix, in the place of the whole model: it takes features for images."""

    def __init__(self, model: Backbone, layers: nn.Module):
        super().__init__()
        self.model, self.layers = model, layers
        self.name, self.extent = model.name, model.extent

    def outputs(self, features: Tensor) -> list[tuple[float, Tensor]]:
        """As of the whole model, from features (B, ...)."""
        return self.model.read(self.layers(features))

    def forward(self, features: Tensor) -> Tensor:
        """Give the logits (B, 4) of features (B, ...)."""
        return self.outputs(features)[0][1]

    def train(self, mode: bool = True) -> "Rest":
        """Switch the model that these layers are part of; it leaves frozen layers as they are."""
        self.training = mode
        self.model.train(mode)
        return self


def split_at_frozen(model: Backbone) -> tuple[nn.Module, Rest] | None:
    """Cut a model behind the frozen layers: where one tensor carries all that the rest needs to know.

    The network is traced by torch.fx with frozen modules as black boxes; a step is frozen if nothing before it learns
    and nothing is left to chance, as in dropout. Both parts share their layers with the model.

    Returns: the prefix, from normalised images to features, and the rest; None where there is no such place,
        or where fx cannot follow the network.
    """
    model.train()  # so that what draws at random while learning can be told from what is asleep
    try:
        graph = _Tracer().trace(model.network)
    except fx.proxy.TraceError:  # a network, or a hook on it, whose path depends on the values it sees
        return None
    *nodes, output = graph.nodes
    modules, cut = dict(model.network.named_modules()), 0
    frozen: set[fx.Node] = set()
    crossing: set[fx.Node] = set()
    for place, node in enumerate(nodes):
        if not _is_frozen(node, modules, model.network, frozen):
            break
        frozen.add(node)
        crossing = {n for n in (*crossing, node) if any(user not in frozen for user in n.users)}
        if crossing == {node} and node.op != "placeholder":
            cut = place
    if not cut:
        return None
    before, after = fx.Graph(), fx.Graph()
    copies: dict[fx.Node, fx.Node] = {}
    for node in nodes[: cut + 1]:
        copies[node] = before.node_copy(node, copies.__getitem__)
    before.output(copies[nodes[cut]])
    copies = {nodes[cut]: after.placeholder("features")}
    for node in (*nodes[cut + 1 :], output):
        copies[node] = after.node_copy(node, copies.__getitem__)
    return fx.GraphModule(model.network, before), Rest(model, fx.GraphModule(model.network, after))


class _Tracer(fx.Tracer):
    def is_leaf_module(self, module: nn.Module, name: str) -> bool:
        """Do not look into frozen modules, nor into those that are one step (whose mode must stay switchable)."""
        if not any(p.requires_grad for p in module.parameters()) or not list(module.children()):
            return True
        # Nor can fx follow what depends on the number of slices.
        return isinstance(module, (SliceReader, GruGrader)) or super().is_leaf_module(module, name)


def _is_frozen(node: fx.Node, modules: dict[str, nn.Module], network: nn.Module, frozen: set[fx.Node]) -> bool:
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


class FrozenOnce(NamedTuple):
    """A model without its frozen prefix, and what the prefix makes of the images."""

    rest: Rest
    views: Tensor  # float32 (V, N, ...): of the train split, in V views of each image
    unseen: Tensor  # float32 (N, ...): of the validation split


def compute_frozen_once(
    model: Backbone,
    images: Tensor,
    unseen: Tensor,
    config: TrainConfig,
    progress: bool = False,
) -> FrozenOnce | None:
    """Compute the frozen layers' outputs for every image, in every view that training will ask for.

    Where images are at most mirrored, both views of each are computed, and training sees what it would have seen
    otherwise. Where they are altered in other ways too, `config.views` views of each are drawn.

    Args:
        images, unseen: uint8 (N, C, H, W) of the train and the validation split, on the model's device or still in
            the memory map.
    Returns: None where every step must compute the frozen layers: none are in front, or their outputs would take more
        than 2 GiB.
    """
    parts = split_at_frozen(model)
    if parts is None:
        return None
    prefix, rest = parts
    model.eval().to(memory_format=torch.channels_last)  # for these layers alone it is the faster format
    device, alterations = next(model.parameters()).device, _alterations(config)
    with torch.no_grad():
        shape = prefix(model.normalise(bring(images[:1], device))).shape[1:]
        if 4 * shape.numel() * (len(alterations) * len(images) + len(unseen)) > _MOST_BYTES:
            return None
        bf16 = _bf16_pays(model, prefix, images, len(alterations), config)
        views = torch.empty(len(alterations), len(images), *shape, device=device)
        judged = torch.empty(len(unseen), *shape, device=device)
        work = [(images, alter, view, bf16) for alter, view in zip(alterations, views, strict=True)]
        # As `score` does: in 32 bits, so that `predict` finds the same numbers.
        work.append((unseen, _as_it_is, judged, False))
        for pixels, alter_view, features, low in tqdm(
            work, desc="frozen layers", delay=2, leave=False, disable=not progress
        ):
            for batch, place in zip(pixels.split(_BATCH), features.split(_BATCH), strict=True):
                place.copy_(_features(model, prefix, alter_view(bring(batch, device)), low))
    return FrozenOnce(rest, views, judged)


def _features(model: Backbone, prefix: nn.Module, images: Tensor, bf16: bool) -> Tensor:
    given = model.normalise(images)  # weights that are channels_last suffice for all to be
    with torch.autocast(images.device.type, torch.bfloat16, enabled=bf16):
        return prefix(given)


def _bf16_pays(model: Backbone, prefix: nn.Module, images: Tensor, count: int, config: TrainConfig) -> bool:
    """Whether the frozen layers are computed in 16 bits: as the settings say, or where it is faster on this machine."""
    if isinstance(config.speed, Speed):
        return config.speed.bf16
    if config.speed == "plain" or count * len(images) < _IMAGES_WORTH_A_PROBE or rank_and_size()[1] > 1:
        return False
    few = bring(images[:4], next(model.parameters()).device)

    def probe() -> dict[Speed, float]:
        seconds = {}
        for speed in (Speed(True, True), Speed(True, False)):
            taken = []
            for _ in range(2):  # the first sets things up
                start = time.perf_counter()
                _features(model, prefix, few, speed.bf16).sum().item()
                taken.append(time.perf_counter() - start)
            seconds[speed] = min(taken)
        return seconds

    tried = try_once(["frozen", model.name, model.extent], list(images.shape[1:]), few.device, probe)
    return next(iter(tried)).bf16


def _alterations(config: TrainConfig) -> list[Callable[[Tensor], Tensor]]:
    """Give what turns a batch of images into each view; with mirroring alone, the mirrored one comes first."""
    if augments(config):
        draws = torch.Generator().manual_seed(config.seed)
        return config.views * [lambda batch: alter(batch, config, draws)]
    return [lambda batch: batch.flip(-1), _as_it_is] if config.flip else [_as_it_is]


def _as_it_is(batch: Tensor) -> Tensor:
    return batch


def feature_batches(
    views: Tensor, targets: Tensor, config: TrainConfig, draws: torch.Generator
) -> Iterator[tuple[Tensor, Tensor]]:
    """Give batches as training_batches does, each image in a view drawn anew.

    Where mirroring is all there is, the draws are the same too, and so are the batches.

    Args:
        views: float (V, N, ...), of compute_frozen_once. targets: int64 (N,).
    """
    for rows in batch_rows(targets, config, draws):
        view = (torch.rand(len(rows), generator=draws) * len(views)).long().to(targets.device)
        rows = rows.to(targets.device)
        yield views[view, rows], targets[rows]
