"""Time training beside a plain PyTorch loop in the paper's manner: fp32, rows of channels, a DataLoader.

    python benchmarks/training.py [--quick] [backbone ...]     # --quick: ResNet-18 only

A process each, which take turns, an epoch at a time: the plain loop without and with two workers that load images
ahead, and ours; on a GPU also ours over batches that lie there already, which says what its loop costs. All begin with
the same weights and see the same images in the same order.
"""

import argparse

import torch
from loops import IMAGES, ours, plain
from results import Results
from turns import middle, race, repeat

RUNS = 5
BAR = 2.5


def main(names: list[str]) -> None:
    found = Results("training")
    kinds = {"plain": (plain, 0), "plain, 2 workers": (plain, 2), "ours": (ours, False)}
    if torch.cuda.is_available():
        kinds["ours, ready"] = (ours, True)
    heads = [*(f"{kind}, images/s" for kind in kinds), "times", "times, CPU", "loss of each epoch, plain", "ours"]
    found.table(f"Training, medians of {RUNS} epochs of {IMAGES} images", ["backbone", *heads, "settings"])
    for name in names:
        # The first epoch sets things up and is not counted, but for its loss.
        turns = race({kind: repeat(make, name, choice) for kind, (make, choice) in kinds.items()}, RUNS + 1, 0)
        mid = {kind: middle(taken[1:]) for kind, taken in turns.items()}
        times = min(mid["plain"].wall_s, mid["plain, 2 workers"].wall_s) / mid["ours"].wall_s
        curves = [" ".join(f"{turn.answer[0]:.3f}" for turn in turns[kind]) for kind in ("plain", "ours")]
        rates = [IMAGES / mid[kind].wall_s for kind in kinds]
        cpu = mid["plain"].cpu_s / mid["ours"].cpu_s
        found.row(name, *rates, times, cpu, *curves, mid["ours"].answer[1])
        found.bar(f"{name}: times as fast as the plain loop, by the clock", times, BAR, True)
    found.write()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("backbones", nargs="*", help="default: resnet18 densenet121")
    parser.add_argument("--quick", action="store_true", help="resnet18 only")
    arguments = parser.parse_args()
    chosen = arguments.backbones or (["resnet18"] if arguments.quick else ["resnet18", "densenet121"])
    main(chosen)
