"""Checkpoints: all that a killed run needs to go on as if nothing had happened."""

import dataclasses
import hashlib
import io
import math
import zlib
from pathlib import Path

import torch
from torch import Tensor, nn

from ggo_lab.backbones import Backbone
from ggo_lab.errors import ModelError
from ggo_lab.images import ImageSet
from ggo_lab.storage import check_output, write_whole, writing_to
from ggo_lab.training.batches import Memory
from ggo_lab.training.config import Speed, TrainConfig
from ggo_lab.training.history import COLUMNS, Progress
from ggo_lab.training.ranks import gathered, rank_and_size

# How the file begins; then come the SHA-256 of all the rest, in hexadecimal, and a new line. torch.load itself does not
# notice a flipped bit.
_BEGINS = b"ggo_lab checkpoint 2 "
_DIGEST = 64  # characters


def changing_state(model: nn.Module, config: TrainConfig) -> dict[str, Tensor]:
    """Return the part of a model's state that a run changes; the rest is frozen and need not be copied.

    Returns:
        Entries of state_dict(): parameters that learn, and the buffers beside them. They are the model's own tensors,
        and go on changing.
    """
    if config.unfreeze_at:
        return model.state_dict()
    frozen = {f"{name}." for name, module in model.named_modules() if _is_frozen(module)}
    return {name: tensor for name, tensor in model.state_dict().items() if f"{name.rpartition('.')[0]}." not in frozen}


def put_back(own: dict[str, Tensor], stored: dict[str, Tensor]) -> None:
    """Copy stored tensors into a model's own, of the same names; see changing_state."""
    with torch.no_grad():
        for name, tensor in own.items():
            tensor.copy_(stored[name])


def _is_frozen(module: nn.Module) -> bool:
    own = list(module.parameters(recurse=False))
    return bool(own) and not any(p.requires_grad for p in own)


