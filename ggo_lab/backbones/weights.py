"""Pretrained weights: shipped, a file, torchvision's cache, the network, or a warning that nobody can miss."""

import hashlib
import pickle
import queue
import sys
import threading
import warnings
from http.client import HTTPException, HTTPResponse
from io import BufferedWriter
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import urlopen

import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torchvision.models import get_model_weights

from ggo_lab.backbones.discover import TIMM
from ggo_lab.backbones.efficientnet import EfficientNetLite0, imagenet_state
from ggo_lab.backbones.layers import load_tensors
from ggo_lab.backbones.specs import BACKBONES
from ggo_lab.errors import ChoiceError, GgoLabError, ModelError, check_choice
from ggo_lab.storage import home_filled_in, write_whole

_ANSWER_WITHIN_S = 8  # a server that stays silent for so long counts as out of reach: a lesson cannot wait

SHIPPED = Path(__file__).parent / "weights"
PHANTOM_WEIGHTS = tuple(sorted(file.stem for file in SHIPPED.glob("*.safetensors")))  # networks that have them
SAID = {
    "phantom": "weights learnt on slices of phantoms",
    "imagenet": "weights learnt on ImageNet's photographs",
    "random": "RANDOM weights",
}


class RandomWeightsWarning(UserWarning):
    """Pretrained weights were asked for and are not there, or random layers were frozen."""


def warn_every_time(message: str, category: type[Warning]) -> None:
    """Warn at the line outside this package that led here, also where that was done before: a cell may be run again.

    Args:
        message: what to say.
        category: of the warning; filters that the user has set for it hold.
    """
    frame = sys._getframe(1)
    while frame.f_back and frame.f_globals.get("__name__", "").partition(".")[0] in ("ggo_lab", "contextlib"):
        frame = frame.f_back
    # Python remembers in a registry what it has shown; this one is empty.
    warnings.warn_explicit(message, category, frame.f_code.co_filename, frame.f_lineno, registry={})


def load_weights(network: nn.Module, name: str, weights: str | Path | None) -> str:
    """Load pretrained weights into the network as its library makes it.

    Args:
        network: changed in place.
        name: as for build_backbone.
        weights: as for build_backbone.

    Returns:
        What was loaded: "imagenet", "phantom", "random" or the path.

    Raises:
        ChoiceError: neither of these.
        ModelError: a file that is absent, damaged or of another network.
    """
    if weights is None:
        return "random"
    if not isinstance(weights, (str, Path)) or weights in ("none", "random", ""):
        raise ChoiceError(
            f"weights={weights!r} is not known; give 'best', 'imagenet', 'phantom', None (random) or a file.", weights
        )
    if weights == "best":
        weights = "phantom" if name in PHANTOM_WEIGHTS else "imagenet"
    if weights == "phantom":
        check_choice('backbone with weights="phantom"', name, PHANTOM_WEIGHTS)
        head, own = f"{BACKBONES[name].head}.", network.state_dict()
        stored = load_file(SHIPPED / f"{name}.safetensors")
        # Its last layer named the disease of slices; the new task's takes its place.
        network.load_state_dict(own | {key: value for key, value in stored.items() if not key.startswith(head)})
        return "phantom"
    if weights == "imagenet" and isinstance(network, EfficientNetLite0):
        network.load_state_dict(imagenet_state())
        return "imagenet"
    if weights == "imagenet":
        file = _timm_file(network, name) if name.startswith(TIMM) else _imagenet_file(name)
        if file is None:
            return "random"
    else:
        file = home_filled_in(weights)
    try:
        if file.suffix == ".safetensors":
            load_tensors(network, load_file(file))
        else:
            network.load_state_dict(_without_old_names(torch.load(file, map_location="cpu", weights_only=True)))
    except FileNotFoundError:
        raise ModelError(
            f"{file}: no such file of weights; give 'imagenet', None (random weights) or an existing file.", file
        ) from None
    except Exception as error:  # torch raises half a dozen types for a damaged file
        # What torch says of a file with code in it is how to run that code: not what to tell a learner.
        reason = "not a plain state dict" if isinstance(error, pickle.UnpicklingError) else _brief(error)
        raise ModelError(
            f"{file}: not the weights of {name}, or damaged ({reason}). Give a file with the library's own state dict "
            "of this network, saved by torch.save or as safetensors; what save_model stored is opened by load_model.",
            file,
        ) from error
    return "imagenet" if weights == "imagenet" else str(file)


