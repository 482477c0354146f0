"""Pretrained weights: a file, torchvision's cache, the network, or a warning that nobody can miss."""

import hashlib
import pickle
import queue
import socket
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPException
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import urlopen

import torch
from torch import Tensor, nn
from torchvision.models import get_model_weights

from ggo_lab.errors import ChoiceError, ModelError

_ANSWER_WITHIN_S = 8  # a server that stays silent for so long counts as out of reach: a lesson cannot wait


class RandomWeightsWarning(UserWarning):
    """Pretrained weights were asked for and are not there, or random layers were frozen."""


# Python shows a repeated warning once, so a cell run again would hide it; this one must be seen every time. Filters
# that the user has set come first.
warnings.simplefilter("always", RandomWeightsWarning, append=True)


def load_weights(network: nn.Module, name: str, weights: str | Path) -> str:
    """Load pretrained weights into the network as torchvision makes it; say what was loaded."""
    if weights == "none":
        return "random"
    if not isinstance(weights, (str, Path)):  # torchvision's own way is None
        raise ChoiceError(f"weights={weights!r} is not known; give 'imagenet', 'none' (random) or a file.", weights)
    file = _imagenet_file(name) if weights == "imagenet" else Path(weights)
    if file is None:
        return "random"
    try:
        network.load_state_dict(_without_old_names(torch.load(file, map_location="cpu", weights_only=True)))
    except FileNotFoundError:
        raise ModelError(
            f"{file}: no such file of weights; give 'imagenet', 'none' or an existing file.", file
        ) from None
    except Exception as error:  # torch raises half a dozen types for a damaged file
        # What torch says of a file with code in it is how to run that code: not what to tell a learner.
        reason = "not a plain state dict" if isinstance(error, pickle.UnpicklingError) else _brief(error)
        raise ModelError(
            f"{file}: not the weights of {name}, or damaged ({reason}). Give a file with torchvision's own state dict "
            "of this network, saved by torch.save; what save_model stored is opened by load_model.",
            file,
        ) from error
    return str(weights)


def _without_old_names(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """DenseNet's files of 2017 say norm.1 where torchvision now says norm1."""
    return {key.replace("norm.", "norm").replace("conv.", "conv") if "denselayer" in key else key: value
            for key, value in state.items()}  # fmt: skip


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
        file.parent.mkdir(parents=True, exist_ok=True)
        _wait_for_answer(url)
        with _patience(_ANSWER_WITHIN_S):
            # Writes to a temporary name, checks the hash, then renames: a broken download leaves nothing behind.
            torch.hub.download_url_to_file(url, str(file), hash_prefix=promised)
    except (OSError, HTTPException, RuntimeError) as error:
        warnings.warn(
            f"\n\n  *** RANDOM WEIGHTS ***  No ImageNet weights for {name}: they are not in the cache, and fetching "
            f"them failed\n  ({_brief(error)}).\n  The network starts from random weights: it learns more slowly, "
            "ends lower, and says nothing about fine-tuning.\n  To mend it, fetch the file where there is a network:\n"
            f"    {url}\n  and put it into\n    {file.parent}\n",
            RandomWeightsWarning,
            stacklevel=4,
        )
        return None
    return file


def _wait_for_answer(url: str) -> None:
    """Raise OSError unless the server answers in time.

    urlopen's own timeout is not enough: it holds for each of a server's addresses, of which there may be a dozen,
    and does not hold for looking up its name. A thread bounds all of it.
    """
    answers: queue.SimpleQueue[Exception | None] = queue.SimpleQueue()

    def ask() -> None:
        try:
            urlopen(url, timeout=_ANSWER_WITHIN_S).close()
            answers.put(None)
        except Exception as error:
            if isinstance(error, HTTPError):  # it holds the connection open
                error.close()
            answers.put(error)

    threading.Thread(target=ask, daemon=True).start()
    try:
        error = answers.get(timeout=_ANSWER_WITHIN_S)
    except queue.Empty:
        raise TimeoutError(f"no answer within {_ANSWER_WITHIN_S} s") from None
    if error is not None:
        raise error


@contextmanager
def _patience(seconds: float) -> Iterator[None]:
    """Limit how long new connections may be silent: torch.hub sets no limit of its own."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(seconds)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)


def _brief(error: Exception) -> str:
    """The first two lines of an error as one; torch puts only a headline on the first."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return " ".join(lines[:2])[:200] or type(error).__name__
