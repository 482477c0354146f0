"""The training loop: fine-tune, watch the validation loss, keep the best state; and model files."""

import hashlib
import json
import math
import time
import warnings
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple

import pandas as pd
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from tqdm.auto import tqdm

from ggo_lab.backbones import Backbone, backbone_from_state
from ggo_lab.errors import ChoiceError, CohortError, GgoLabError, ModelError, check_choice
from ggo_lab.grades import GRADE_NAMES, Grade
from ggo_lab.images import ImageSet, Recipe
from ggo_lab.storage import cache_folder, write_whole

_CHANCE_LOSS = math.log(len(Grade))  # 1.386: the cross-entropy of giving every grade a quarter
_SCORE_BATCH = 64  # images at once when nothing is learnt; it changes memory and time, not the result


class Speed(NamedTuple):
    """How numbers lie in memory and how precise the arithmetic is: it changes the time, hardly the result."""

    channels_last: bool = False  # pixels of all channels side by side, which many convolutions read faster
    bf16: bool = False  # 16-bit arithmetic where it is safe (autocast) while learning; weights stay 32-bit


PLAIN = Speed()


@dataclass(frozen=True)
class TrainConfig:
    """The settings of a training run. The paper (arXiv:2303.16904) is TrainConfig(patience=5, max_epochs=500)."""

    optimizer: str = "adam"  # "adam", or "sgd" with momentum 0.9
    lr: float = 1e-3  # learning rate, the paper's for every network
    batch_size: int = 16  # images per step; the paper tried 16 to 256
    max_epochs: int = 40  # the most passes over the train split
    patience: int = 12  # epochs without a better validation loss before stopping; 24 scans make a noisy loss
    min_delta: float = 0.0  # by how much the loss must fall to count as better
    flip: bool = True  # mirror half of the images, left to right, drawn anew every epoch
    seed: int = 101  # of the order, the mirroring and dropout; the paper's
    device: str = "auto"  # "auto": a GPU where there is one; or torch's name of a device, such as "cuda:1"
    speed: str | Speed = "auto"  # "auto": the fastest on this machine, tried once and remembered; "plain"; or a Speed

    def __post_init__(self):
        check_choice("optimizer", self.optimizer, ("adam", "sgd"))
        for name, least in (("max_epochs", 1), ("patience", 1), ("batch_size", 2)):
            if getattr(self, name) < least:
                why = ": BatchNorm cannot learn from one image" if name == "batch_size" else ""
                raise ChoiceError(
                    f"{name}={getattr(self, name)} is too small{why}; give {least} or more.", getattr(self, name)
                )
        if not 0 < self.lr < math.inf:
            raise ChoiceError(f"lr={self.lr} is no step; give a value above 0, such as 1e-3.", self.lr)
        if not 0 <= self.min_delta < _CHANCE_LOSS:
            raise ChoiceError(
                f"min_delta={self.min_delta}: chance itself scores a loss of ln 4 = {_CHANCE_LOSS:.3f}, so hardly any "
                "epoch could count as better, and the count of epochs without one would mean nothing; give a value "
                "from 0 to about 0.1.",
                self.min_delta,
            )
        if not isinstance(self.speed, Speed):
            check_choice("speed", self.speed, ("auto", "plain"))


@dataclass(frozen=True, eq=False)
class History:
    """What happened in a training run.

    Attributes:
        table: a row an epoch: epoch (from 1), train_loss and train_accuracy (while learning, so of a network that was
            changing), validation_loss, validation_accuracy, seconds, best (True for the epoch that was kept).
        best_epoch: the epoch whose state the model now holds: best validation accuracy, then lower loss.
        ended: "early" (no better loss for `patience` epochs), "max_epochs" or "interrupted".
        config: the settings.
        speed: the speed settings used.
        device: where it ran.
    """

    table: pd.DataFrame
    best_epoch: int
    ended: str
    config: TrainConfig
    speed: Speed
    device: str

    @property
    def stopped_early(self) -> bool:
        """Whether the validation loss had reached its plateau."""
        return self.ended == "early"

    def __repr__(self) -> str:
        best = self.table[self.table["best"]].iloc[0]
        why = {
            "early": f"no lower validation loss for {self.config.patience} epochs",
            "max_epochs": "max_epochs reached",
            "interrupted": "interrupted",
        }[self.ended]
        return (
            f"History: {len(self.table)} epochs in {self.table['seconds'].sum():.0f} s on {self.device} ({why}); kept "
            f"epoch {self.best_epoch}: validation accuracy {best['validation_accuracy']:.2f}, loss "
            f"{best['validation_loss']:.2f}"
        )


