"""Every static figure of the course. Functions take Axes, draw one thing, and give the Axes back."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import wraps
from itertools import cycle
from typing import TYPE_CHECKING, ParamSpec

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.patches import Rectangle
from matplotlib.patheffects import withStroke
from matplotlib.text import Text
from matplotlib.ticker import MaxNLocator

from ggo_lab.cohort import Cohort
from ggo_lab.errors import ChoiceError, check_choice
from ggo_lab.rendering import (
    HEAT_COLD,
    HEAT_HOT,
    PLANES,
    Heat,
    check_heat,
    check_masks,
    heat_slice,
    mask_colors,
    slice_of,
    slice_spacing,
)
from ggo_lab.scan import Scan, Window, as_window
from ggo_lab.tasks import GGO_SEVERITY, Task

if TYPE_CHECKING:  # they import torch, which a picture of a slice should not wait for
    from ggo_lab.evaluation import Comparison, Reliability, Report
    from ggo_lab.training import History

# Two colours for the two splits that a history shows (Okabe & Ito 2008), apart from those of classes and masks.
_SPLIT_COLORS = {"train": "#999999", "validation": "#CC79A7"}
_SERIES_COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7")  # of networks beside each other


_Arguments = ParamSpec("_Arguments")


def _literally(draw: Callable[_Arguments, Axes]) -> Callable[_Arguments, Axes]:
    """Let a plot draw all text as it stands: a scan may be called ward$_$07, which Matplotlib takes for mathematics."""

    @wraps(draw)
    def drawn(*args: _Arguments.args, **kwargs: _Arguments.kwargs) -> Axes:
        before = {text for part in (*args, *kwargs.values()) if isinstance(part, Axes) for text in part.texts}
        with plt.rc_context({"text.parse_math": False}):
            ax = draw(*args, **kwargs)
            for text in ax.findobj(Text):
                if text not in before:
                    text.set_parse_math(False)
                    # Half a character, as names of files may hold, stops Matplotlib.
                    text.set_text(text.get_text().encode(errors="replace").decode())
        return ax

    return drawn


def _called(name: object) -> str:
    """Return a label for the legend, which leaves out what begins with an underscore."""
    text = str(name)
    return f" {text}" if text.startswith("_") else text


def use_style() -> None:
    """Set the look of the course's figures, for this session."""
    plt.rcParams.update(
        {
            "figure.figsize": (7.0, 3.6),  # inches
            "figure.dpi": 100,
            "figure.constrained_layout.use": True,
            "image.cmap": "gray",
            "axes.spines.top": False,
            "axes.spines.right": False,
            "axes.titlesize": "medium",
            "axes.titlelocation": "left",
            "legend.frameon": False,
            "font.size": 10,
        }
    )


@_literally
def plot_slice(
    scan: Scan,
    index: int | None = None,
    plane: str = "axial",
    window: str | Window | tuple[float, float] = "lung",
    masks: Mapping[str, np.ndarray] | str | None = None,
    heat: Heat | None = None,
    ax: Axes | None = None,
) -> Axes:
    """Draw one slice in its true proportions, with letters at the edges, outlines of masks, and heat.

    Args:
        scan: to show.
        plane: "axial", "coronal" or "sagittal".
        index: of the slice, counted along the plane's axis of scan.hu; the middle one if left out.
        window: a name or (level, width), HU.
        masks: bool (Z, Y, X) by name, or "truth".
        heat: 0..1, maps by axial slice or (Z, Y, X).
        ax: to draw in; a new figure if left out.
    """
    check_choice("plane", plane, PLANES)
    axis, letters = PLANES[plane]
    index = scan.shape[axis] // 2 if index is None else index
    if index not in range(scan.shape[axis]):
        raise ChoiceError(
            f"index={index} is outside {scan.name}: its {plane} slices are 0 to {scan.shape[axis] - 1}.", index
        )
    index = int(index)
    level, width = as_window(window)
    masks, heat = check_masks(scan, masks), check_heat(scan, heat)
    row_mm, column_mm = slice_spacing(scan, plane)
    ax = _axes(ax)
    ax.imshow(
        slice_of(scan.hu, plane, index),
        vmin=level - width / 2,
        vmax=level + width / 2,
        aspect=row_mm / column_mm,
        interpolation="bilinear",
        cmap="gray",
    )
    warm = None if heat is None else heat_slice(heat, scan.shape, plane, index)
    if warm is not None:
        # As in the viewer: its colours, and what is low leaves the scan as it is.
        warmth = LinearSegmentedColormap.from_list("heat", [np.divide(end, 255) for end in (HEAT_COLD, HEAT_HOT)])
        opacity = 0.6 * np.square(np.clip(np.nan_to_num(warm), 0, 1))
        ax.imshow(warm, cmap=warmth, vmin=0, vmax=1, alpha=opacity, aspect=row_mm / column_mm)
    colors = mask_colors(list(masks))
    for name, mask in masks.items():
        part = slice_of(mask, plane, index)
        if part.any() and not part.all():
            ax.contour(part, levels=[0.5], colors=colors[name], linewidths=1)
        ax.plot([], [], color=colors[name], label=_called(name))
    if masks:
        ax.legend(loc="upper left", bbox_to_anchor=(0, 0), ncols=3, fontsize="small", borderpad=0)
    for letter, place in zip(letters, ((0.02, 0.5), (0.98, 0.5), (0.5, 0.98), (0.5, 0.02)), strict=True):
        across = "left" if place[0] < 0.1 else "right" if place[0] > 0.9 else "center"
        up = "top" if place[1] > 0.9 else "bottom" if place[1] < 0.1 else "center"
        sign = ax.text(*place, letter, transform=ax.transAxes, color="white", ha=across, va=up, fontweight="bold")
        sign.set_path_effects([withStroke(linewidth=2.5, foreground="#000000b0")])  # to be read on bright tissue
    ax.set_title(f"{scan.name}, {plane} {index}")
    ax.set_axis_off()
    return ax