class Checkpoint:
    """The file of one run, written whole at the end of each epoch.

    A run that is killed, at any step and by any means, goes on from the end of its last whole epoch, and the same
    device then gives the same numbers to the last bit: the file also holds the optimizer's averages and the state of
    every random generator.
    """

    def __init__(
        self,
        path: str | Path | None,
        model: Backbone,
        train: ImageSet,
        validation: ImageSet,
        config: TrainConfig,
    ):
        """Name the file, and what its run began with.

        Args:
            path: the file; ~ is the home folder. None: nothing is stored.
            model: as it is before training.
            train: the train split.
            validation: the validation split.
            config: the settings.
        """
        self._config = config
        self._content: dict | None = None
        self._digest: str | None = None  # of the file as this run last read or wrote it
        self.path = None if path is None else check_output(path, None)  # before the work, not after it
        if self.path is None:
            return
        self._facts = {
            "backbone": model.name,
            "extent": model.extent,
            "config": repr(dataclasses.replace(config, max_epochs=1)),  # a run may be given more epochs
            "train split": fingerprint(train),
            "validation split": fingerprint(validation),
            "number of processes": rank_and_size()[1],
            "frozen weights": _frozen_checksum(model, config),
        }
        if self.path.exists():
            self._content = self._read(self.path)

    @property
    def speed(self) -> Speed | None:
        """The speed settings with which the run began; None where it has not begun."""
        return Speed(*self._content["speed"]) if self._content else None

    def resume(
        self, model: Backbone, optimizer: torch.optim.Optimizer, draws: torch.Generator, memory: Memory
    ) -> Progress:
        """Put everything back as it was at the end of the last epoch; nothing where the run has not begun.

        Raises:
            ModelError: what the file holds does not fit the model or the optimizer.
        """
        if (content := self._content) is None or self.path is None:
            return Progress()
        for epoch in self._config.unfreeze_at:
            if epoch <= len(content["progress"]["rows"]):
                optimizer.add_param_group({"params": model.unfreeze()})
        own, device = changing_state(model, self._config), next(model.parameters()).device
        try:
            _check_progress(content["progress"])
            for state in (content["changing"], content["progress"]["best_state"]):
                _check_state(own, state)
            _check_optimizer(optimizer, content["optimizer"])
            at_once = content["images_at_once"]
            if at_once is not None and (type(at_once) is not int or at_once < 2):
                raise ValueError(f"images at once: {at_once!r}")
            on_cpu, on_cuda = content["random"][rank_and_size()[0]]
            optimizer.load_state_dict(content["optimizer"])
            draws.set_state(content["draws"])
            torch.set_rng_state(on_cpu)
            if device.type == "cuda" and on_cuda is not None:
                torch.cuda.set_rng_state(on_cuda, device)
        except Exception as error:  # whatever torch and Python raise for parts that are absent or of another kind
            raise _damaged(self.path, error) from error
        put_back(own, content["changing"])
        memory.images_at_once = at_once
        best_state = {name: tensor.to(device) for name, tensor in content["progress"]["best_state"].items()}
        return Progress(**{**content["progress"], "rows": list(content["progress"]["rows"]), "best_state": best_state})

    def store(
        self,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        draws: torch.Generator,
        memory: Memory,
        progress: Progress,
        speed: Speed,
    ) -> None:
        """Write the state at the end of an epoch; of several ranks, all must call, and the first one writes.

        Raises:
            ModelError: another training has written to the file meanwhile.
            GgoLabError: the file cannot be written, such as for a full disk.
        """
        if self.path is None:
            return
        device = next(model.parameters()).device
        on_cuda = torch.cuda.get_rng_state(device) if device.type == "cuda" else None
        random = gathered((torch.get_rng_state(), on_cuda))
        if rank_and_size()[0] == 0:
            content = {
                "facts": self._facts,
                "speed": tuple(speed),
                "changing": changing_state(model, self._config),
                "optimizer": optimizer.state_dict(),
                "draws": draws.get_state(),
                "images_at_once": memory.images_at_once,
                "random": random,
                "progress": vars(progress),
            }
            self._write(self.path, content)
        # None goes on before the file is there: a rank that read it too early would resume at another epoch than the
        # others, and wait for them in vain.
        gathered(None)

    def _write(self, path: Path, content: dict) -> None:
        if path.exists() and _digest_of(path) != self._digest:
            raise ModelError(
                f"{path}: another training has written its checkpoint here while this one was running; this one "
                "stops, and the file is left as it is. Give each training a path of its own.",
                path,
            )
        stored = io.BytesIO()
        torch.save(content, stored)
        digest = hashlib.sha256(stored.getbuffer()).hexdigest()
        write_whole(path, lambda file: file.writelines([_BEGINS, digest.encode(), b"\n", stored.getbuffer()]))
        self._digest = digest

    def _read(self, path: Path) -> dict:
        try:
            with path.open("rb") as file:
                begins, digest, end = file.read(len(_BEGINS)), file.read(_DIGEST), file.read(1)
                stored = file.read() if (begins, end) == (_BEGINS, b"\n") else b""
            if hashlib.sha256(stored).hexdigest().encode() != digest:
                raise ValueError("its content is not what was stored")
            content = torch.load(io.BytesIO(stored), map_location="cpu", weights_only=True)
            found = content["facts"]
            if other := [name for name, value in self._facts.items() if found[name] != value]:
                raise ModelError(
                    f"{path}: the checkpoint of another run, with another {' and '.join(other)}. Give each run a "
                    "path of its own, or delete the file to begin anew.",
                    path,
                )
            Speed(*content["speed"]), len(content["progress"]["rows"])
        except ModelError:
            raise
        except Exception as error:  # torch raises half a dozen types for a damaged file
            raise _damaged(path, error) from error
        self._digest = digest.decode()
        return content