def fit(
    model: Backbone,
    train: ImageSet,
    validation: ImageSet,
    config: TrainConfig = TrainConfig(),
    progress: bool = True,
) -> History:
    """Fine-tune a model; leave it with the state of the best validation accuracy, in evaluation mode.

    Interrupted (Ctrl-C, or the stop button of a notebook), it keeps the best state so far.

    Args:
        train: teaches.
        validation: decides when to stop and which state is kept. Nothing else is looked at.
        progress: show a bar of epochs.
    Raises:
        CohortError: an empty split, unknown grades, or a patient in both splits.
        ChoiceError: a device that is not there.
        ModelError: images that do not fit the network, or a loss that is no longer a number.
    """
    _check_splits(train, validation)
    device = _device(config.device)
    images, targets = _on_device(train, device)
    unseen, unseen_targets = _on_device(validation, device)
    model.to(device)
    speed = _speed(model, images, targets, config)
    model.to(memory_format=_memory_format(speed))
    optimizer = _optimizer(model, config)
    draws = torch.Generator().manual_seed(config.seed)  # of the order and the mirroring

    rows, ended = [], "max_epochs"
    best, best_state, best_epoch = (-math.inf, -math.inf), None, 0
    least_loss, epochs_without_better = math.inf, 0
    with _reproducible(config.seed, device), _bar(config.max_epochs, progress) as bar:
        try:
            for epoch in range(1, config.max_epochs + 1):
                start = time.perf_counter()
                batches = training_batches(images, targets, config, draws)
                train_loss, train_accuracy = train_epoch(model, batches, optimizer, speed, epoch)
                loss, accuracy = score(model, unseen, unseen_targets)
                if not math.isfinite(loss):
                    raise _diverged(f"The validation loss is {loss} after epoch {epoch}", model, optimizer)
                rows.append((epoch, train_loss, train_accuracy, loss, accuracy, time.perf_counter() - start))
                if (accuracy, -loss) > best:
                    # A copy: the tensors of state_dict() are the model's own, and go on changing.
                    best, best_state, best_epoch = (accuracy, -loss), deepcopy(model.state_dict()), epoch
                if loss < least_loss - config.min_delta:
                    least_loss, epochs_without_better = loss, 0
                else:
                    epochs_without_better += 1
                bar.update()
                bar.set_postfix_str(f"validation loss {loss:.2f}, accuracy {accuracy:.2f}")
                if epochs_without_better >= config.patience:
                    ended = "early"
                    break
        except KeyboardInterrupt:
            if best_state is None:
                raise
            ended = "interrupted"
    model.load_state_dict(best_state)
    model.eval()
    model.recipe = train.recipe
    columns = ["epoch", "train_loss", "train_accuracy", "validation_loss", "validation_accuracy", "seconds"]
    table = pd.DataFrame(rows, columns=columns).assign(best=lambda made: made["epoch"] == best_epoch)
    return History(table, best_epoch, ended, config, speed, _device_name(device))


