"""Measure lungs, haze and severity on real scans, by rule and by networks, against experts, radiologists and the bars.

    python benchmarks/real.py                           # the scans in ../shared/data/real and ../shared/data
    python benchmarks/real.py --covid-ct-md FOLDER      # and P002, cap002, normal002 of COVID-CT-MD, whose slices are
                                                        # labelled; FOLDER holds them and the two label files

Nothing was learnt from these scans: the network has seen phantoms alone. Those marked "tuned" were looked at while
its phantoms and thresholds were chosen; the others were measured once, at the end. Pictures go to build/real/: right
lung in red, left in yellow, haze in cyan, experts' outlines in green. Of each kind, the worst scan that may be handed
on goes to results/ as well, and, with the labelled patients, a chart of what misses its bar.
"""

import argparse
import json
import time
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import matplotlib
import numpy as np
import pandas as pd
from PIL import Image
from scipy import ndimage
from scipy.stats import spearmanr
from skimage.draw import polygon2mask
from sklearn.metrics import roc_auc_score

from ggo_lab.backbones import added, read_slices
from ggo_lab.errors import GgoLabError
from ggo_lab.lungs import GgoFraction, Lungs, find_lungs, ggo_fraction
from ggo_lab.readers import read_labels, read_scan
from ggo_lab.scan import Scan

matplotlib.use("Agg")
import matplotlib.pyplot as plt

ROOT = Path(__file__).parents[1]
DATA = ROOT.parent / "shared" / "data"
OUTLINES = Path(__file__).parent / "outlines" / "ny_sbu.json"  # drawn by hand before any found outline was looked at
PICTURES = ROOT / "build" / "real"
WORST = Path(__file__).parent / "results"
WORST_AT, WORST_PX, WORST_COLOURS = (0.2, 0.4, 0.6, 0.8), 240, 200  # so high in the lungs; small enough to be committed
# Severity of slices: the network and the world of phantoms that it learnt in.
READERS = {
    "ResNet-18, people": ("resnet18", "people"),
    "SqueezeNet, people": ("squeezenet1_0", "people"),
    "SqueezeNet, wide": ("squeezenet1_0", "wide"),
}
METHODS = ("rule", "network", "both")  # of finding lungs; haze is by rule with the first, else by network
AIR_BELOW_HU = -300  # within an outline marked "air", lung is what is below this, vessels closed by so many pixels
CLOSE_PX = 6
TUNED_PATIENTS = ("P002",)  # of COVID-CT-MD, since the thresholds of haze were chosen on it, too
LEAST_SLICES = 6  # of a scan that a 2-D network reads
LEAST_CM2 = 5.0  # slices with less lung are left out of the slices' AUC


@dataclass(frozen=True)
class Case:
    """One real scan and what is known of it.

    Attributes:
        name: as in the table.
        scan: itself.
        tuned: whether it was looked at while phantoms and thresholds were chosen.
        kind: "free" breathing or "deep" breath, both without diffuse disease; "severe"; "none" (no lung in it);
            "labelled" slices.
        truth: experts' lungs, or outlines drawn by hand.
        labels: (Z,) whether radiologists saw disease in the slice.
    """

    name: str
    scan: Scan
    tuned: bool
    kind: str
    truth: np.ndarray | None = None
    labels: np.ndarray | None = None


