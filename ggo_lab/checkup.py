"""What is installed and found on this machine, in lines that one pastes into a question."""

import os
import platform
import sys
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from ggo_lab.errors import GgoLabError
from ggo_lab.storage import cache_folder, check_output

_LIBRARIES = ("torch", "torchvision", "numpy", "scipy", "pandas", "SimpleITK", "pydicom", "timm")
_NOTEBOOKS = ("jupyterlab", "notebook", "ipywidgets", "anywidget", "ipykernel")
_SETTINGS = ("OMP_NUM_THREADS", "OMP_WAIT_POLICY", "GGO_LAB_CACHE", "TORCH_HOME", "CUDA_VISIBLE_DEVICES")


def checkup() -> Iterator[str]:
    """Yield a line for each thing that a helper would ask for: versions, device, threads, cache, weights, widgets."""
    import torch

    from ggo_lab.backbones import BACKBONES, PHANTOM_WEIGHTS

    yield f"ggo_lab {version('ggo_lab')}, Python {platform.python_version()} ({sys.executable}), {platform.platform()}"
    yield f"libraries: {_versions(_LIBRARIES)}"
    yield f"notebooks: {_versions(_NOTEBOOKS)}"
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "none"
    yield f"GPU: {device}; processor cores: {os.cpu_count()}, threads of torch: {torch.get_num_threads()}"
    yield f"settings: {', '.join(f'{name}={os.environ[name]}' for name in _SETTINGS if name in os.environ) or 'none'}"
    yield f"cache: {cache_folder()}, {_state_of(cache_folder())}"
    hub = Path(torch.hub.get_dir()) / "checkpoints"
    weight_files = sorted(file.name for file in hub.glob("*.pth")) if hub.is_dir() else []
    none = "none; downloaded on first use, else networks begin from random weights, and say so"
    yield f"ImageNet weights in {hub}: {', '.join(weight_files) or none}"
    yield f"weights that come with the package: {', '.join(PHANTOM_WEIGHTS) or 'none'}; networks: {len(BACKBONES)}"


def _versions(names: tuple[str, ...]) -> str:
    return ", ".join(f"{name} {_version(name)}" for name in names)


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "missing"


def _state_of(folder: Path) -> str:
    """Say how much a folder holds and whether it can be written."""
    held = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file()) if folder.is_dir() else 0
    try:
        check_output(folder / "check", None)
    except GgoLabError as error:
        return f"{held / 1e6:.0f} MB, NOT writable: {error}"
    return f"{held / 1e6:.0f} MB, writable"
