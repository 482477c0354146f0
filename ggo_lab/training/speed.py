"""How numbers lie in memory and how precise arithmetic is: it follows from the machine, or from a measurement."""

import math
import time
from copy import deepcopy
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torchvision.models import DenseNet

from ggo_lab.backbones import Backbone, backbone_of
from ggo_lab.errors import CohortError, ModelError
from ggo_lab.images import ImageSet
from ggo_lab.training.batches import place
from ggo_lab.training.config import PLAIN, Speed, TrainConfig, make_optimizer, memory_format
from ggo_lab.training.devices import choose_device, reproducible
from ggo_lab.training.losses import main_logits

_PROBE_STEPS = 4  # the first, which also sets things up, is not counted
_CUDA_WITH_BF16 = (8, 0)  # compute capability: Ampere, the first whose tensor cores take bf16


def choose_speed(model: Backbone, config: TrainConfig, device: torch.device) -> Speed:
    """Return the speed settings: as the config says, or those that suit this kind of network and device.

    Nothing is measured, so the same machine always takes the same arithmetic, and gives the same numbers.
    """
    if isinstance(config.speed, Speed):
        return config.speed
    return PLAIN if config.speed == "plain" else suited(model, device)


def suited(model: Backbone, device: torch.device) -> Speed:
    """Return the settings that suit a kind of network on a kind of device.

    Measured on two cores with AVX-512 bf16, 16 images of 224 pixels, images a second: ResNet-18 11 plain, 17 with
    channels_last, 30 with bf16 as well; DenseNet-121 4.5, 7.3, and 12 with bf16 alone but 2.9 with both, since its
    layers join the channels of all before them.
    """
    bf16 = _has_bf16(device)
    # Of many convolutions, that is: not of one that cuts the image into patches.
    convolutional = sum(isinstance(module, nn.Conv2d) for module in model.modules()) > 1
    joins_channels = any(isinstance(module, DenseNet) for module in model.modules())
    return Speed(channels_last=convolutional and not (joins_channels and bf16), bf16=bf16)


def _has_bf16(device: torch.device) -> bool:
    """Return whether the processor has instructions for 16-bit arithmetic; imitated, it is slower than 32-bit."""
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= _CUDA_WITH_BF16
    instructions = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")  # torch has no public name for them
    return device.type == "cpu" and any(getattr(torch.cpu, name, lambda: False)() for name in instructions)


def set_speed(model: Backbone, speed: Speed | None = None) -> Backbone:
    """Set how a model's numbers lie in memory and how precisely it learns, as `fit` does; return the model.

    It is judged, and predicts, in 32 bits all the same.

    Args:
        model: on its device.
        speed: the settings, of which `compile` does not count; those that suit the network and the device if left out.
    """
    speed = speed or suited(model, next(model.parameters()).device)
    model.bf16 = speed.bf16
    return model.to(memory_format=memory_format(speed))


def compiled(model: nn.Module, speed: Speed) -> nn.Module:
    """Return a model whose layers are compiled for its training steps; itself, where that is not asked for."""
    return Compiled(model) if speed.compile else model


class Compiled(nn.Module):
    """A model with compiled training steps, in its place; it is judged as it is, as `predict` will find it."""

    def __init__(self, model: nn.Module):
        """Put a model inside."""
        super().__init__()
        self.model = model
        # The last batch of an epoch may be smaller: kernels for each of the two sizes are faster than one for both.
        self._compiled = [torch.compile(model, dynamic=False)]  # in a list, so that it is no module of this one

    def forward(self, images: Tensor) -> Any:
        """Return the model's outputs.

        Raises:
            ModelError: the layers cannot be compiled here.
        """
        if not self.training:
            return self.model(images)
        try:
            return self._compiled[0](images)
        except torch._dynamo.exc.TorchDynamoException as error:
            raise ModelError(
                f"torch.compile cannot compile the network here ({str(error).strip().splitlines()[0][:200]}). It "
                "needs a C++ compiler on the CPU and Triton on a GPU; leave it out: Speed(compile=False) or "
                'speed="auto".',
            ) from error


def fastest(
    model: nn.Module, images: ImageSet, config: TrainConfig = TrainConfig(), compile: bool = False
) -> dict[Speed, float]:
    """Measure which speed settings are the fastest for a network on this machine.

    Give the first to fit as TrainConfig(speed=...). Timings vary, so two measurements may differ where two settings
    are about as fast; that is why `fit` itself does not measure.

    Args:
        model: of build_backbone; it is left as it was.
        images: of which a batch is taken.
        config: of which batch_size, optimizer and device count.
        compile: also measure torch.compile with the fastest setting, which may take a minute or two.

    Returns:
        Seconds for a training step, by setting, the fastest first; infinite where it cannot be used here.

    Raises:
        CohortError: fewer than two images.
    """
    model = backbone_of(model)
    if len(images) < 2:
        raise CohortError(f"A training step needs two images; {len(images)} were given.")
    device = choose_device(config.device)
    pixels, _ = place(images.subset(np.arange(min(config.batch_size, len(images)))), device)
    seconds: dict[Speed, float] = {}
    for speed in (Speed(True, False), Speed(True, True), Speed(False, True), PLAIN):
        seconds[speed] = _step_seconds(model, pixels, config, speed)
    if compile:
        speed = min(seconds, key=seconds.__getitem__)._replace(compile=True)
        seconds[speed] = _step_seconds(model, pixels, config, speed)
    return dict(sorted(seconds.items(), key=lambda item: item[1]))


def _step_seconds(model: Backbone, pixels: Tensor, config: TrainConfig, speed: Speed) -> float:
    """Time training steps with a setting, on a copy of the model."""
    copy = set_speed(deepcopy(model).to(pixels.device), speed)
    optimizer, taken = make_optimizer(copy, config), []
    learner = compiled(copy, speed).train()
    with reproducible(config.seed, pixels.device):
        for _ in range(_PROBE_STEPS):
            start = time.perf_counter()
            optimizer.zero_grad()
            try:
                outputs = learner(pixels)
            except ModelError:
                if not speed.compile:
                    raise
                return math.inf
            loss = main_logits(outputs).float().logsumexp(dim=1).mean()
            loss.backward()
            optimizer.step()
            loss.item()  # it waits for the GPU
            taken.append(time.perf_counter() - start)
    return min(taken[1:])