def train_epoch(
    model: Backbone,
    batches: Iterable[tuple[Tensor, Tensor]],
    optimizer: torch.optim.Optimizer,
    speed: Speed = PLAIN,
    epoch: int = 1,
) -> tuple[float, float]:
    """Learn from every batch once; give the mean loss and the accuracy while learning.

    Args:
        batches: images uint8 (B, 3, H, W) and targets int64 (B,), grade - 1, on the model's device.
        epoch: its number, for the message of an error.
    Raises:
        ModelError: the loss is no longer a number.
    """
    model.train()
    losses, right, sizes = [], [], []
    for images, targets in batches:
        with torch.autocast(images.device.type, torch.bfloat16, enabled=speed.bf16):
            outputs = model.outputs(images)
            loss = sum(weight * cross_entropy(logits.float(), targets) for weight, logits in outputs)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.detach())
        right.append((outputs[0][1].argmax(1) == targets).sum())
        sizes.append(len(targets))
    # Numbers are fetched once an epoch: each fetch makes the program wait for the GPU.
    losses, right = torch.stack(losses).tolist(), torch.stack(right).sum().item()
    for step, loss in enumerate(losses, 1):
        if not math.isfinite(loss):
            raise _diverged(f"The training loss is {loss} at step {step} of epoch {epoch}", model, optimizer)
    # Weighted by size: the last batch may be smaller, and its images count no more than others.
    return sum(loss * size for loss, size in zip(losses, sizes, strict=True)) / sum(sizes), right / sum(sizes)


@torch.inference_mode()
def score(model: Backbone, images: Tensor, targets: Tensor) -> tuple[float, float]:
    """Give the mean loss and the accuracy on images that the model does not learn from.

    Always in 32-bit arithmetic, so that the state is chosen by the numbers that `predict` will find again.

    Args:
        images: uint8 (N, 3, H, W). targets: int64 (N,), grade - 1. Both on the model's device.
    """
    model.eval()
    loss_sum = right = 0.0
    for batch, batch_targets in zip(images.split(_SCORE_BATCH), targets.split(_SCORE_BATCH), strict=True):
        logits = model(batch)
        loss_sum += cross_entropy(logits, batch_targets, reduction="sum").item()
        right += (logits.argmax(1) == batch_targets).sum().item()
    return loss_sum / len(images), right / len(images)


def training_batches(
    images: Tensor, targets: Tensor, config: TrainConfig, draws: torch.Generator
) -> Iterator[tuple[Tensor, Tensor]]:
    """Give all images once, in batches of a new order, half of them mirrored.

    A last batch of a single image joins its neighbour: BatchNorm cannot learn from one.

    Args:
        images: uint8 (N, 3, H, W). targets: int64 (N,).
        draws: generator of the order and the mirroring, on the CPU, so that every device sees the same.
    """
    batches = list(torch.randperm(len(images), generator=draws).split(config.batch_size))
    if len(batches) > 1 and len(batches[-1]) == 1:
        batches[-2:] = [torch.cat(batches[-2:])]
    for rows in batches:
        mirrored = torch.rand(len(rows), generator=draws) < 0.5
        rows, mirrored = rows.to(images.device), mirrored.to(images.device)
        batch = images[rows]
        if config.flip:
            batch = torch.where(mirrored[:, None, None, None], batch.flip(-1), batch)
        yield batch, targets[rows]


def _optimizer(model: nn.Module, config: TrainConfig) -> torch.optim.Optimizer:
    learning = [p for p in model.parameters() if p.requires_grad]
    if config.optimizer == "adam":
        return torch.optim.Adam(learning, lr=config.lr)
    return torch.optim.SGD(learning, lr=config.lr, momentum=0.9)


def _diverged(what: str, model: Backbone, optimizer: torch.optim.Optimizer) -> ModelError:
    lr = optimizer.param_groups[0]["lr"]
    return ModelError(
        f"{what}: the weights have grown without bound. Most likely lr={lr:g} is too high for {model.name}; build the "
        f"model anew, for its weights are spoilt, and try lr={lr / 10:g}. If that does not help, the pretrained "
        "weights may be damaged.",
        lr,
    )


