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

from ggo_lab.backbones import Learner
from ggo_lab.errors import GgoLabError, ModelError
from ggo_lab.storage import cache_folder, write_text_whole
from ggo_lab.training.config import PLAIN, Speed, TrainConfig
from ggo_lab.training.devices import bring, device_name, reproducible
from ggo_lab.training.memory import Memory
from ggo_lab.training.ranks import rank_and_size
from ggo_lab.training.steps import make_optimizer, train_epoch

# A probe costs the time of about a dozen steps; a run of fewer than this many steps would not win it back.
_STEPS_WORTH_A_PROBE = 100
_PROBE_STEPS = 4  # the first, which also sets things up, is not counted
# Compiling took 20 to 110 s on two cores. Only a run that may take longer than this is asked to wait for it.
_SECONDS_WORTH_COMPILING = 1200.0


def memory_format(speed: Speed) -> torch.memory_format:
    return torch.channels_last if speed.channels_last else torch.contiguous_format


class Compiled(Learner):
    """A model whose training steps are compiled, in its place; it is judged as it is, as `predict` will find it."""

    def __init__(self, model: Learner):
        super().__init__()
        self.model, self.name = model, model.name
        # The last batch of an epoch may be smaller: kernels for each of the two sizes are faster than one for both.
        self._compiled = torch.compile(model.outputs, dynamic=False)

    def outputs(self, images: Tensor) -> list[tuple[float, Tensor]]:
        """As of the model.

        Raises:
            ModelError: nothing can be compiled here.
        """
        try:
            return self._compiled(images)
        except torch._dynamo.exc.TorchDynamoException as error:
            raise ModelError(
                f"torch.compile cannot compile {self.name} here ({str(error).strip().splitlines()[0][:200]}). It needs "
                'a C++ compiler on the CPU and Triton on a GPU; leave it out: Speed(compile=False) or speed="auto".',
                self.name,
            ) from error

    def forward(self, images: Tensor) -> Tensor:
        """As of the model; nothing is compiled."""
        return self.model(images)


def choose_speed(
    model: Learner, images: Tensor, targets: Tensor, config: TrainConfig, memory: Memory
) -> tuple[Speed, dict[Speed, float]]:
    """Decide on the speed settings: as the config says, or the fastest of those tried on this machine.

    Args:
        images, targets: as in training_batches; or features in the place of images.
    Returns: the settings, and History.tried.
    """
    if isinstance(config.speed, Speed):
        return config.speed, {}
    size = min(config.batch_size, len(images))
    steps = config.max_epochs * math.ceil(len(images) / size)
    # Ranks must agree, and their timings would not.
    if config.speed == "plain" or steps < _STEPS_WORTH_A_PROBE or rank_and_size()[1] > 1:
        return PLAIN, {}
    network, batch = [model.name, model.extent], [size, *images.shape[1:]]
    given = model, bring(images[:size], targets.device), targets[:size], config, memory
    uncompiled = (Speed(True, False), Speed(True, True), Speed(False, True), PLAIN)
    tried = try_once(network, batch, targets.device, lambda: _probe(*given, uncompiled))
    fastest, seconds = next(iter(tried.items()))
    if steps * seconds > _SECONDS_WORTH_COMPILING:
        compiled = (fastest._replace(compile=True),)
        tried |= try_once([*network, "compiled"], batch, targets.device, lambda: _probe(*given, compiled))
        tried = _fastest_first(tried)
    return next(iter(tried)), tried


def try_once(
    network: list, batch: list, device: torch.device, probe: Callable[[], dict[Speed, float]]
) -> dict[Speed, float]:
    """Give what a probe finds, fastest settings first.

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
        rows = json.loads(file.read_text(encoding="utf-8"))["tried"]
        # In the order in which they are stored, although seconds that are rounded may be equal.
        if rows:
            return {Speed(*(bool(row[name]) for name in Speed._fields)): float(row["seconds"]) for row in rows}
    except (OSError, ValueError, TypeError, KeyError):
        pass  # never tried here, or damaged: try again
    tried = _fastest_first(probe())
    rows = [{**speed._asdict(), "seconds": round(seconds, 5)} for speed, seconds in tried.items()]
    try:
        write_text_whole(file, json.dumps({**facts, "tried": rows}, indent=1))
    except GgoLabError as error:
        warnings.warn(
            f"The speed settings found cannot be remembered, so another run may take others and its numbers differ a "
            f'little; TrainConfig(speed="plain") never does. {error}',
            stacklevel=4,
        )
    return tried


def _fastest_first(tried: dict[Speed, float]) -> dict[Speed, float]:
    return dict(sorted(tried.items(), key=lambda item: item[1]))


def _probe(
    model: Learner, images: Tensor, targets: Tensor, config: TrainConfig, memory: Memory, speeds: tuple[Speed, ...]
) -> dict[Speed, float]:
    """Time training steps with each setting, each on a copy of the model: seconds per step."""
    seconds: dict[Speed, float] = {}
    for speed in speeds:
        copy = deepcopy(model).to(memory_format=memory_format(speed))
        optimizer, least = make_optimizer(copy, config), min(seconds.values(), default=math.inf)
        trial, taken = Compiled(copy) if speed.compile else copy, []
        try:
            with reproducible(config.seed, images.device):
                for _ in range(_PROBE_STEPS):
                    start = time.perf_counter()
                    train_epoch(trial, [(images, targets)], optimizer, speed, memory=memory)  # it waits for the GPU
                    taken.append(time.perf_counter() - start)
                    # Where a processor must imitate bf16 a step may take ten times as long: no need to see it again.
                    if taken[-1] > least * (3 if len(taken) == 1 else 1.3):
                        break
        except ModelError:
            if not speed.compile:
                raise
            taken = [math.inf]  # no compiler here
        seconds[speed] = min(taken[1:] or taken)
    return seconds