def cases(covid_ct_md: Path | None, patients: list[str]) -> Iterator[Case]:
    """Read the scans one after the other, those of COVID-CT-MD last."""
    real = DATA / "real"
    for name, tuned in (("101", True), ("102", False), ("201", False)):
        path = real / "lctsc" / f"LCTSC-Test-S1-{name}.nii.gz"
        truth = read_labels(path.with_name(path.name.replace(".nii.gz", "_lungs.nii.gz"))) > 0
        yield Case(f"LCTSC-{name}", read_scan(path), tuned, "free", truth)
    for kernel in "BL":
        path = real / "lung_pet_ct_dx" / f"A0001_kernel_{kernel}.nii.gz"
        yield Case(f"kernel {kernel}", read_scan(path), True, "free")
    yield Case("LIDC-1011", read_scan(real / "lidc" / "LIDC-IDRI-1011.nii.gz"), False, "deep")
    labels = read_labels(DATA / "cip_thorax" / "lm-64.nrrd") & 255
    yield Case("CIP", read_scan(DATA / "cip_thorax" / "ct-64.nrrd"), True, "deep", (labels >= 9) & (labels <= 14))
    drawn = json.loads(OUTLINES.read_text(encoding="utf-8"))
    for path in sorted((real / "ny_sbu").glob("*.nii.gz")):
        name, scan = path.name.removesuffix(".nii.gz"), read_scan(path)
        truth = outlined(scan.hu[0], drawn[name])[None] if name in drawn else None
        tuned = name.startswith("A027284")
        yield Case(name, scan, tuned, "none" if truth is None else "severe", truth)
    if covid_ct_md is not None:
        rows = pd.read_csv(covid_ct_md / "Index.csv")
        marked = np.load(covid_ct_md / "Slice-level-labels-updated-1.npy")
        if len(rows) != len(marked):
            raise SystemExit(f"{covid_ct_md}: {len(rows)} patients in Index.csv, labels of {len(marked)}")
        for name in patients:
            scan = read_scan(next(folder for folder in covid_ct_md.rglob(name) if folder.is_dir()))
            # The table and the labels have 79 rows each, in one order; the column "Label Index" skips 43 and runs to
            # 79, so from P044 on it names the next patient's row.
            row = np.flatnonzero(rows["Folder/ID"] == name)
            # The labels run from the head downwards, the scan's slices from the feet upwards.
            seen = marked[row[0], : scan.shape[0]][::-1] > 0 if len(row) else None
            yield Case(name, scan, name in TUNED_PATIENTS, "labelled" if seen is not None else "deep", labels=seen)


def outlined(hu: np.ndarray, drawn: dict) -> np.ndarray:
    """Turn outlines drawn by hand, (x, y) corners, into a mask; those marked "air" follow the attenuation inside."""
    mask = np.zeros(hu.shape, bool)
    for corners in (c for sides in [drawn.get("drawn", {})] for c in sides.values()):
        mask |= polygon2mask(hu.shape, [(y, x) for x, y in corners])
    for corners in drawn.get("air", {}).values():
        inside = polygon2mask(hu.shape, [(y, x) for x, y in corners])
        pieces, count = ndimage.label(inside & (hu < AIR_BELOW_HU))
        sizes = np.bincount(pieces.ravel(), minlength=count + 1)
        sizes[0] = 0
        lung = ndimage.binary_closing((sizes >= 0.03 * sizes.max())[pieces], iterations=CLOSE_PX) & inside
        mask |= ndimage.binary_fill_holes(lung)
    return mask


def measure(case: Case, method: str) -> tuple[dict, Lungs | None, GgoFraction | None]:
    """Find lungs and haze of one scan by one method; a refusal is a result too, any other error is not caught."""
    began = time.process_time()
    row = {"scan": case.name, "set": "tuned" if case.tuned else "once", "kind": case.kind, "method": method}
    try:
        lungs = find_lungs(case.scan, method)
        haze_method = "rule" if method == "rule" else "network"
        ggo = ggo_fraction(case.scan, lungs.mask, haze_method)
    except GgoLabError as error:
        return row | {"refused": str(error).split(".")[0], "notes": 1}, None, None
    row |= {"seconds": time.process_time() - began, "litres": lungs.litres, "haze": ggo.total}
    row |= {"median_hu": float(np.median(case.scan.hu[lungs.mask])), "notes": len(lungs.notes)}
    if case.truth is not None:
        row["dice"] = 2 * (lungs.mask & case.truth).sum() / (lungs.mask.sum() + case.truth.sum())
        row["haze_in_truth"] = ggo_fraction(case.scan, case.truth, haze_method).total
    if case.labels is not None:
        area, ill = lungs.mask.sum(axis=(1, 2)), ggo.mask.sum(axis=(1, 2))
        seen = with_lung(case, lungs.mask)
        share = ill / np.maximum(area, 1)
        for name, values in (("auc_share", share), ("auc_area", ill), ("auc_lung", area)):
            row[name] = roc_auc_score(case.labels[seen], values[seen])
    return row, lungs, ggo


def with_lung(case: Case, mask: np.ndarray) -> np.ndarray:
    """Mark the slices that hold enough lung to be judged by, bool (Z,)."""
    return mask.sum(axis=(1, 2)) * case.scan.spacing[1] * case.scan.spacing[2] / 100 >= LEAST_CM2