def _check_splits(train: ImageSet, validation: ImageSet) -> None:
    for name, images in (("train", train), ("validation", validation)):
        if len(images) == 0:
            raise CohortError(f"The {name} split is empty; call cohort.split_by_patient() before prepare.")
        unknown = [n for n, index in zip(images.names, images.indices, strict=True) if index < 0]
        if unknown:
            raise CohortError(
                f"{len(unknown)} scans of the {name} split have no grade, such as {unknown[0]}; nothing can be "
                "learnt or judged from them. Leave them out with subset.",
                unknown,
            )
    if len(train) == 1:
        raise CohortError("The train split holds one scan; two are the least that BatchNorm can learn from.")
    if shared := sorted(set(train.patients) & set(validation.patients)):
        raise CohortError(
            f"{len(shared)} patients are in both train and validation, such as {shared[0]}: the network would be "
            "judged on people it has seen. Use cohort.split_by_patient().",
            shared,
        )
    if train.recipe != validation.recipe:
        raise CohortError(f"train and validation were prepared differently: {train.recipe} and {validation.recipe}.")


# ---- devices, seeds, speed ------------------------------------------------------------------------------------


def _device(choice: str) -> torch.device:
    if choice == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        return torch.empty(0, device=choice).device
    except (RuntimeError, AssertionError) as error:  # AssertionError: a torch without CUDA
        reason = str(error).splitlines()[0]
        raise ChoiceError(f'device={choice!r} cannot be used here ({reason}); "auto" takes what is there.') from None


def _device_name(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{device.type}, {torch.get_num_threads()} threads"


def _on_device(images: ImageSet, device: torch.device) -> tuple[Tensor, Tensor]:
    """Move a whole split to the device once, as uint8: 600 scans at 224 x 224 are 90 MB."""
    pixels = torch.from_numpy(images.pixels.copy())
    return pixels.to(device), torch.from_numpy(images.indices).to(device)


def _bar(epochs: int, progress: bool) -> tqdm:
    return tqdm(total=epochs, desc="epochs", delay=2, leave=False, disable=not progress)


@contextmanager
def _reproducible(seed: int, device: torch.device) -> Iterator[None]:
    """Inside the block only: seed the global generators, from which dropout draws, and let cuDNN not vary."""
    before = torch.backends.cudnn.deterministic
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        torch.backends.cudnn.deterministic = True
        try:
            yield
        finally:
            torch.backends.cudnn.deterministic = before


# A probe costs the time of about a dozen steps; a run of fewer than this many steps would not win it back.
_STEPS_WORTH_A_PROBE = 100
_PROBE_STEPS = 4  # the first, which also sets things up, is not counted


def _memory_format(speed: Speed) -> torch.memory_format:
    return torch.channels_last if speed.channels_last else torch.contiguous_format


def _speed(model: Backbone, images: Tensor, targets: Tensor, config: TrainConfig) -> Speed:
    """Decide on the speed settings: as the config says, or the fastest of those tried on this machine.

    What was found is remembered in the cache folder, because timings vary and the same seed must take the same
    arithmetic, and so give the same numbers, in every run.
    """
    if isinstance(config.speed, Speed):
        return config.speed
    size = min(config.batch_size, len(images))
    steps = config.max_epochs * math.ceil(len(images) / size)
    if config.speed == "plain" or steps < _STEPS_WORTH_A_PROBE:
        return PLAIN
    facts = {
        "network": [model.name, model.extent],
        "batch": [size, *images.shape[1:]],
        "device": _device_name(images.device),
        "processor": torch.backends.cpu.get_cpu_capability(),
        "torch": torch.__version__,
    }
    key = hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:16]
    file = cache_folder() / "speed" / f"{key}.json"
    try:
        channels_last, bf16 = json.loads(file.read_text())["fastest"]
        return Speed(bool(channels_last), bool(bf16))
    except (OSError, ValueError, TypeError, KeyError):
        pass  # never tried here, or damaged: try again
    seconds = _probe(model, images[:size], targets[:size], config)
    fastest = min(seconds, key=seconds.get)
    tried = [{**speed._asdict(), "seconds_per_step": round(s, 4)} for speed, s in seconds.items()]
    content = json.dumps({**facts, "tried": tried, "fastest": fastest}, indent=1).encode()
    try:
        write_whole(file, lambda opened: opened.write(content))
    except GgoLabError as error:
        warnings.warn(
            f"The speed settings found cannot be remembered, so another run may take others and its numbers differ a "
            f'little; TrainConfig(speed="plain") never does. {error}',
            stacklevel=3,
        )
    return fastest


