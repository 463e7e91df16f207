"""Which pictures the report shows, and what is in each."""

from collections.abc import Callable
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import (
    FuncFormatter,
    LogLocator,
    MaxNLocator,
    NullFormatter,
    StrMethodFormatter,
)

from normexp.report.cells import Sweep, records, text
from normexp.report.diagnosed import diagnosed
from normexp.report.drawing import (
    INK,
    MOST_PANELS,
    PAPER,
    STYLE,
    WIDE,
    WIDTH,
    Look,
    Picture,
    Ticks,
    axis_of,
    curve,
    finish,
    grid_of,
    left_out,
    new_figure,
    panels,
    plain_text,
    tipped,
)
from normexp.report.tables import points, tip
from normexp.report.verdicts import DECIDED, Judge, compared

MOST_COMPARISONS = 60
INCHES_A_LETTER = 0.085
"""Of labels on an axis."""


def pictures(judge: Judge, rows: pd.DataFrame, costs: pd.DataFrame) -> list[Picture]:
    """Every picture that these runs have something to show in, the one to see first before all."""
    if not rows["n"].any():
        return []
    look = Look(judge.sweep)
    makers: list[Callable[[], Picture | None]] = [
        lambda: _error_lines(judge.sweep, rows, look),
        lambda: _forest(judge.sweep, rows, look),
        lambda: _seeds(judge, rows, look),
        lambda: _curves(judge, rows, look),
        lambda: _cost(judge.sweep, rows, costs, look),
        lambda: diagnosed(judge, rows, look),
    ]
    with mpl.rc_context(STYLE):
        return [picture for maker in makers if (picture := maker()) is not None]


def _panels(
    sweep: Sweep, rows: pd.DataFrame, axis: str | None, height: float
) -> tuple[Figure, list[tuple[Axes, str, pd.DataFrame]], list[Axes], str]:
    """A figure with a panel for each combination of the conditions that are not along the axis."""
    parts = panels(sweep, rows, axis)
    lines, columns = grid_of(min(len(parts), MOST_PANELS))
    figure, axes = new_figure(lines, columns, WIDTH if columns == 1 else WIDE, height * lines)
    pairs = zip(axes, parts[:MOST_PANELS], strict=False)
    shown = [(one, plain_text(title), part) for one, (title, part) in pairs]
    return figure, shown, axes, left_out(len(parts))


def _error_lines(sweep: Sweep, rows: pd.DataFrame, look: Look) -> Picture | None:
    axis = axis_of(sweep)
    if axis is None:
        return None
    figure, shown, axes, more = _panels(sweep, rows[rows["n"] > 0], axis, 3.6)
    tips: list[str] = []
    for one, title, cells in shown:
        ticks = Ticks(list(cells[axis]))
        variants = list(dict.fromkeys(cells["variant"]))
        for number, variant in enumerate(variants):
            own = cells[cells["variant"] == variant]
            shift = 0.12 * (number - (len(variants) - 1) / 2) / max(1, len(variants) - 1)
            x = [ticks.at(value, shift) for value in own[axis]]
            order = np.argsort(x)
            error, half = 100 * (1 - own["mean"]), 100 * (own["mean_high"] - own["mean"]).fillna(0)
            one.errorbar(
                np.array(x)[order], error.iloc[order], half.iloc[order], capsize=3, elinewidth=1,
                label=look.label(variant), **look(variant),
            )  # fmt: skip
            for place, row, y in zip(x, own.itertuples(), error, strict=True):
                tipped(one, tips, place, y, tip(row))
        ticks.draw(one)
        one.set(xlabel=sweep.words(axis), ylabel="test error, %", title=title)
    finish(figure, axes, len(shown))
    scale = ", log axis" if ticks.numeric else ""
    return Picture(
        "error",
        f"Test error against {sweep.words(axis)}",
        f"Mean over seeds with its 95 % t interval{scale}; lower is better. Marks are moved aside "
        f"a little so that they do not hide each other.{more}",
        figure, tips,
    )  # fmt: skip


def _forest(sweep: Sweep, rows: pd.DataFrame, look: Look) -> Picture | None:
    beside = compared(rows)
    if beside.empty or sweep.reference is None:
        return None
    shown = beside.iloc[:MOST_COMPARISONS][::-1]
    labels = [
        f"{plain_text(row.condition)} {look.label(row.variant)}".lstrip()
        for row in shown.itertuples()
    ]
    # Of the letters, and of what stands beside them.
    width = INCHES_A_LETTER * max(map(len, labels)) + 3
    figure, (axes,) = new_figure(1, 1, width, 1.1 + 0.24 * len(shown))
    conditions = list(dict.fromkeys(shown["condition"]))
    tips: list[str] = []
    for place, row in enumerate(records(shown)):
        style = look(row["variant"]) | {"linestyle": "none"}
        mean = 100 * row["difference"]
        half = np.nan_to_num(100 * row["high"] - mean)
        axes.errorbar(
            [mean], [place], xerr=half, capsize=3, elinewidth=1.4,
            markerfacecolor=style["color"] if row["verdict"] in DECIDED else PAPER, **style,
        )  # fmt: skip
        tipped(axes, tips, mean, place, f"{_name(row)}: {points(row['difference'])} points, "
               f"{row['verdict']}, n = {row['pairs']:.0f}")  # fmt: skip
        if conditions.index(row["condition"]) % 2:
            axes.axhspan(place - 0.5, place + 0.5, color="#999999", alpha=0.12, linewidth=0)
    axes.axvline(0, color=INK, linewidth=1)
    axes.margins(x=0.08)
    axes.set_yticks(range(len(shown)), labels)
    axes.set_ylim(-0.5, len(shown) - 0.5)
    axes.grid(visible=False, axis="y")
    # To the right: what is too long for the axis reaches below the labels.
    axes.set_xlabel(f"difference from {look.label(sweep.reference)}, points", loc="right")
    rest = len(beside) - len(shown)
    return Picture(
        "differences",
        f"Differences from {sweep.reference}",
        "Mean difference of test accuracy with its 95 % t interval, each on its own; right of the "
        "line is better. Filled marks are decided."
        + (f" {rest} more comparisons are in the table." if rest else ""),
        figure, tips,
    )  # fmt: skip