@_literally
def plot_image(image: np.ndarray, slices: tuple[int, ...] | None = None, ax: Axes | None = None) -> Axes:
    """Draw the channels of a network's image side by side.

    Args:
        image: uint8 (C, H, W).
        slices: their indices in the scan, for the title.
        ax: to draw in; a new figure if left out.
    """
    if np.ndim(image) != 3:
        raise ChoiceError(f"An image has the shape (C, H, W); found {np.shape(image)}.", np.shape(image))
    ax = _axes(ax)
    gap = np.full((image.shape[1], max(2, image.shape[2] // 60)), 255, np.uint8)
    parts = [part for channel in image for part in (channel, gap)][:-1]
    ax.imshow(np.hstack(parts), vmin=0, vmax=255, cmap="gray")
    said = "" if slices is None else f", slices {', '.join(str(z) for z in slices)} from the feet"
    ax.set_title(f"{len(image)} channels of {image.shape[1]} x {image.shape[2]} pixels{said}")
    ax.set_axis_off()
    return ax


@_literally
def plot_counts(cohort: Cohort, ax: Axes | None = None) -> Axes:
    """Draw how many scans of each class every split holds, as stacked bars."""
    counts, colours = cohort.counts(), dict(zip(cohort.task.names, cohort.task.colours, strict=True))
    ax = _axes(ax)
    left, rows = np.zeros(len(counts)), np.arange(len(counts))
    for name in counts.columns:
        bars = ax.barh(rows, counts[name], left=left, color=colours.get(name, "#999999"), label=_called(name))
        ax.bar_label(bars, [n or "" for n in counts[name]], label_type="center", color="white", fontsize="small")
        left += counts[name].to_numpy()
    ax.set_yticks(rows, counts.index)
    ax.invert_yaxis()
    ax.set_xlabel("scans")
    ax.legend(ncols=len(counts.columns), loc="lower left", bbox_to_anchor=(0, 1), borderpad=0)
    return ax


@_literally
def plot_history(history: History, ax: Axes | None = None, measure: str = "loss", task: Task = GGO_SEVERITY) -> Axes:
    """Draw a run's loss or accuracy, epoch by epoch, with a mark where the kept state is.

    Args:
        history: of fit.
        ax: to draw in; a new figure if left out.
        measure: "loss" or "accuracy".
        task: what was learnt; the loss of guessing among its classes is drawn.
    """
    check_choice("measure", measure, ("loss", "accuracy"))
    table, ax = history.table, _axes(ax)
    for split, color in _SPLIT_COLORS.items():
        ax.plot(table["epoch"], table[f"{split}_{measure}"], color=color, marker=".", label=split)
    best = table[table["best"]].iloc[0]
    ax.axvline(best["epoch"], color="#444444", linewidth=1, linestyle=":")
    ax.plot(best["epoch"], best[f"validation_{measure}"], "o", color=_SPLIT_COLORS["validation"], markersize=9)
    ax.annotate(
        "kept", (best["epoch"], 1), xycoords=("data", "axes fraction"), xytext=(3, -2), va="top",
        textcoords="offset points", fontsize="small",
    )  # fmt: skip
    chance = np.log(len(task)) if measure == "loss" else None
    if chance is not None:
        ax.axhline(chance, color="#bbbbbb", linewidth=1, zorder=0)
        ax.annotate(
            f"chance\nln {len(task)}", (1.01, chance), xycoords=("axes fraction", "data"), va="center", color="#777777",
            fontsize="small",
        )  # fmt: skip
        ax.set_ylim(0, min(ax.get_ylim()[1], 3 * chance))
    else:
        ax.set_ylim(0, 1.02)
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    ax.set_xlabel("epoch")
    ax.set_ylabel(measure)
    ax.legend(loc="best")
    return ax


@_literally
def plot_confusion(report: Report, ax: Axes | None = None) -> Axes:
    """Draw the confusion matrix: counts, shaded by the share of each true class; what is right is framed."""
    ax = _axes(ax)
    counts, percent = report.confusion, report.confusion_percent.fillna(0)
    ax.imshow(percent, cmap="Greys", vmin=0, vmax=130)
    for (row, column), count in np.ndenumerate(counts.to_numpy()):
        if count:
            dark = percent.iat[row, column] > 70
            text = f"{count}\n{percent.iat[row, column]:.0f}%"
            ax.text(column, row, text, ha="center", va="center", color="white" if dark else "black")
    ticks = range(len(counts))
    for right in ticks:
        ax.add_patch(Rectangle((right - 0.47, right - 0.47), 0.94, 0.94, fill=False, edgecolor="#444444"))
    ax.set_xticks(ticks, counts.columns, fontsize="small", va="baseline")
    ax.tick_params(axis="x", pad=12)  # from the axis to the letters' common baseline
    ax.set_yticks(ticks, [f"{name} ({n})" for name, n in zip(counts.index, counts.sum(axis=1), strict=True)])
    ax.set_xlabel("predicted")
    ax.set_ylabel("true (scans)")
    ax.spines[:].set_visible(False)
    ax.tick_params(length=0)
    return ax


@_literally
def plot_scores(reports: Mapping[str, Report], measure: str = "macro-F1", ax: Axes | None = None) -> Axes:
    """Draw one measure of several reports with its 95% intervals, over the majority baseline.

    Args:
        reports: by the name to show.
        measure: a row of Report.scores.
        ax: to draw in; a new figure if left out.
    """
    from ggo_lab.evaluation.measures import measures_of  # its room imports torch
    from ggo_lab.evaluation.report import as_text

    if not reports:
        raise ChoiceError("There is no report to draw; give at least one, by the name to show.", reports)
    for report in reports.values():
        check_choice("measure", measure, report.scores.index)
    ax = _axes(ax)
    names = list(reports)
    values = pd.Series({name: float(report.scores.loc[measure, "value"]) for name, report in reports.items()})
    ends = np.array([reports[name].interval(measure) for name in names])
    rows = np.arange(len(names))
    ax.hlines(rows, ends[:, 0], ends[:, 1], color="#444444", linewidth=2)
    ax.plot(values, rows, "o", color="#444444")
    for row, (name, value) in enumerate(values.items()):
        place = 0.0 if np.isnan(value) else value
        ax.annotate(as_text(value), (place, row), xytext=(0, 6), textcoords="offset points", ha="center")
        majority = float(reports[name].scores.loc[measure, "majority"])
        ax.plot(majority, row, "|", color="#D55E00", markersize=14, label="majority" if row == 0 else None)
    ax.set_yticks(rows, names)
    ax.set_ylim(len(names) - 0.5, -0.6)
    if sorted(measures_of(reports[names[0]].task)[measure].ends(reports[names[0]].task)) == [0, 1]:
        ax.set_xlim(0, 1.03)  # shares: whoever sees the whole range sees how wide an interval is
    ax.set_xlabel(f"{measure}, 95% interval")
    ax.legend(loc="lower right", bbox_to_anchor=(1, 1), handlelength=1, borderpad=0)
    return ax


@_literally
def plot_comparison(comparison: Comparison, ax: Axes | None = None) -> Axes:
    """Draw the difference of every pair of networks with its interval; grey where they are not distinguishable."""
    ax, table = _axes(ax), comparison.differences
    for row, pair in enumerate(table.itertuples()):
        color = "#0072B2" if pair.distinguishable else "#999999"
        ax.hlines(row, pair.low, pair.high, color=color, linewidth=2)
        ax.plot(pair.difference, row, "o", color=color)
        said = f"{pair.difference:+.2f}" + ("" if pair.distinguishable else ", not distinguishable")
        ax.annotate(said, (pair.difference, row), xytext=(0, 6), textcoords="offset points", ha="center")
    ax.axvline(0, color="#444444", linewidth=1, linestyle=":")
    ax.set_yticks(range(len(table)), table.index)
    ax.set_ylim(len(table) - 0.5, -0.6)
    ax.margins(x=0.2)  # room for words beside a point near the edge
    ax.set_xlabel(f"difference in {comparison.measure}\n95% intervals that hold together")
    return ax


@_literally
def plot_reliability(found: Reliability, ax: Axes | None = None) -> Axes:
    """Draw how often a network was right against how sure it was; the band is where chance leaves a calibrated one."""
    ax, table = _axes(ax), found.table
    middle = (table["low"] + table["high"]) / 2
    width = table["high"] - table["low"]
    height = table["band_high"] - table["band_low"]
    ax.bar(middle, height, width, table["band_low"], color="#dddddd", label="perfectly calibrated, 95% band")
    ax.plot([0, 1], [0, 1], color="#444444", linewidth=1, linestyle=":")
    ax.plot(table["confidence"], table["right"], "o", color="#0072B2", label=_called(found.made_by))
    for bin_ in table.itertuples():
        ax.annotate(
            f"{bin_.scans}", (bin_.confidence, bin_.right), xytext=(5, -3), textcoords="offset points", fontsize="small"
        )
    ax.set_xlim(1 / found.classes, 1)  # the highest of K probabilities is never below 1 / K
    ax.set_ylim(-0.03, 1.03)
    ax.set_xlabel("confidence, the highest of the probabilities")
    ax.set_ylabel("share right; number: scans")
    ax.set_title(f"calibration error {found.error:.2f}, by chance {found.by_chance:.2f}")
    ax.legend(loc="lower right")
    return ax


@_literally
def plot_risk_coverage(curves: Mapping[str, pd.DataFrame], ax: Axes | None = None) -> Axes:
    """Draw how often networks err if they answer only the scans they are surest of, with 95% bands.

    Args:
        curves: of risk_coverage, by the name to show.
        ax: to draw in; a new figure if left out.
    """
    ax = _axes(ax)
    shade = 0.15 if len(curves) <= 2 else 0.04  # many shades on each other are mud: then edges tell the bands apart
    for (name, curve), color in zip(curves.items(), cycle(_SERIES_COLORS), strict=False):
        ends = curve["coverage"], curve["low"], curve["high"]
        ax.fill_between(*ends, step="post", color=color, alpha=shade, linewidth=0)
        if len(curves) > 2:
            ax.fill_between(*ends, step="post", facecolor="none", edgecolor=color, alpha=0.45, linewidth=0.8)
        ax.step(curve["coverage"], curve["risk"], where="post", color=color, label=_called(name))
    ax.set_xlim(0, 1)
    ax.set_ylim(0, 1)
    ax.set_xlabel("coverage: share of scans answered, the surest first")
    ax.set_ylabel("risk: share wrong among them")
    ax.legend(loc="best")
    return ax


@_literally
def plot_probabilities(
    probabilities: np.ndarray, label: int | None = None, ax: Axes | None = None, task: Task = GGO_SEVERITY
) -> Axes:
    """Draw the probabilities of one scan; a frame marks the true class where it is known.

    Args:
        probabilities: (K,).
        label: 0..K-1; missing (None, nan, pd.NA) where it is not known, as in Predictions.to_frame().
        ax: to draw in.
        task: what the K classes are.

    Raises:
        ChoiceError: probabilities or a label that the task does not have.
    """
    probabilities = np.asarray(probabilities, float)
    if np.shape(probabilities) != (len(task),):
        raise ChoiceError(
            f"probabilities of shape {np.shape(probabilities)} are not those of one scan and {len(task)} classes "
            f"({', '.join(task.names)}).",
            probabilities,
        )
    known = None if pd.isna(label) else label
    if known is not None:
        check_choice("label", known, range(len(task)))
    ax = _axes(ax)
    rows = np.arange(len(task))
    bars = ax.barh(rows, probabilities, color=task.colours)
    ax.set_yticks(rows, task.names)
    ax.bar_label(bars, [f"{p:.0%}" for p in probabilities], padding=3)
    if known is not None:
        bars[int(known)].set(edgecolor="black", linewidth=2)
        ax.get_yticklabels()[int(known)].set_fontweight("bold")
    ax.invert_yaxis()
    ax.set_xlim(0, 1.12)
    ax.set_xlabel("probability" + ("" if known is None else f" (framed: the true {task.noun})"))
    return ax


def _axes(ax: Axes | None) -> Axes:
    return plt.subplots()[1] if ax is None else ax
