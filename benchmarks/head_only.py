"""Time extent="head" with the frozen layers computed once, beside computing them in every epoch.

    python benchmarks/head_only.py [backbone ...]

On as many images as the default phantom cohort has (72 to learn from, 24 to validate on), at 224 x 224. Neither their
content nor the weights matter for time, so both are random.
"""

import sys
import time
import warnings

from results import Results
from synthetic import images

import ggo_lab as gl
from ggo_lab.training import Speed

EPOCHS = 30
# As the cache is filled: the comparison is of the idea, not of the memory format.
CHANNELS_LAST = Speed(channels_last=True)


def main(names: list[str]) -> None:
    found = Results("head_only")
    head = ["30 epochs, s", "of which CPU s", "an epoch, cached, s", "an epoch, recomputed, s", "times faster"]
    found.table("A frozen prefix, computed once", ["backbone", *head])
    for name in names:
        start, cpu = time.perf_counter(), time.process_time()
        history = fit(name, gl.TrainConfig(max_epochs=EPOCHS, patience=EPOCHS))
        seconds, cpu = time.perf_counter() - start, time.process_time() - cpu
        again = gl.TrainConfig(max_epochs=1, reuse_frozen=False, speed=CHANNELS_LAST)
        recomputed, cached = fit(name, again).table["seconds"].mean(), history.table["seconds"].mean()
        found.row(name, seconds, cpu, float(cached), float(recomputed), float(recomputed / cached))
    found.write()


def fit(name: str, config: gl.TrainConfig) -> gl.training.History:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = gl.build_backbone(name, extent="head", weights=None)
    return gl.fit(model, images(72, "train"), images(24, "validation"), config, progress=False)


if __name__ == "__main__":
    main(sys.argv[1:] or ["resnet152", "wide_resnet101_2"])
