"""Train along the axes that the paper's public log varies, on phantoms: network, batch size, learning rate, epochs.

    python benchmarks/sweep_axes.py [folder of runs, build/sweep]

Small images and small networks from random weights, so that two cores need about ten minutes. Stopped and called
again, it goes on. Writes benchmarks/results/sweep.csv and sweep.png, and prints a row for each setting.
"""

import json
import sys
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import pandas as pd
from machine import facts

import ggo_lab as gl
from ggo_lab.plots import use_style
from ggo_lab.sweeps import sweep

RESULTS = Path(__file__).parent / "results"
AXES = {
    "backbone": ["alexnet", "squeezenet1_0", "resnet18"],
    "extent": ["all"],
    "batch_size": [16, 64],  # the log: 16 to 256
    "lr": [1e-3, 1e-4],  # the log: 1e-3, but for one run
    "max_epochs": [5, 20],  # the log: up to 500
    "seed": [101, 102, 103],  # the log: 101
}
SETTING = ["backbone", "batch_size", "lr", "max_epochs"]
COLORS = {1e-3: "#D55E00", 1e-4: "#0072B2"}
STYLES = {16: "-", 64: "--"}


def main(folder: Path) -> None:
    print(facts(), "\n", flush=True)
    cohort = gl.phantom_cohort(160, seed=0, shape=(32, 128, 128))
    images = gl.prepare(cohort, gl.Recipe(size=64))
    print(images, flush=True)
    # In the same arithmetic everywhere, so that another machine finds the same table.
    config = gl.TrainConfig(patience=5, speed="plain")
    table = sweep(images, folder, AXES, config, weights=None, jobs=2)
    if len(table) != len(pd.MultiIndex.from_product(AXES.values())):
        sys.exit(
            f"{folder} holds {len(table)} runs. Too few: the others are claimed by workers that live, or did lately. "
            "Too many: some are of other images or settings; give an empty folder."
        )
    RESULTS.mkdir(exist_ok=True)
    table = table.sort_values([*SETTING, "seed"], ignore_index=True).drop(columns=["extent", "weights"])
    table.round(4).to_csv(RESULTS / "sweep.csv", index=False, lineterminator="\n")
    print(summary(table).to_string(index=False, float_format="%.2f", formatters={"lr": "{:g}".format}))
    draw(table, folder)


def summary(table: pd.DataFrame) -> pd.DataFrame:
    """Give a row for each setting: over its seeds, the mean epochs and macro-F1, and the widest interval's ends."""
    over_seeds = table.groupby(SETTING, as_index=False)
    return over_seeds.agg(
        epochs=("epochs", "mean"),
        best_epoch=("best_epoch", "mean"),
        macro_f1=("validation_macro_f1", "mean"),
        least=("validation_macro_f1", "min"),
        most=("validation_macro_f1", "max"),
        low=("low", "min"),
        high=("high", "max"),
    )


def draw(table: pd.DataFrame, folder: Path) -> None:
    """Draw the validation loss of every long run above the macro-F1 of every setting, a column for each network."""
    use_style()
    runs = [json.loads(file.read_text(encoding="utf-8")) for file in sorted(folder.glob("*.json"))]
    longest = max(AXES["max_epochs"])
    figure, grid = plt.subplots(2, len(AXES["backbone"]), figsize=(11, 6.4), sharey="row")
    for column, name in enumerate(AXES["backbone"]):
        above, below = grid[:, column]
        for run in runs:
            row = run["row"]
            if row["backbone"] == name and row["max_epochs"] == longest and "curves" in run:
                above.plot(
                    run["curves"]["epoch"],
                    run["curves"]["validation_loss"],
                    color=COLORS[row["lr"]],
                    linestyle=STYLES[row["batch_size"]],
                    linewidth=1.2,
                )
        above.axhline(1.386, color="#999999", linewidth=0.8, zorder=0)
        above.set(title=name, xlabel="epoch", xlim=(0.5, longest + 0.5), ylim=(0, 3))
        settings = table[table["backbone"] == name].groupby(SETTING[1:])
        for place, ((batch_size, lr, _), rows) in enumerate(settings):
            shifts = place + 0.18 * (rows["seed"] - rows["seed"].mean())
            found = rows["validation_macro_f1"]
            ends = [found - rows["low"], rows["high"] - found]
            face = "white" if batch_size > 16 else COLORS[lr]
            below.errorbar(
                shifts, found, ends, fmt="o", color=COLORS[lr], markerfacecolor=face, markersize=4, linewidth=0.8
            )
        below.set_xticks(
            range(len(settings)), [f"{batch}, {epochs}" for (batch, _, epochs), _ in settings], fontsize="small"
        )
        below.set(xlabel="batch size, most epochs", ylim=(0, 1))
    grid[0, 0].set_ylabel("validation loss")
    chance = {"color": "#777777", "fontsize": "small", "va": "center", "annotation_clip": False}
    grid[0, -1].annotate("chance", (1.02, 1.386), xycoords=("axes fraction", "data"), **chance)
    grid[1, 0].set_ylabel("macro-F1 on validation, 95% interval")
    for lr, color in COLORS.items():
        grid[0, -1].plot([], [], color=color, label=f"learning rate {lr:g}")
    for batch_size, style in STYLES.items():
        face = "white" if batch_size > 16 else "#555555"
        marks = {"marker": "o", "markersize": 4, "markerfacecolor": face}
        grid[0, -1].plot([], [], color="#555555", linestyle=style, label=f"batches of {batch_size}", **marks)
    grid[0, -1].legend(fontsize="small")
    figure.savefig(RESULTS / "sweep.png", dpi=90)


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "build/sweep"))
