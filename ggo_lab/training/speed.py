"""Speed settings: tried on this machine, and the fastest kept."""

import hashlib
import json
import math
import time
import warnings
from collections.abc import Callable
from copy import deepcopy

import torch
from torch import Tensor

from ggo_lab.backbones import Backbone
from ggo_lab.errors import GgoLabError
from ggo_lab.storage import cache_folder, write_whole
from ggo_lab.training.config import PLAIN, Speed, TrainConfig
from ggo_lab.training.devices import device_name, reproducible
from ggo_lab.training.memory import Memory
from ggo_lab.training.ranks import rank_and_size
from ggo_lab.training.steps import make_optimizer, train_epoch

# A probe costs the time of about a dozen steps; a run of fewer than this many steps would not win it back.
_STEPS_WORTH_A_PROBE = 100
_PROBE_STEPS = 4  # the first, which also sets things up, is not counted


def memory_format(speed: Speed) -> torch.memory_format:
    return torch.channels_last if speed.channels_last else torch.contiguous_format


def choose_speed(model: Backbone, images: Tensor, targets: Tensor, config: TrainConfig, memory: Memory) -> Speed:
    """Decide on the speed settings: as the config says, or the fastest of those tried on this machine."""
    if isinstance(config.speed, Speed):
        return config.speed
    size = min(config.batch_size, len(images))
    steps = config.max_epochs * math.ceil(len(images) / size)
    # Ranks must agree, and their timings would not.
    if config.speed == "plain" or steps < _STEPS_WORTH_A_PROBE or rank_and_size()[1] > 1:
        return PLAIN
    return fastest(
        [model.name, model.extent],
        [size, *images.shape[1:]],
        images.device,
        lambda: _probe(model, images[:size], targets[:size], config, memory),
    )


def fastest(network: list, batch: list, device: torch.device, probe: Callable[[], dict[Speed, float]]) -> Speed:
    """Give the fastest settings that a probe finds.

    What was found is remembered in the cache folder, because timings vary and the same seed must take the same
    arithmetic, and so give the same numbers, in every run.

    Args:
        network, batch: texts and numbers that name what is being timed.
        probe: gives the seconds that each setting takes; asked only where nothing is remembered.
    """
    facts = {
        "network": network,
        "batch": batch,
        "device": device_name(device),
        "processor": torch.backends.cpu.get_cpu_capability(),
        "torch": torch.__version__,
    }
    key = hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:16]
    file = cache_folder() / "speed" / f"{key}.json"
    try:
        channels_last, bf16 = json.loads(file.read_text(encoding="utf-8"))["fastest"]
        return Speed(bool(channels_last), bool(bf16))
    except (OSError, ValueError, TypeError, KeyError):
        pass  # never tried here, or damaged: try again
    seconds = probe()
    found = min(seconds, key=seconds.get)
    tried = [{**speed._asdict(), "seconds_per_step": round(s, 4)} for speed, s in seconds.items()]
    content = json.dumps({**facts, "tried": tried, "fastest": found}, indent=1).encode()
    try:
        write_whole(file, lambda opened: opened.write(content))
    except GgoLabError as error:
        warnings.warn(
            f"The speed settings found cannot be remembered, so another run may take others and its numbers differ a "
            f'little; TrainConfig(speed="plain") never does. {error}',
            stacklevel=4,
        )
    return found


def _probe(model: Backbone, images: Tensor, targets: Tensor, config: TrainConfig, memory: Memory) -> dict[Speed, float]:
    """Time training steps with each setting, each on a copy of the model: seconds per step."""
    seconds = {}
    for speed in (Speed(True, False), Speed(True, True), Speed(False, True), PLAIN):
        trial = deepcopy(model).to(memory_format=memory_format(speed))
        optimizer, least = make_optimizer(trial, config), min(seconds.values(), default=math.inf)
        taken = []
        with reproducible(config.seed, images.device):
            for _ in range(_PROBE_STEPS):
                start = time.perf_counter()
                train_epoch(trial, [(images, targets)], optimizer, speed, memory=memory)  # it waits for the GPU
                taken.append(time.perf_counter() - start)
                # Where a processor must imitate bf16 a step may take ten times as long: no need to see it again.
                if taken[-1] > least * (3 if len(taken) == 1 else 1.3):
                    break
        seconds[speed] = min(taken[1:] or taken)
    return seconds
