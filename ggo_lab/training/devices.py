"""Where the numbers live, and the one place where global generators are seeded, for a while."""

import ctypes
import platform
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor

from ggo_lab.errors import ChoiceError
from ggo_lab.images import ImageSet

# Of glibc's malloc.h: what mallopt can set, and where glibc itself arrives once a large block has been freed.
_TRIM_THRESHOLD, _MMAP_THRESHOLD, _MMAP_MAX = -1, -3, -4
_GLIBC_ARRIVES_AT = ((_MMAP_THRESHOLD, 32 * 1024**2), (_TRIM_THRESHOLD, 64 * 1024**2), (_MMAP_MAX, 65536))
_SHARE_OF_FREE = 0.5  # of a GPU's free memory that a split may fill; the rest is for the network and its activations


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


def place(images: ImageSet, device: torch.device) -> tuple[Tensor, Tensor]:
    """Put a split where its batches are taken from: the device itself, or, where that is too small, the file on disk.

    A whole cohort is small: 600 scans at 224 x 224 are 90 MB, and moved to a GPU once. On the CPU nothing is copied:
    the operating system reads the pages of the memory map as they are needed, and forgets them where memory is short.

    Returns: pixels uint8 (N, C, H, W), on the device or still in the memory map, and targets int64 (N,) on the device.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The given NumPy array is not writable")  # nothing here writes
        pixels = torch.from_numpy(np.ascontiguousarray(images.pixels))
    if device.type != "cuda" or pixels.nbytes <= _SHARE_OF_FREE * torch.cuda.mem_get_info(device)[0]:
        pixels = pixels.to(device)
    return pixels, torch.from_numpy(images.indices).to(device)


def bring(batch: Tensor, device: torch.device) -> Tensor:
    """Bring a batch to the device, if it is not there yet.

    To a GPU it goes through pinned memory, which the GPU reads by itself: the program goes on to gather the next batch
    while this one travels and is learnt from.
    """
    if batch.device == device or device.type != "cuda":
        return batch.to(device)
    return batch.pin_memory().to(device, non_blocking=True)


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


@contextmanager
def freed_memory_kept() -> Iterator[None]:
    """Inside the block only: let the process keep the memory that it frees, for the next step needs as much again.

    glibc, the C library of most Linux systems, gives large blocks back to the operating system at once, and asks for
    others in the next layer, page by page, each wiped anew: a tenth of a step of ResNet-18 on two cores, and a third
    of one of DenseNet-121. Nothing is done where malloc is another's.
    """
    if platform.libc_ver()[0] != "glibc":
        yield
        return
    libc = ctypes.CDLL(None)
    libc.mallopt(_MMAP_MAX, 0)
    libc.mallopt(_TRIM_THRESHOLD, -1)  # never
    try:
        yield
    finally:
        for setting, value in _GLIBC_ARRIVES_AT:
            libc.mallopt(setting, value)
        libc.malloc_trim(0)