def _without_old_names(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """DenseNet's files of 2017 say norm.1 where torchvision now says norm1; what else a state tells stays with it."""
    old = [key for key in state if "denselayer" in key]
    for key in old:
        state[key.replace("norm.", "norm").replace("conv.", "conv")] = state.pop(key)
    return state


def _imagenet_file(name: str) -> Path | None:
    """Find torchvision's weights in its cache, or fetch them; None, after a warning, where that fails.

    Raises:
        ModelError: a file in the cache that is not what its name promises.
    """
    offered = get_model_weights(name)
    # A few large networks have no first version on ImageNet alone.
    url = (offered.IMAGENET1K_V1 if hasattr(offered, "IMAGENET1K_V1") else offered.DEFAULT).url
    file = Path(torch.hub.get_dir()) / "checkpoints" / Path(url).name
    promised = file.stem.rpartition("-")[2]  # torchvision ends names in the first digits of the content's SHA-256
    if file.exists():
        with file.open("rb") as opened:
            found = hashlib.file_digest(opened, "sha256").hexdigest()
        if not found.startswith(promised):
            raise ModelError(
                f"{file}: damaged, perhaps by a download that broke off (its SHA-256 begins {found[: len(promised)]}, "
                f"not {promised}). Delete it, and it will be fetched again from {url}.",
                file,
            )
        return file
    try:
        _fetch(url, file, promised)
    except (OSError, HTTPException, GgoLabError) as error:
        _warn_of_random(name, url, file.parent, error)
        return None
    return file


def _timm_file(network: Any, name: str) -> Path | None:
    """Find timm's weights in the cache of the Hugging Face hub, or fetch them; None, after a warning, if that fails."""
    from huggingface_hub import hf_hub_download  # comes with timm
    from huggingface_hub.errors import LocalEntryNotFoundError

    where, file = network.pretrained_cfg.get("hf_hub_id") or name, "model.safetensors"
    url = f"https://huggingface.co/{where}/resolve/main/{file}"
    try:
        try:
            return Path(hf_hub_download(where, file, local_files_only=True))
        except LocalEntryNotFoundError:
            _open(url).close()
            return Path(hf_hub_download(where, file, etag_timeout=_ANSWER_WITHIN_S))
    except Exception as error:  # the hub has a dozen kinds of its own
        _warn_of_random(name, url, "the cache of huggingface_hub", error)
        return None


def _warn_of_random(name: str, url: str, place: Path | str, error: Exception) -> None:
    warn_every_time(
        f"\n\n  *** RANDOM WEIGHTS ***  No ImageNet weights for {name}: they are not in the cache, and fetching "
        f"them failed\n  ({_brief(error)}).\n  The network starts from random weights: it learns more slowly, "
        "ends lower, and says nothing about fine-tuning.\n  To mend it, fetch the file where there is a network:\n"
        f"    {url}\n  and put it into\n    {place}\n",
        RandomWeightsWarning,
    )


def _fetch(url: str, file: Path, promised: str) -> None:
    """Download a file whole, or leave nothing behind.

    Raises:
        OSError, HTTPException: the server cannot be reached, or does not answer in time.
        ModelError: the download broke off, or the content does not have the promised checksum.
    """
    checksum = hashlib.sha256()

    def write(opened: BufferedWriter) -> None:
        while block := _received(response, url):
            checksum.update(block)
            opened.write(block)
        if not checksum.hexdigest().startswith(promised):
            raise ModelError(f"{url}: what came is not the file that was promised, or only a part of it.", url)

    # Asked first: a server that is not there is no disk that is full.
    with _open(url) as response:
        write_whole(file, write)


def _open(url: str) -> HTTPResponse:
    """Open an address; raise OSError unless the server answers in time.

    urlopen's own timeout is not enough: it holds for each of a server's addresses, of which there may be a dozen, and
    does not hold for looking up its name. A thread bounds all of it.
    """
    answers: queue.SimpleQueue[HTTPResponse | Exception] = queue.SimpleQueue()

    def ask() -> None:
        try:
            answers.put(urlopen(url, timeout=_ANSWER_WITHIN_S))  # which also bounds each later silence
        except Exception as error:
            if isinstance(error, HTTPError):  # it holds the connection open
                error.close()
            answers.put(error)

    threading.Thread(target=ask, daemon=True).start()
    try:
        answer = answers.get(timeout=_ANSWER_WITHIN_S)
    except queue.Empty:
        raise TimeoutError(f"no answer within {_ANSWER_WITHIN_S} s") from None
    if isinstance(answer, Exception):
        raise answer
    return answer


def _received(response: HTTPResponse, url: str) -> bytes:
    try:
        return response.read(1 << 20)
    except (OSError, HTTPException) as error:
        raise ModelError(f"{url}: the download broke off ({_brief(error)}).", url) from error


def _brief(error: Exception) -> str:
    """The first two lines of an error as one; torch puts only a headline on the first."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return " ".join(lines[:2])[:200] or type(error).__name__
