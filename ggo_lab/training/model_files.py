"""Model files: a fitted network and all that is needed to use it again, in one safetensors file."""

import json
import os
import zlib
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from ggo_lab.backbones import EXTENTS, Backbone, BackboneSpec, backbone_from_state, backbone_of
from ggo_lab.backbones.layers import load_tensors
from ggo_lab.backbones.network import OWN, SequenceBackbone
from ggo_lab.backbones.ordinal import READINGS
from ggo_lab.errors import GgoLabError, ModelError
from ggo_lab.images import Recipe
from ggo_lab.settled import settled
from ggo_lab.storage import MODEL_FILE, check_output, home_filled_in, write_whole
from ggo_lab.tasks import Task
from ggo_lab.training.history import History

_FILE_FORMAT = 2
_MOST_PIXELS = 4096  # rows of an image, or slices


@settled()
def save_model(model: nn.Module, path: str | Path, history: History | None = None) -> Path:
    """Store a fitted model in one safetensors file, with all that is needed to use it again.

    The file's metadata hold the backbone, extent, task, recipe and library versions, and the run's settings and curves
    where a history is given. It is written whole or not at all.

    Args:
        model: fitted; what torch.compile or DataParallel has wrapped is stored without the wrapper.
        path: the file; ~ is the home folder.
        history: of its training.

    Returns:
        The path.

    Raises:
        ModelError: the model has not been fitted, so nothing says which images it takes; or load_model could not
            rebuild it, such as where its layers were changed.
        ChoiceError: the name ends otherwise than in .safetensors, or a file of another kind stands there.
        GgoLabError: it cannot be written; what was there before is still whole.
    """
    model, path = backbone_of(model), check_output(path, MODEL_FILE)
    if strange := [name for name, value in model.state_dict().items() if not isinstance(value, Tensor)]:
        raise ModelError(
            f"{model.name} holds parts that are no plain weights, such as {strange[0]}, as in a quantised network; "
            "nothing was stored. Store it before it is converted.",
            strange,
        )
    # Copies, for safetensors stores nothing that two layers share.
    state = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in model.state_dict().items()}
    facts = {
        "format": _FILE_FORMAT,
        "backbone": model.name,
        "extent": model.extent,
        "slices": model.spec.slices,
        "sequence": isinstance(model, SequenceBackbone),
        "reading": model.reading,
        "weights": model.weights,
        "recipe": model.fitted_recipe.to_dict(),
        "task": model.task.to_dict(),
        "spec": model.spec.to_dict(),
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
    _check_can_be_rebuilt(model, facts, state)
    content = save(state, {"ggo_lab": json.dumps(facts)})
    write_whole(path, lambda file: file.write(content), MODEL_FILE)
    return path


@settled()
def load_model(path: str | Path, network: nn.Module | None = None) -> Backbone:
    """Load a model that save_model stored, in evaluation mode, with its recipe and task. No code runs from the file.

    Args:
        path: the file; ~ is the home folder.
        network: of a model that Backbone.around made: a module of the same class, for a file holds no code. Its
            weights are replaced.

    Raises:
        ModelError: no such file, damaged, or not written by save_model.
    """
    path = home_filled_in(path)
    if not os.path.isfile(path):  # pathlib's own raises where a name is longer than the system allows
        raise ModelError(
            f"{path}: no such model file; `ggo-lab train --out {path.name}` or save_model makes one.", path
        )
    try:
        with safe_open(path, "pt") as file:
            facts = json.loads((file.metadata() or {})["ggo_lab"])
            state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
        if facts["format"] != _FILE_FORMAT:
            raise ModelError(
                f"{path}: stored by another version of ggo_lab (format {facts['format']}); "
                "train it again, or use that version.",
                path,
            )
        if facts["crc32"] != _checksum(state):
            raise ValueError("its weights are not those that were stored")
        if facts["backbone"].startswith(OWN) and network is None:
            raise ModelError(
                f"{path}: holds a network of your own, of which a file keeps no code; give a module of the same class: "
                "load_model(path, network=...).",
                path,
            )
        model = _rebuilt(facts, state, network)
        model.recipe = Recipe.from_dict(facts["recipe"])
        if max(model.recipe.size, model.recipe.slices) > _MOST_PIXELS:
            raise ValueError(f"{model.recipe} asks for images that nobody could have trained with")
        if not isinstance(model, SequenceBackbone):
            model.check_shape((1, model.recipe.slices, model.recipe.size, model.recipe.size))
    except ModelError as error:
        if error.subject == path:
            raise
        raise _damaged(path, error) from error
    except (
        SafetensorError,
        GgoLabError,
        KeyError,
        TypeError,
        ValueError,
        AttributeError,
        RuntimeError,
        OSError,
    ) as error:
        raise _damaged(path, error) from error
    return model.eval()


def _damaged(path: Path, error: Exception) -> ModelError:
    reason = str(error).strip().splitlines()[0][:200] if str(error).strip() else type(error).__name__
    return ModelError(
        f"{path}: not a model stored by ggo_lab, or damaged ({reason}); make it anew with save_model.", path
    )


def _rebuilt(facts: dict[str, Any], state: dict[str, Tensor], network: nn.Module | None = None) -> Backbone:
    """Build the model that a file describes; its tensors become the model's own.

    Raises:
        RuntimeError, ValueError, TypeError: facts that do not fit each other, or the state.
    """
    name, extent, weights = (_text(facts[key]) for key in ("backbone", "extent", "weights"))
    sequence, reading = _flag(facts["sequence"]), _text(facts["reading"])
    task, spec = Task.from_dict(facts["task"]), BackboneSpec.from_dict(facts["spec"])
    if facts["slices"] != spec.slices or extent not in EXTENTS or reading not in READINGS:
        raise ValueError(f"{facts['slices']} slices, extent {extent}, reading {reading}")
    if not name.startswith(OWN):
        return backbone_from_state(
            name, extent, weights, state, task=task, slices=spec.slices, sequence=sequence, reading=reading
        )
    assert network is not None
    model = Backbone.around(
        network, spec.head, cam=spec.cam, last_block=spec.last_block, extent=extent, task=task, size=spec.size,
        least_size=spec.least_size, step=spec.step, layout=spec.layout, mean=spec.mean, sd=spec.sd, weights=weights,
        name=name.removeprefix(OWN).strip(),
    )  # fmt: skip
    model.reading = reading
    load_tensors(model, state, assign=True)
    return model


def _check_can_be_rebuilt(model: Backbone, facts: dict[str, Any], state: dict[str, Tensor]) -> None:
    """Refuse to store what load_model could not load.

    Raises:
        ModelError: weights that are no numbers, or layers that build_backbone would not make.
    """
    if damaged := [name for name, value in state.items() if value.is_floating_point() and not value.isfinite().all()]:
        raise ModelError(
            f"{model.name} holds weights that are no numbers, such as in {damaged[0]}; nothing was stored.", damaged
        )
    if model.name.startswith(OWN):
        return
    try:
        again = _rebuilt(facts, {name: torch.empty_like(value, device="meta") for name, value in state.items()})
        if str(again.network) != str(model.network) or again.spec != model.spec:
            raise ValueError("its layers were changed")
        if _hooks(again) != _hooks(model):
            raise ValueError("hooks were added to its layers, which no file keeps: remove them")
    except (GgoLabError, RuntimeError, ValueError, TypeError, KeyError, AttributeError) as error:
        reason = " ".join(line.strip() for line in str(error).splitlines()[:2])[:200]
        raise ModelError(
            f"This is not {model.name} as build_backbone makes it ({reason}), so load_model could not load it, and "
            "nothing was stored. Put a network of your own into Backbone.around(network, head=...).",
            model.name,
        ) from error


def _hooks(model: nn.Module) -> dict[str, int]:
    """Count the hooks of each layer, which may change what it gives."""
    return {
        place: n
        for place, part in model.named_modules()
        if (n := len(part._forward_hooks) + len(part._forward_pre_hooks))
    }


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{value!r} is no text")
    return value


def _flag(value: object) -> bool:
    if not isinstance(value, bool):
        raise TypeError(f"{value!r} is neither true nor false")
    return value


def _checksum(state: dict[str, Tensor]) -> int:
    """Return the CRC-32 of all weights: safetensors itself does not notice a flipped bit."""
    total = 0
    for name in sorted(state):
        stored = state[name].reshape(-1).view(torch.uint8)  # numpy has no bfloat16
        total = zlib.crc32(stored.numpy().tobytes(), zlib.crc32(name.encode(), total))
    return total