def read(case: Case, reader: str, lungs: Lungs | None) -> dict:
    """Let a 2-D network that learnt severity on phantoms alone read a whole scan; its AUC is of slices with lung."""
    network, world = READERS[reader]
    table = read_slices(case.scan, case.scan.shape[0] // 3 * 3, network, world)
    row = {"scan": case.name, "set": "tuned" if case.tuned else "once", "kind": case.kind, "method": reader}
    row["haze"] = added(table)
    if case.labels is not None and lungs is not None:
        table = table[with_lung(case, lungs.mask)[table["slice"]]]
        lung = table[["right_lung", "left_lung"]].to_numpy()
        ill = (table[["right", "left"]].to_numpy() * lung).sum(axis=1)
        seen = case.labels[table["slice"]]
        row["auc_share"] = roc_auc_score(seen, ill / np.maximum(lung.sum(axis=1), 1e-3))
        row["auc_area"], row["auc_lung"] = roc_auc_score(seen, ill), roc_auc_score(seen, lung.sum(axis=1))
    return row


def draw(case: Case, results: dict[str, tuple[Lungs | None, GgoFraction | None]], title: str) -> None:
    """Draw six slices of a scan, a row for each method."""
    whole = case.scan.shape[0]
    at = np.unique((np.linspace(0.06, 0.94, 6) * (whole - 1)).round().astype(int))
    figure, panels = plt.subplots(len(results), len(at), figsize=(4 * len(at), 4 * len(results)), squeeze=False)
    for row, (method, (lungs, ggo)) in zip(panels, results.items(), strict=True):
        for panel, z in zip(row, at, strict=True):
            panel.imshow(case.scan.hu[z], "gray", vmin=-1350, vmax=150)
            masks = [(case.truth, "lime")]
            if lungs is not None and ggo is not None:
                masks += [(lungs.right, "red"), (lungs.left, "yellow"), (ggo.mask, "cyan")]
            for mask, colour in masks:
                if mask is not None and mask[z].any():
                    panel.contour(mask[z], [0.5], colors=colour, linewidths=0.8)
            panel.set_title(f"{method}, slice {z}", fontsize=8)
            panel.axis("off")
    figure.suptitle(title)
    figure.tight_layout()
    PICTURES.mkdir(parents=True, exist_ok=True)
    figure.savefig(PICTURES / f"{case.name.replace(' ', '-')}.png", dpi=60)
    plt.close(figure)


def draw_worst(case: Case, lungs: Lungs, ggo: GgoFraction) -> None:
    """Draw slices of the chest by rule and network together, small."""
    mask = lungs.mask if case.truth is None else lungs.mask | case.truth
    z, rows, columns = (np.flatnonzero(mask.any(axis=axes)) for axes in ((1, 2), (0, 2), (0, 1)))
    at = np.unique([z[round(share * (len(z) - 1))] for share in WORST_AT])
    shown = np.s_[max(0, rows[0] - 12) : rows[-1] + 12, max(0, columns[0] - 12) : columns[-1] + 12]
    tall, wide = case.scan.hu[0][shown].shape
    size = (len(at) * WORST_PX / 100, WORST_PX / 100 * tall / wide)
    figure, panels = plt.subplots(1, len(at), figsize=size, squeeze=False)
    for panel, level in zip(panels[0], at, strict=True):
        panel.imshow(case.scan.hu[level][shown], "gray", vmin=-1350, vmax=150)
        for drawn, colour in ((case.truth, "lime"), (lungs.right, "red"), (lungs.left, "yellow"), (ggo.mask, "cyan")):
            if drawn is not None and drawn[level].any():
                panel.contour(drawn[level][shown], [0.5], colors=colour, linewidths=0.7)
        panel.axis("off")
    figure.subplots_adjust(0, 0, 1, 1, 0.01, 0.01)
    path = WORST / f"real_{case.kind}.png"
    figure.savefig(path, dpi=100)
    plt.close(figure)
    Image.open(path).convert("RGB").quantize(WORST_COLOURS, Image.Quantize.FASTOCTREE).save(path, optimize=True)


def draw_missed(table: pd.DataFrame, haze: dict[str, np.ndarray], labels: dict[str, np.ndarray]) -> None:
    """Draw what misses its bar and is a number: haze beside density, one patient's slices, the order of a 2-D network.

    Args:
        table: rows of `measure` and `read`.
        haze: cm2 of haze in each slice, (Z,), of the patients whose slices are labelled.
        labels: bool (Z,), whether radiologists saw disease there.
    """
    figure, panels = plt.subplots(1, 3, figsize=(12, 3.6), layout="constrained")
    rows = table[table["kind"].isin(["free", "deep", "labelled"])]
    groups = (("not ill", "tab:blue", rows["kind"] != "labelled"), ("ill", "tab:red", rows["kind"] == "labelled"))
    order = [row.scan for row in rows[rows["method"] == "both"].sort_values("haze").itertuples()]
    for name, colour, chosen in groups:
        both, read_by = (rows[chosen & (rows["method"] == method)] for method in ("both", "SqueezeNet, wide"))
        panels[0].scatter(both["median_hu"], 100 * both["haze"], color=colour, label=name)
        panels[2].scatter(100 * read_by["haze"], [order.index(scan) for scan in read_by["scan"]], color=colour)
    panels[0].set(xlabel="median of the lungs, HU", ylabel="haze by U-Net, % of the lungs", title="Haze and density")
    panels[0].legend(frameon=False)
    least = min(labels, key=lambda patient: haze[patient].sum())
    for name, colour, chosen in (("not marked", "tab:blue", ~labels[least]), ("marked", "tab:red", labels[least])):
        panels[1].bar(np.flatnonzero(chosen), haze[least][chosen], 1.0, color=colour)
        panels[1].plot(np.flatnonzero(chosen), np.full(chosen.sum(), -0.6), "|", color=colour)
        panels[1].plot([], [], "s", color=colour, label=name)
    panels[1].set(
        xlabel="slice, from the feet", ylabel="haze by U-Net, cm2", title=f"{least}, as radiologists marked it"
    )
    panels[1].legend(frameon=False)
    panels[2].set(yticks=range(len(order)), yticklabels=order, xlabel="% of the lungs")
    panels[2].set_title("SqueezeNet, wide")
    figure.savefig(WORST / "real_missed.png", dpi=80)
    plt.close(figure)


def broken(scan: Scan) -> dict[str, Scan]:
    """Make from one scan what should come with a note or a refusal."""
    hu = scan.hu
    framed = np.zeros(hu.shape, np.int16)
    framed[:, 20:-20, 20:-20] = hu[:, 20:-20, 20:-20]
    half = hu.copy()
    half[:, :, hu.shape[2] // 2 :] = -1000
    return {
        "a frame of zeros": replace(scan, hu=framed),
        "the left half emptied": replace(scan, hu=half),
        "the right half alone": replace(scan, hu=np.ascontiguousarray(hu[:, :, : hu.shape[2] // 2])),
        "upside down": replace(scan, hu=np.ascontiguousarray(hu[::-1])),
        "flipped from front to back": replace(scan, hu=np.ascontiguousarray(hu[:, ::-1])),
        "one slice": replace(scan, hu=hu[len(hu) // 2][None].copy()),
        "200 HU denser": replace(scan, hu=(hu + 200).astype(np.int16)),
        "water": replace(scan, hu=np.zeros_like(hu)),
        "air": replace(scan, hu=np.full_like(hu, -1000)),
        "noise": replace(scan, hu=np.random.default_rng(0).normal(-300, 400, hu.shape).astype(np.int16)),
    }


def bars(table: pd.DataFrame) -> None:
    """Print what the bars ask for, once-looked scans apart."""
    print("\nBars (only scans that were measured once, where not said otherwise)")
    for method in METHODS:
        rows = table[table["method"] == method]
        once = rows[rows["set"] == "once"]
        dice = once[once["kind"] == "free"]["dice"].dropna()
        severe = once[once["kind"] == "severe"]
        severe_dice = severe["dice"].fillna(0)
        clear = rows[rows["kind"].isin(["free", "deep"])].dropna(subset=["haze"])
        kernels = rows.set_index("scan")["haze"].reindex(["kernel B", "kernel L"])
        print(f"{method}:")
        print(
            f"  lungs' Dice, {len(dice)} experts' masks: median {dice.median():.4f} (bar 0.97), "
            f"least {dice.min():.4f} (0.955)"
        )
        print(f"  lungs' Dice, severe slices by hand: {', '.join(f'{d:.3f}' for d in severe_dice)} (bar 0.93)")
        for kind, bar in (("free", 10), ("deep", 3)):
            found = once[once["kind"] == kind]
            said = ", ".join(f"{row.scan} {100 * row.haze:.1f}" for row in found.itertuples())
            print(f"  haze, {kind} breath, no diffuse disease, %: {said} (bar {bar})")
        print(f"  two kernels, tuned on, %: {100 * kernels.iloc[0]:.1f} and {100 * kernels.iloc[1]:.1f} (bar: 3 apart)")
        rank = spearmanr(clear["haze"], clear["median_hu"])[0]
        print(
            f"  haze and density of {len(clear)} scans without diffuse disease, tuned or not: "
            f"rank correlation {rank:.2f} (bar 0.4)"
        )
        if "auc_share" in rows:
            for row in rows.dropna(subset=["auc_share"]).itertuples():
                print(
                    f"  {row.scan}, slices: AUC by share {row.auc_share:.2f} (bar 0.80), by area {row.auc_area:.2f} "
                    f"(0.88); lung area alone {row.auc_lung:.2f}"
                )


def reader_bars(table: pd.DataFrame) -> None:
    """Print what the 2-D networks say of the ill and of the others, and how they rank slices."""
    for reader in READERS:
        rows = table[table["method"] == reader]
        said = {
            kind: ", ".join(f"{row.scan} {100 * row.haze:.1f}" for row in rows[rows["kind"] == kind].itertuples())
            for kind in ("free", "deep", "labelled")
        }
        print(f"{reader}, involvement of the scan, %:")
        print(f"  without diffuse disease: {said['free']}; deep breath: {said['deep']}; ill: {said['labelled']}")
        if "auc_share" in rows:
            for row in rows.dropna(subset=["auc_share"]).itertuples():
                print(
                    f"  {row.scan}, slices: AUC by share {row.auc_share:.2f} (bar 0.75), by area {row.auc_area:.2f}; "
                    f"lung area alone {row.auc_lung:.2f}"
                )


def main() -> None:
    """Print the table and the bars, and draw every scan."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--covid-ct-md", type=Path, metavar="FOLDER")
    parser.add_argument("--patients", nargs="+", default=["P002", "cap002", "normal002"], help="of COVID-CT-MD")
    parser.add_argument("--tuned", action="store_true", help="only the scans that may be looked at while tuning")
    arguments = parser.parse_args()
    warnings.simplefilter("ignore", UserWarning)
    rows, worst, haze, labels = [], {}, {}, {}
    for case in cases(arguments.covid_ct_md, arguments.patients):
        if arguments.tuned and not case.tuned:
            continue
        results = {}
        for method in METHODS:
            row, lungs, ggo = measure(case, method)
            rows.append(row)
            results[method] = lungs, ggo
            if method == "both" and ggo and case.labels is not None:
                pixel_cm2 = case.scan.spacing[1] * case.scan.spacing[2] / 100
                haze[case.name], labels[case.name] = ggo.mask.sum(axis=(1, 2)) * pixel_cm2, case.labels
            if method == "both" and lungs and ggo and not case.tuned and case.name not in arguments.patients:
                badness = 1 - row["dice"] if "dice" in row else row["haze"]
                if badness > worst.get(case.kind, 0):
                    worst[case.kind] = badness
                    draw_worst(case, lungs, ggo)
            said = (
                f"refused: {row['refused']}" if "refused" in row else f"{row['litres']:.2f} L, haze {row['haze']:.3f}"
            )
            print(f"{case.name:30s} {method:8s} {said} {'' if lungs is None else ' '.join(lungs.notes)}", flush=True)
        if case.scan.shape[0] >= LEAST_SLICES:
            for reader in READERS:
                rows.append(row := read(case, reader, results["both"][0]))
                print(f"{case.name:30s} {reader}: involvement {row['haze']:.3f}", flush=True)
        draw(case, results, f"{case.name} ({case.kind}, {'tuned' if case.tuned else 'once'})")
    table = pd.DataFrame(rows)
    print("\n" + table.drop(columns="refused", errors="ignore").to_string(index=False, float_format="%.3f"))
    bars(table)
    reader_bars(table)
    if labels:
        draw_missed(table, haze, labels)
    print("\nBroken on purpose: each should be refused, come with a note, or do no harm")
    unbroken = read_scan(DATA / "real" / "lctsc" / "LCTSC-Test-S1-101.nii.gz")
    for method in METHODS:
        own = find_lungs(unbroken, method).mask
        for what, scan in broken(unbroken).items():
            row, lungs, _ = measure(Case(what, scan, True, "broken"), method)
            said = row.get("refused") or (" ".join(lungs.notes) if lungs else "")
            if not said and lungs:  # no note is due where the lungs are found all the same
                dice = 2 * (lungs.mask & own).sum() / (lungs.mask.sum() + own.sum())
                said = f"SILENT, Dice with the lungs of the scan itself {dice:.3f}"
            print(f"  {what}, {method}: {said}")
    print(f"\nPictures: {PICTURES}")


if __name__ == "__main__":
    main()