def _damaged(path: Path, error: Exception) -> ModelError:
    reason = str(error).strip().splitlines()[0][:200] if isinstance(error, ValueError) else type(error).__name__
    return ModelError(
        f"{path}: not a checkpoint of ggo_lab, or damaged ({reason}). Delete it to begin anew, or give another path.",
        path,
    )


def _digest_of(path: Path) -> str:
    """Return the checksum that a file claims for its content."""
    with writing_to(path), path.open("rb") as file:
        return file.read(len(_BEGINS) + _DIGEST)[len(_BEGINS) :].decode(errors="replace")


def _check_state(own: dict[str, Tensor], stored: dict[str, Tensor]) -> None:
    """Raise ValueError unless both have the same names, shapes and kinds of number."""
    if own.keys() != stored.keys():
        raise ValueError(f"other weights: {sorted(own.keys() ^ stored.keys())[0]}")
    for name, tensor in own.items():
        if (stored[name].shape, stored[name].dtype) != (tensor.shape, tensor.dtype):
            raise ValueError(f"other shape or kind of {name}")
        if stored[name].is_floating_point() and not stored[name].isfinite().all():
            raise ValueError(f"{name} holds values that are no numbers")


def _check_optimizer(optimizer: torch.optim.Optimizer, stored: dict) -> None:
    """Raise ValueError unless every parameter's averages are there, in its shape."""
    groups, stored_groups = optimizer.param_groups, stored["param_groups"]
    if [len(group["params"]) for group in groups] != [len(group["params"]) for group in stored_groups]:
        raise ValueError("an optimizer of other parameters")
    for group, other in zip(groups, stored_groups, strict=True):
        if any(other[name] != value for name, value in group.items() if name != "params"):
            raise ValueError("an optimizer with other settings")
    numbers = [number for group in stored_groups for number in group["params"]]
    learning = [parameter for group in groups for parameter in group["params"]]
    kept = {"Adam": {"step", "exp_avg", "exp_avg_sq"}, "AdamW": {"step", "exp_avg", "exp_avg_sq"}}.get(
        type(optimizer).__name__, {"momentum_buffer"}
    )
    for number, parameter in zip(numbers, learning, strict=True):
        if number not in stored["state"]:  # it has had no gradient yet
            continue
        averages = stored["state"][number]
        if averages.keys() != kept:
            raise ValueError("other averages of the optimizer")
        for name, value in averages.items():
            if value is not None and value.shape != (() if name == "step" else parameter.shape):
                raise ValueError(f"other shape of the optimizer's {name}")


def _check_progress(stored: dict) -> None:
    """Raise ValueError unless it is the progress of a run."""
    Progress(**stored)
    rows = stored["rows"]
    if [row[0] for row in rows] != list(range(1, len(rows) + 1)) or not 1 <= stored["best_epoch"] <= len(rows):
        raise ValueError("epochs are missing")
    if not all(len(row) == len(COLUMNS) and all(math.isfinite(value) for value in row) for row in rows):
        raise ValueError("the curves hold values that are no numbers")
    accuracy, minus_loss = stored["best"]
    best = rows[stored["best_epoch"] - 1]
    if (best[4], -best[3]) != (accuracy, minus_loss) or not 0 <= stored["waited"] <= len(rows):
        raise ValueError("the best epoch is another")
    float(stored["least_loss"])


def fingerprint(images: ImageSet) -> str:
    """Return a text that changes with the images and their labels."""
    checksum = zlib.crc32(images.labels.tobytes())
    for image in images.pixels:
        checksum = zlib.crc32(image.tobytes(), checksum)
    return f"{len(images)} images by {images.recipe}, {checksum:08x}"


def _frozen_checksum(model: nn.Module, config: TrainConfig) -> str:
    changing, checksum = changing_state(model, config), 0
    for name, tensor in model.state_dict().items():
        if name not in changing:
            checksum = zlib.crc32(tensor.detach().cpu().contiguous().numpy().tobytes(), checksum)
    return f"{checksum:08x}"