def _probe(model: Backbone, images: Tensor, targets: Tensor, config: TrainConfig) -> dict[Speed, float]:
    """Time training steps with each setting, each on a copy of the model: seconds per step."""
    seconds = {}
    for speed in (Speed(True, False), Speed(True, True), Speed(False, True), PLAIN):
        trial = deepcopy(model).to(memory_format=_memory_format(speed))
        optimizer, least = _optimizer(trial, config), min(seconds.values(), default=math.inf)
        taken = []
        with _reproducible(config.seed, images.device):
            for _ in range(_PROBE_STEPS):
                start = time.perf_counter()
                train_epoch(trial, [(images, targets)], optimizer, speed)  # it fetches the loss, so the GPU is done
                taken.append(time.perf_counter() - start)
                # Where a processor must imitate bf16 a step may take ten times as long: no need to see it again.
                if taken[-1] > least * (3 if len(taken) == 1 else 1.3):
                    break
        seconds[speed] = min(taken[1:] or taken)
    return seconds


# ---- model files ----------------------------------------------------------------------------------------------

_FILE_FORMAT = 1


def save_model(model: Backbone, path: str | Path, history: History | None = None) -> Path:
    """Store a fitted model in one safetensors file, with all that is needed to use it again.

    The file's metadata hold the backbone, extent, recipe, grade names and library versions, and the run's settings
    and curves where a history is given. It is written whole or not at all.

    Raises:
        ModelError: the model has not been fitted, so nothing says which images it takes.
    """
    path = Path(path)
    if model.recipe is None:
        raise ModelError(f"{model.name} has not been fitted: call fit first, so that its file can name its recipe.")
    state = {name: tensor.cpu().contiguous() for name, tensor in model.state_dict().items()}
    facts = {
        "format": _FILE_FORMAT,
        "backbone": model.name,
        "extent": model.extent,
        "weights": model.weights,
        "recipe": model.recipe.to_dict(),
        "grades": GRADE_NAMES,
        "versions": {name: version(name) for name in ("torch", "torchvision", "numpy")},
        "crc32": _checksum(state),
    }
    if history is not None:
        facts["config"] = asdict(history.config)
        facts["history"] = {
            "best_epoch": history.best_epoch,
            "ended": history.ended,
            "table": history.table.to_dict("list"),
        }
    content = save(state, {"ggo_lab": json.dumps(facts)})
    write_whole(path, lambda file: file.write(content))
    return path


def load_model(path: str | Path) -> Backbone:
    """Load a model that save_model stored, in evaluation mode, with its recipe. No code runs from the file.

    Raises:
        ModelError: no such file, damaged, or not written by save_model.
    """
    path = Path(path)
    if not path.is_file():
        raise ModelError(
            f"{path}: no such model file; `ggo-lab train --out {path.name}` or save_model makes one.", path
        )
    try:
        with safe_open(path, "pt") as file:
            facts = json.loads((file.metadata() or {})["ggo_lab"])
            state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
        if facts["format"] != _FILE_FORMAT:
            raise ModelError(f"{path}: stored by a newer ggo_lab (format {facts['format']}); update the package.", path)
        if facts["crc32"] != _checksum(state):
            raise ValueError("its weights are not those that were stored")
        model = backbone_from_state(facts["backbone"], facts["extent"], facts["weights"], state)
        model.recipe = Recipe.from_dict(facts["recipe"])
    except (SafetensorError, KeyError, TypeError, ValueError, RuntimeError, OSError) as error:
        reason = str(error).strip().splitlines()[0][:200] if str(error).strip() else type(error).__name__
        raise ModelError(
            f"{path}: not a model stored by ggo_lab, or damaged ({reason}); make it anew with save_model.", path
        ) from error
    return model.eval()


def _checksum(state: dict[str, Tensor]) -> int:
    """CRC-32 of all weights: safetensors itself does not notice a flipped bit."""
    total = 0
    for name in sorted(state):
        total = zlib.crc32(state[name].numpy().tobytes(), zlib.crc32(name.encode(), total))
    return total
