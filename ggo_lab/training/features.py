"""What frozen layers make of images, kept on disk: a large network is computed once, not in every run."""

import hashlib
import shutil
import tokenize
import zipfile
import zlib
from collections.abc import Callable
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from ggo_lab.backbones import Backbone
from ggo_lab.backbones.network import OWN
from ggo_lab.errors import GgoLabError
from ggo_lab.storage import cache_folder, write_whole

_MOST_BYTES = 8 * 1024**3  # of all that is kept; what was not used for longest goes first
_DAMAGED: tuple[type[Exception], ...] = (OSError, EOFError, ValueError, TypeError, KeyError, NotImplementedError)
_DAMAGED += (zipfile.BadZipFile, zlib.error, tokenize.TokenError)  # the last: numpy 2.5 reads headers as text


class FeatureStore:
    """Files of features in the cache folder, under a key of the layers with their weights, and of the images.

    Every batch has a file, written whole and with a checksum, so a run that was stopped goes on where it was, and what
    is damaged is computed again. A cache that cannot be written is done without.
    """

    def __init__(self, model: Backbone, prefix: nn.Module):
        """Look at what will compute the features.

        Args:
            model: the whole.
            prefix: its frozen layers.
        """
        hooked = any(module._forward_hooks or module._forward_pre_hooks for module in prefix.modules())
        # What the code of one's own network does, or of a hook, no key can tell.
        self._used = not hooked and not model.name.startswith(OWN)
        self._wrote = False
        self._layers = hashlib.sha256()
        for text in (
            str(prefix),
            str(getattr(prefix, "code", "")),
            str((model.name, model.spec, torch.backends.cpu.get_cpu_capability())),
            *(f"{library} {version(library)}" for library in ("torch", "torchvision")),
            str(next(model.parameters()).device.type),
        ):
            self._layers.update(text.encode())
        for name, tensor in sorted(prefix.state_dict().items()) if self._used else ():
            self._layers.update(name.encode())
            self._layers.update(tensor.detach().cpu().contiguous().numpy().tobytes())

    def folder(self, images: Tensor, made_by: str) -> Path | None:
        """Return where the features of a split are kept; None where they are not.

        Args:
            images: uint8 (N, C, H, W).
            made_by: what is done to the images, and how precisely they are computed.
        """
        if not self._used:
            return None
        key = self._layers.copy()
        key.update(f"{made_by} {tuple(images.shape)}".encode())
        for image in images:
            key.update(image.cpu().numpy().tobytes())
        return cache_folder() / "features" / key.hexdigest()[:24]

    def get(self, folder: Path | None, start: int, shape: tuple[int, ...], compute: Callable[[], Tensor]) -> Tensor:
        """Return the features of a batch, float32, from the disk or computed now.

        Args:
            folder: of the split.
            start: the number of the batch's first image.
            shape: of the features.
            compute: computes them.
        """
        if folder is None:
            return compute()
        file = folder / f"{start}.npz"
        # Opened here: numpy leaves a file open in which it finds no zip.
        with suppress(*_DAMAGED), file.open("rb") as opened, np.load(opened, allow_pickle=False) as stored:
            features = stored["features"]
            if features.shape == shape and features.dtype == np.float32:
                return torch.from_numpy(features)
        features = compute()
        try:
            write_whole(file, lambda opened: np.savez(opened, features=features.cpu().numpy()))
            self._wrote = True
        except GgoLabError:  # no space left, or not ours to write: the run needs no cache
            self._used = False
        return features

    def tidy(self) -> None:
        """Delete what was not used for longest, where all that is kept has become too much."""
        folders = cache_folder() / "features"
        if not self._wrote:
            return
        kept = []
        for folder in folders.iterdir() if folders.is_dir() else ():
            with suppress(OSError):  # what is no folder, or was just deleted
                files = [file.stat() for file in folder.iterdir()]
                kept.append(
                    (max((file.st_atime for file in files), default=0.0), sum(f.st_size for f in files), folder)
                )
        total = sum(size for _, size, _ in kept)
        for _, size, folder in sorted(kept):
            if total <= _MOST_BYTES:
                break
            shutil.rmtree(folder, ignore_errors=True)
            total -= size
