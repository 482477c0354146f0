"""Model files: a fitted network and all that is needed to use it again, in one safetensors file."""

import json
import zlib
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from ggo_lab.backbones import Backbone, backbone_from_state
from ggo_lab.errors import ModelError
from ggo_lab.grades import GRADE_NAMES
from ggo_lab.images import Recipe
from ggo_lab.storage import write_whole
from ggo_lab.training.history import History

_FILE_FORMAT = 1


def save_model(model: Backbone, path: str | Path, history: History | None = None) -> Path:
    """Store a fitted model in one safetensors file, with all that is needed to use it again.

    The file's metadata hold the backbone, extent, recipe, grade names and library versions, and the run's settings
    and curves where a history is given. It is written whole or not at all.

    Raises:
        ModelError: the model has not been fitted, so nothing says which images it takes.
    """
    path, recipe = Path(path), model.fitted_recipe
    state = {name: tensor.cpu().contiguous() for name, tensor in model.state_dict().items()}
    facts = {
        "format": _FILE_FORMAT,
        "backbone": model.name,
        "extent": model.extent,
        "ordinal": model.ordinal,
        "weights": model.weights,
        "recipe": recipe.to_dict(),
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
        model = backbone_from_state(
            facts["backbone"], facts["extent"], facts["weights"], state, facts.get("ordinal", False)
        )
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
