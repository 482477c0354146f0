"""Where the numbers live, and the one place where global generators are seeded, for a while."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from ggo_lab.errors import ChoiceError
from ggo_lab.images import ImageSet


def choose_device(choice: str) -> torch.device:
    if choice == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        return torch.empty(0, device=choice).device
    except (RuntimeError, AssertionError) as error:  # AssertionError: a torch without CUDA
        reason = str(error).splitlines()[0]
        raise ChoiceError(f'device={choice!r} cannot be used here ({reason}); "auto" takes what is there.') from None


def device_name(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{device.type}, {torch.get_num_threads()} threads"


def on_device(images: ImageSet, device: torch.device) -> tuple[Tensor, Tensor]:
    """Move a whole split to the device once, as uint8: 600 scans at 224 x 224 are 90 MB."""
    pixels = torch.from_numpy(images.pixels.copy())
    return pixels.to(device), torch.from_numpy(images.indices).to(device)


@contextmanager
def reproducible(seed: int, device: torch.device) -> Iterator[None]:
    """Inside the block only: seed the global generators, from which dropout draws, and let cuDNN not vary."""
    before = torch.backends.cudnn.deterministic
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        torch.backends.cudnn.deterministic = True
        try:
            yield
        finally:
            torch.backends.cudnn.deterministic = before