def _name(row: Any) -> str:
    return ", ".join(filter(None, [row["variant"], row["condition"]]))


def _seeds(judge: Judge, rows: pd.DataFrame, look: Look) -> Picture:
    axis = axis_of(judge.sweep)
    figure, shown, axes, more = _panels(judge.sweep, rows, axis, 3.4)
    tips: list[str] = []
    for one, title, cells in shown:
        at = list(dict.fromkeys(cells[axis])) if axis else [""]
        variants = list(dict.fromkeys(cells["variant"]))
        for cell, row in zip(cells.index, records(cells), strict=True):
            left = at.index(row[axis] if axis else "") - 0.4
            centre = left + 0.8 * (variants.index(row["variant"]) + 0.5) / len(variants)
            values = 100 * judge.scores[cell].dropna()
            style = look(row["variant"]) | {"linestyle": "none"}
            # A seed keeps its place within its column, so that pairs can be followed.
            x = centre + 0.3 / len(variants) * (
                np.arange(len(values)) / max(1, len(values) - 1) - 0.5
            )
            one.plot(x, values, markersize=4, alpha=0.8, label=look.label(row["variant"]), **style)
            for place, (seed, value) in zip(x, values.items(), strict=True):
                tipped(one, tips, place, value, f"{_name(row)}, seed {seed}: {value:.2f} %")
            half = 0.35 / len(variants)
            one.plot([centre - half, centre + half], [values.mean()] * 2, color=INK, linewidth=1.2)
            if row["diverged"]:
                one.annotate(
                    f"{row['diverged']} diverged", (centre, 0), xycoords=("data", "axes fraction"),
                    rotation=90, fontsize=8, ha="center", va="bottom", color=style["color"],
                )  # fmt: skip
        one.set_xticks(range(len(at)), [plain_text(text(value)) for value in at])
        one.grid(visible=False, axis="x")
        label = judge.sweep.words(axis) if axis else ""
        one.set(xlabel=label, ylabel="test accuracy, %", title=title)
    finish(figure, axes, len(shown))
    caption = f"One mark a run, in the order of its seeds; the bar is their mean.{more}"
    return Picture("seeds", "Every seed", caption, figure, tips)


def _curves(judge: Judge, rows: pd.DataFrame, look: Look) -> Picture | None:
    """Learning curves by epoch, a panel for each condition."""
    known = judge.runs.curves
    done = judge.sweep.runs[judge.sweep.runs["status"] == "completed"]
    if known.empty or not known[["val_acc", "train_loss"]].notna().any(axis=None):
        return None
    measure = "val_acc" if known["val_acc"].notna().any() else "train_loss"
    scale, label = (100, "validation accuracy, %") if measure == "val_acc" else (1, "training loss")
    curves = known.assign(value=scale * known[measure]).merge(done[["folder", "cell"]], on="folder")
    figure, shown, axes, more = _panels(judge.sweep, rows, None, 2.7)
    for one, title, cells in shown:
        for cell, variant in cells["variant"].items():
            own = curves[curves["cell"] == cell]
            curve(one, own, "epoch", look.label(variant), look(variant))
        one.set(xlabel="epoch", ylabel=label, title=title)
        one.xaxis.set_major_locator(MaxNLocator(5, integer=True, min_n_ticks=1))
        one.xaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
    finish(figure, axes, len(shown))
    caption = (
        f"{label.partition(',')[0].capitalize()} at the end of each epoch: mean over seeds, the "
        f"band from the lowest to the highest seed.{more}"
    )
    return Picture("curves", "Learning curves", caption, figure)


def _cost(sweep: Sweep, rows: pd.DataFrame, costs: pd.DataFrame, look: Look) -> Picture | None:
    if "ms" not in costs:
        return None
    figure, (axes,) = new_figure(1, 1, WIDTH, 3.6)
    known = rows.join(costs)
    known = known[(known["n"] > 0) & known["ms"].notna()]
    axis = axis_of(sweep)
    tips: list[str] = []
    for row in records(known):
        style = look(row["variant"]) | {"linestyle": "none"}
        mean, ms = 100 * row["mean"], row["ms"]
        spread = [[ms - row["ms_low"]], [row["ms_high"] - ms]]
        axes.errorbar(
            [ms], [mean], xerr=spread, elinewidth=1, label=look.label(row["variant"]), **style
        )
        tipped(
            axes, tips, ms, mean, f"{_name(row)}: {ms:.3g} ms a step, {mean:.2f} %, n = {row['n']}"
        )
        if axis:
            axes.annotate(
                plain_text(text(row[axis])), (ms, mean), xytext=(5, 3),
                textcoords="offset points", fontsize=9,
            )  # fmt: skip
    axes.set_xscale("log")
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda ms, _: f"{ms:g}"))
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.set(xlabel="milliseconds a step", ylabel="test accuracy, %")
    finish(figure, [axes], 1)
    numbers = f" The figure beside a mark is its {sweep.words(axis)}." if axis else ""
    return Picture(
        "cost",
        "Accuracy against cost",
        f"Mean test accuracy of each cell against the time of a training step.{numbers} Upper left "
        "is better.",
        figure, tips,
    )  # fmt: skip
