"""The device that computes, and a block whose results depend on its seed alone."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from ggo_lab.errors import ChoiceError
from ggo_lab.settled import settled
from ggo_lab.training.ranks import rank_and_size


def choose_device(choice: str) -> torch.device:
    """Return the device that TrainConfig names.

    Raises:
        ChoiceError: it is not there.
    """
    if choice == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        return torch.empty(0, device=choice).device
    except (RuntimeError, AssertionError, NotImplementedError):  # AssertionError: a torch without CUDA
        available = ["cpu", *(f"cuda:{number}" for number in range(torch.cuda.device_count()))]
        if torch.backends.mps.is_available():
            available.append("mps")
        raise ChoiceError(
            f'device={choice!r} cannot be used here; this machine has {", ".join(available)}, and "auto" takes '
            "CUDA where there is a GPU for it, else the CPU.",
            choice,
        ) from None


def device_name(device: torch.device) -> str:
    """Return the name of a device, for people."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    threads = torch.get_num_threads()
    return f"{device.type}, {threads} thread" + "s" * (threads != 1)


@contextmanager
def reproducible(seed: int, device: torch.device) -> Iterator[None]:
    """Let what is inside the block depend on the seed alone, not on what the caller has set for the whole of torch.

    The global generators, from which dropout draws, are seeded, with another number in each rank; cuDNN does not vary;
    gradients are on; arithmetic is 32-bit unless the block itself asks for less, but for convolutions on a GPU, which
    torch lets cuDNN round as it does by default.
    """
    cudnn = torch.backends.cudnn
    before = cudnn.deterministic, cudnn.benchmark
    with (
        torch.random.fork_rng(devices=[device] if device.type == "cuda" else []),
        settled(),
        torch.enable_grad(),
    ):
        torch.manual_seed(seed + rank_and_size()[0])
        cudnn.deterministic, cudnn.benchmark = True, False
        try:
            yield
        finally:
            cudnn.deterministic, cudnn.benchmark = before
