"""Measure the memory that training needs for 100 to 100,000 images, which lie in a file on disk (Linux only).

    python benchmarks/memory.py

A process each: 40 steps on batches drawn from all images (64 x 64). Anonymous memory is what the process itself holds;
pages of the file are the system's to forget.
"""

import re
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from loops import learn
from machine import facts

import ggo_lab as gl
from ggo_lab.training import training_batches
from ggo_lab.training.batches import place
from ggo_lab.training.config import make_optimizer


def measure(n: int) -> None:
    with tempfile.NamedTemporaryFile() as file:
        pixels = np.memmap(file.name, np.uint8, "w+", shape=(n, 3, 64, 64))
        for start in range(0, n, 1000):
            pixels[start : start + 1000] = np.random.default_rng(start).integers(0, 256, (3, 64, 64), dtype=np.uint8)
        pixels.flush()
        names = np.arange(n).astype(str)
        table = pd.DataFrame({"name": names, "patient": names, "label": np.arange(n) % 4, "split": "train"})
        images = gl.images.ImageSet(pixels, table, gl.Recipe(size=64))
        model, config = gl.build_backbone("squeezenet1_0", weights=None), gl.TrainConfig()
        stored, targets = place(images, torch.device("cpu"))
        batches = training_batches(stored, targets, config, torch.Generator().manual_seed(0))
        learn(model, (batch for batch, _ in zip(batches, range(40), strict=False)), make_optimizer(model, config))
        status = Path("/proc/self/status").read_text()
        (anonymous,) = re.findall(r"RssAnon:\s+(\d+) kB", status)
    print(f"| {n:,} | {n * 3 * 64 * 64 / 1e6:,.0f} | {int(anonymous) / 1024:.0f} |", flush=True)


if __name__ == "__main__":
    if len(sys.argv) > 1:
        measure(int(sys.argv[1]))
    else:
        print(facts(), "\n\n| images | their bytes, MB | anonymous memory, MB |\n|---|---|---|", flush=True)
        for n in (100, 10_000, 100_000):
            subprocess.run([sys.executable, __file__, str(n)], check=True)
