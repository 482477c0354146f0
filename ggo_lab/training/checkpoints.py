"""Checkpoints: all that a killed run needs to go on as if nothing had happened."""

import dataclasses
import math
import zlib
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor, nn

from ggo_lab.backbones import Backbone
from ggo_lab.errors import ModelError
from ggo_lab.images import ImageSet
from ggo_lab.storage import write_whole
from ggo_lab.training.config import Speed, TrainConfig
from ggo_lab.training.memory import Memory
from ggo_lab.training.ranks import gathered, rank_and_size

_FORMAT = 1


@dataclass
class Progress:
    """What `fit` remembers from epoch to epoch, besides the model."""

    rows: list[tuple] = field(default_factory=list)  # of the history's table
    best: tuple[float, float] = (-math.inf, -math.inf)  # validation accuracy, minus the loss
    best_epoch: int = 0
    best_state: dict[str, Tensor] = field(default_factory=dict)
    least_loss: float = math.inf
    epochs_without_better: int = 0


def changing_state(model: nn.Module, config: TrainConfig) -> dict[str, Tensor]:
    """Give the part of a model's state that a run changes; the rest is frozen and need not be copied.

    Returns: entries of state_dict(): parameters that learn, and the buffers beside them. They are the model's own
        tensors, and go on changing.
    """
    if config.unfreeze_at:
        return model.state_dict()
    frozen = {f"{name}." for name, module in model.named_modules() if _is_frozen(module)}
    return {name: tensor for name, tensor in model.state_dict().items() if f"{name.rpartition('.')[0]}." not in frozen}


def _is_frozen(module: nn.Module) -> bool:
    own = list(module.parameters(recurse=False))
    return bool(own) and not any(p.requires_grad for p in own)


class Checkpoint:
    """The file of one run, written whole at the end of each epoch.

    A run that is killed, at any step and by any means, goes on from the end of its last whole epoch, and the same
    device then gives the same numbers to the last bit: the file also holds the optimizer's averages and the state of
    every random generator.
    """

    def __init__(self, path: str | Path, model: Backbone, train: ImageSet, validation: ImageSet, config: TrainConfig):
        """Name the file, and what its run began with.

        Args:
            model: as it is before training.
        """
        self.path, self._config = Path(path), config
        # More epochs than were planned are no other run.
        self._facts = {
            "backbone": model.name,
            "extent": model.extent,
            "config": repr(dataclasses.replace(config, max_epochs=1)),
            "train split": fingerprint(train),
            "validation split": fingerprint(validation),
            "number of processes": rank_and_size()[1],
            "frozen weights": _frozen_checksum(model, config),
        }
        self._content = self._read() if self.path.exists() else None

    @property
    def speed(self) -> Speed | None:
        """The speed settings with which the run began; None where it has not begun."""
        return Speed(*self._content["speed"]) if self._content else None

    @property
    def epochs(self) -> int:
        """How many epochs the run has behind it."""
        return len(self._content["progress"]["rows"]) if self._content else 0

    def resume(
        self, model: nn.Module, optimizer: torch.optim.Optimizer, draws: torch.Generator, memory: Memory
    ) -> Progress:
        """Put everything back as it was at the end of the last epoch; nothing where the run has not begun."""
        if self._content is None:
            return Progress()
        content, self._content = self._content, None
        model.load_state_dict(content["changing"], strict=False)
        optimizer.load_state_dict(content["optimizer"])
        draws.set_state(content["draws"])
        memory.images_at_once = content["images_at_once"]
        device = next(model.parameters()).device
        on_cpu, on_cuda = content["random"][rank_and_size()[0]]
        torch.set_rng_state(on_cpu)
        if device.type == "cuda" and on_cuda is not None:
            torch.cuda.set_rng_state(on_cuda, device)
        best_state = {name: tensor.to(device) for name, tensor in content["progress"]["best_state"].items()}
        return Progress(**{**content["progress"], "best_state": best_state})

    def store(
        self,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        draws: torch.Generator,
        memory: Memory,
        progress: Progress,
        speed: Speed,
    ) -> None:
        """Write the state at the end of an epoch; of several ranks, all must call, and the first one writes."""
        device = next(model.parameters()).device
        on_cuda = torch.cuda.get_rng_state(device) if device.type == "cuda" else None
        random = gathered((torch.get_rng_state(), on_cuda))
        if rank_and_size()[0] == 0:
            content = {
                "format": _FORMAT,
                "facts": self._facts,
                "speed": tuple(speed),
                "changing": changing_state(model, self._config),
                "optimizer": optimizer.state_dict(),
                "draws": draws.get_state(),
                "images_at_once": memory.images_at_once,
                "random": random,
                "progress": vars(progress),
            }
            write_whole(self.path, lambda file: torch.save(content, file))
        # None goes on before the file is there: a rank that read it too early would resume at another epoch than the
        # others, and wait for them in vain.
        gathered(None)

    def _read(self) -> dict:
        try:
            content = torch.load(self.path, map_location="cpu", weights_only=True)
            if content["format"] != _FORMAT:
                raise ValueError(f"format {content['format']}")
            found = content["facts"]
        except Exception as error:  # torch raises half a dozen types for a damaged file
            raise ModelError(
                f"{self.path}: not a checkpoint of ggo_lab, or damaged ({type(error).__name__}). Delete it to begin "
                "anew, or give another path.",
                self.path,
            ) from error
        if other := [name for name, value in self._facts.items() if found.get(name) != value]:
            raise ModelError(
                f"{self.path}: the checkpoint of another run, with another {' and '.join(other)}. Give each run a "
                "path of its own, or delete the file to begin anew.",
                self.path,
            )
        return content


def fingerprint(images: ImageSet) -> str:
    """Give a text that changes with the images and their grades."""
    checksum = zlib.crc32(images.indices.tobytes())
    for image in images.pixels:
        checksum = zlib.crc32(image.tobytes(), checksum)
    return f"{len(images)} images by {images.recipe}, {checksum:08x}"


def _frozen_checksum(model: nn.Module, config: TrainConfig) -> str:
    changing, checksum = changing_state(model, config), 0
    for name, tensor in model.state_dict().items():
        if name not in changing:
            checksum = zlib.crc32(tensor.detach().cpu().contiguous().numpy().tobytes(), checksum)
    return f"{checksum:08x}"
