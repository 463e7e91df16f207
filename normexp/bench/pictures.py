"""Medians with the range of their rounds, told apart in grey too: by shade, marker and line."""

from collections.abc import Mapping
from typing import Any

import pandas as pd
from cycler import cycler
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter

LOOKS = cycler(
    color=["#1f3b57", "#b5651d", "#6f9bc1", "#555555", "#8a3b8f", "#3f8f6b"],
    marker=["o", "s", "^", "D", "v", "P"],
    linestyle=["-", "--", "-.", ":", (0, (5, 1, 1, 1, 1, 1)), (0, (7, 2))],
)


def dots(table: pd.DataFrame, shown: Mapping[str, str], title: str) -> Figure:
    """Dots for each row of a table, from top to bottom, on a log axis of ratios.

    Args:
        shown: columns with their names in the legend.
    """
    made = Figure((7.5, 1.6 + 0.35 * len(table)), layout="constrained")
    axes = made.subplots()
    _tidy(axes)
    for place, name in enumerate(found := [name for name in shown if name in table]):
        rows = [row + 0.2 * (place - (len(found) - 1) / 2) for row in range(len(table))]
        spread = _range(table, name)
        axes.errorbar(table[name], rows, xerr=spread, label=shown[name], capsize=2, linestyle="")
    axes.axvline(1, color="black", linewidth=1)
    axes.set_xscale("log")
    _round_numbers(axes.xaxis)
    axes.set_xlabel(f"{title} (log scale)")
    made.legend(loc="outside upper center", ncols=3, frameon=False)
    axes.set_yticks(range(len(table)), [_name(row) for row in table.itertuples()])
    axes.set_ylim(len(table) - 0.5, -0.5)
    return made


def _name(row: Any) -> str:
    seeds = f", {row.seeds} seeds" if row.seeds > 1 else ""
    return f"{row.model} {row.norm}, batch {row.batch_size}{seeds} {row.also}".strip()


def curves(table: pd.DataFrame) -> Figure:
    """Time and peak memory along each axis."""
    shown = list(table.groupby("axis", sort=False))
    made = Figure((10, 3.2 * len(shown)), layout="constrained")
    panels = made.subplots(len(shown), 2, squeeze=False, sharex="row")
    for (left, right), (axis, along) in zip(panels, shown, strict=True):
        _tidy(left)
        _tidy(right)
        for label, curve in along.groupby("curve", sort=False):
            spread = _range(curve, "ms")
            left.errorbar(curve["value"], curve["ms"], yerr=spread, label=label, capsize=2)
            right.plot(curve["value"], curve["peak_memory_mb"])
        left.set_yscale("log")
        _round_numbers(left.yaxis)
        left.legend(fontsize=8)
        left.set_ylabel("ms" if axis in ("runs", "images") else "ms a step and seed")
        right.set_ylabel("peak memory, MiB")
        right.set_ylim(0, 1.15 * right.get_ylim()[1])
        left.set_xlabel(axis)
        right.set_xlabel(axis)
        left.set_xscale("log")
        values = sorted(set(along["value"]))
        left.set_xticks(values, [f"{value:,}" for value in values])
        left.xaxis.set_minor_formatter(NullFormatter())
    return made


def _round_numbers(axis: Axis) -> None:
    """Ticks of a log scale that people read, as many as there is room for."""
    low, high = axis.get_view_interval()
    axis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0) if high / low < 200 else (1.0,)))
    axis.set_major_formatter(StrMethodFormatter("{x:,.9g}"))
    axis.set_minor_formatter(NullFormatter())


def _range(table: pd.DataFrame, name: str) -> list[Any] | None:
    if f"{name}_min" not in table:
        return None
    low, middle, high = table[[f"{name}_min", name, f"{name}_max"]].to_numpy().T
    return [middle - low, high - middle]


def _tidy(axes: Axes) -> None:
    axes.set_prop_cycle(LOOKS)
    axes.grid(which="major", color="#cccccc", linewidth=0.6)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
