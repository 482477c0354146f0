"""What a timing means nothing without."""

import os
import platform
from importlib.metadata import version


def facts() -> str:
    """Describe the machine in one line."""
    import torch  # here, for processes that only import this need not wait for it

    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    gpu = f", {torch.cuda.get_device_name()}" if torch.cuda.is_available() else ""
    return (
        f"{platform.system()} {platform.machine()}, {cores} cores ({torch.backends.cpu.get_cpu_capability()}), "
        f"{torch.get_num_threads()} threads, torch {version('torch')}, torchvision {version('torchvision')}{gpu}"
    )
