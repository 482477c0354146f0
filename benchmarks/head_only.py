"""Time extent="head" with the frozen layers computed once, beside computing them in every epoch.

    python benchmarks/head_only.py [backbone ...]

Uses the default phantom cohort (120 scans, 72 of them to learn from) at 224 x 224. Weights do not matter for time, so
they are random where ImageNet's are not there.
"""

import sys
import time
import warnings

from machine import facts

import ggo_lab as gl
from ggo_lab.training import Speed

EPOCHS = 30
# As the cache is filled: the comparison is of the idea, not of the memory format.
CHANNELS_LAST = Speed(channels_last=True)


def main(names: list[str]) -> None:
    print(facts(), "\n")
    images = gl.prepare(gl.phantom_cohort(), gl.Recipe())
    print(
        "| backbone | 30 epochs, computed once, s | CPU s | an epoch once cached, s | an epoch recomputed, s | ratio |"
    )
    print("|---|---|---|---|---|---|")
    for name in names:
        start, cpu = time.perf_counter(), time.process_time()
        history = fit(name, images, gl.TrainConfig(max_epochs=EPOCHS, patience=EPOCHS))
        seconds, cpu = time.perf_counter() - start, time.process_time() - cpu
        again = gl.TrainConfig(max_epochs=1, reuse_frozen=False, speed=CHANNELS_LAST)
        recomputed = fit(name, images, again).table["seconds"].mean()
        cached = history.table["seconds"].mean()
        row = f"{seconds:.1f} | {cpu:.1f} | {cached:.3f} | {recomputed:.1f} | {recomputed / cached:.0f}"
        print(f"| {name} | {row} |", flush=True)


def fit(name: str, images: gl.ImageSet, config: gl.TrainConfig) -> gl.History:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = gl.build_backbone(name, extent="head", weights="none")
    return gl.fit(model, images.train, images.validation, config, progress=False)


if __name__ == "__main__":
    main(sys.argv[1:] or ["resnet152", "wide_resnet101_2"])
