"""Bars and curves as PNG, told apart in grey too: by shade, hatch, line and marker."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter, Formatter, FuncFormatter, LogLocator, NullFormatter

from normexp import figure_files

FILLS = (
    ("#1f3b57", ""),
    ("#8fb0cd", ""),
    ("#f2e3c6", "////"),
    ("#ffffff", "...."),
    ("#c9c9c9", "xxxx"),
)
LINES = (
    ("#1f3b57", "-", "o"),
    ("#b5651d", "--", "s"),
    ("#6f9bc1", "-.", "^"),
    ("#555555", ":", "D"),
)


@dataclass(frozen=True)
class Bar:
    """A median with the range over the rounds, and what is written beside it."""

    middle: float
    low: float
    high: float
    note: str = ""


def bars(axes: Axes, groups: Sequence[str], series: Mapping[str, Sequence[Bar | None]]) -> None:
    """Horizontal bars on a log axis with their notes at the right of the axes.

    Args:
        groups: names, from top to bottom.
        series: one bar for each group, or None, by the name in the legend.
    """
    height = 0.8 / len(series)
    for place, (label, values) in enumerate(series.items()):
        color, hatch = FILLS[place % len(FILLS)]
        first = (place - (len(series) - 1) / 2) * height
        shown = {row + first: bar for row, bar in enumerate(values) if bar is not None}
        whiskers = [
            [bar.middle - bar.low for bar in shown.values()],
            [bar.high - bar.middle for bar in shown.values()],
        ]
        axes.barh(
            list(shown), [bar.middle for bar in shown.values()], height, color=color, hatch=hatch,
            edgecolor="black", linewidth=0.6, label=label, xerr=whiskers,
            error_kw={"elinewidth": 0.9, "ecolor": "#d04a02", "capsize": 1.5},
        )  # fmt: skip
        for where, bar in shown.items():
            axes.annotate(
                bar.note, (1.0, where), (5, 0), xycoords=axes.get_yaxis_transform(),
                textcoords="offset points", va="center", fontsize=7, annotation_clip=False,
            )  # fmt: skip
    every = [bar for values in series.values() for bar in values if bar is not None]
    low, high = min(bar.low for bar in every) / 1.6, max(bar.high for bar in every) * 1.1
    _log(axes.xaxis, low, high, FuncFormatter(_plain))
    axes.set_xlim(low, high)
    axes.set_yticks(range(len(groups)), groups)
    axes.set_ylim(len(groups) - 0.5, -0.5)
    axes.tick_params(axis="y", length=0)
    _grid(axes, "x")


def curve(axes: Axes, number: int, label: str, points: Sequence[tuple[float, ...]]) -> None:
    """A line through (x, middle, low, high); ``number`` chooses how it looks, x is a log axis."""
    color, style, marker = LINES[number % len(LINES)]
    x, middle, low, high = zip(*points, strict=True)
    axes.plot(x, middle, color=color, linestyle=style, marker=marker, markersize=5, label=label)
    axes.fill_between(x, low, high, color=color, alpha=0.2, linewidth=0)
    axes.set_xscale("log")
    axes.set_xticks(x, [f"{value:,.0f}" for value in x])
    axes.tick_params(axis="x", which="minor", bottom=False, labelbottom=False)
    _grid(axes, "both")


def time_axis(axes: Axes, points: Sequence[tuple[float, ...]]) -> None:
    """A log axis of seconds for all (x, middle, low, high) of the curves."""
    low, high = min(point[2] for point in points) / 1.4, max(point[3] for point in points) * 1.4
    _log(axes.yaxis, low, high, EngFormatter("s"))
    axes.set_ylim(low, high)


def proportional(axes: Axes, label: str, point: Sequence[float]) -> None:
    """A thin line of what grows in proportion to x, through one (x, middle, ...) of a curve."""
    ends = axes.get_xlim()
    axes.plot(
        ends, [point[1] * end / point[0] for end in ends], color="#999999", linewidth=0.9,
        linestyle=(0, (1, 2)), scalex=False, scaley=False, zorder=0, label=label,
    )  # fmt: skip


def _log(axis: Axis, low: float, high: float, form: Formatter) -> None:
    """A log scale with round numbers that people read, as many as there is room for."""
    axis.axes.set(**{f"{axis.axis_name}scale": "log"})  # type: ignore[attr-defined]
    axis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0) if high / low < 200 else (1.0,)))
    axis.set_major_formatter(form)
    axis.set_minor_formatter(NullFormatter())


def _plain(value: float, place: int | None = None) -> str:
    return f"{value:,.9g}"


def _grid(axes: Axes, along: str) -> None:
    axes.grid(axis=along, which="major", color="#cccccc", linewidth=0.6)  # type: ignore[arg-type]
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)


def figure(width: float, height: float) -> Figure:
    """An empty picture of so many inches; no window or global state comes with it."""
    return Figure(figsize=(width, height), layout="constrained")


def save(made: Figure, path: Path) -> None:
    figure_files.save(made, path, "choose another --csv", follow=True)
