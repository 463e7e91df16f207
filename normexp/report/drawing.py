"""How the report draws, by matplotlib: readable in grey, and the same runs give the same bytes."""

import io
import re
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from html import escape
from typing import Any, Literal

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter, NullLocator

from normexp.report.cells import Cell, Sweep, Values, text

INK = "#222222"
"""Text and axes; the page writes the colour of its text in its place."""
PAPER = "#fffffe"
"""The background; none on the page. All but white, so that nothing else has it."""

# Okabe & Ito's palette without yellow, which is too pale for lines; shape and dashes tell variants
# apart where colour does not.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#777777")
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*", "<", ">", "h")
DASHES: tuple[Any, ...] = (
    "-", (0, (5, 1.5)), (0, (1, 1)), (0, (4, 1.5, 1, 1.5)), (0, (7, 2)), (0, (2, 2)),
    (0, (6, 1, 1, 1, 1, 1)),
)  # fmt: skip

STYLE: Any = {
    "font.family": "sans-serif", "font.sans-serif": ["DejaVu Sans"], "font.size": 10.5,
    "svg.fonttype": "path", "svg.hashsalt": "normexp", "axes.spines.top": False,
    "axes.spines.right": False, "axes.grid": True, "grid.color": "#999999", "grid.alpha": 0.25,
    "text.color": INK, "axes.edgecolor": INK, "axes.labelcolor": INK, "axes.titlecolor": INK,
    "xtick.color": INK, "ytick.color": INK, "figure.facecolor": PAPER, "savefig.facecolor": PAPER,
    "axes.facecolor": "none", "legend.frameon": False, "axes.titlesize": 10.5,
    "lines.linewidth": 1.6, "lines.markersize": 6, "figure.constrained_layout.use": True,
}  # fmt: skip

WIDTH = 5.0
"""Inches: as wide as a phone, on which letters keep their size."""
WIDE = 9.0
"""Of panels side by side."""
MOST_PANELS = 6


@dataclass
class Picture:
    """One figure."""

    name: str
    """Of its files."""
    title: str
    caption: str
    figure: Figure

    @property
    def wide(self) -> bool:
        """Whether it holds panels side by side."""
        return self.figure.get_figwidth() > WIDTH

    @cached_property
    def svg(self) -> bytes:
        return self._saved("svg", metadata={"Date": None})

    @cached_property
    def png(self) -> bytes:
        return self._saved("png", dpi=200)

    def _saved(self, form: str, **options: Any) -> bytes:
        file = io.BytesIO()
        with mpl.rc_context(STYLE):
            if self.figure.get_layout_engine() is not None:
                # Laid out once: it takes as long as drawing.
                self.figure.draw_without_rendering()
                self.figure.set_layout_engine("none")
            self.figure.savefig(file, format=form, **options)
        return file.getvalue()

    def inline(self) -> str:
        """The SVG for a page: without a background, in the page's ink, its ids its own."""
        found = self.svg.decode()
        found = found[found.index("<svg") :]
        found = re.sub(r"<metadata>.*?</metadata>\s*", "", found, flags=re.DOTALL)
        found = re.sub(r'(\sid="|url\(#|href="#)', rf"\1{self.name}-", found)
        found = re.sub(r'(<svg[^>]*?) width="[^"]*"', r"\1", found, count=1)
        found = re.sub(r'(<svg[^>]*?) height="[^"]*"', r"\1", found, count=1)
        # On the page an inch has 4.5 to 6.5 rem: smaller letters cannot be read on a phone, where
        # the picture scrolls in its box instead, and larger ones would outgrow the text.
        inches = self.figure.get_figwidth()
        sizes = f"min-width: {4.5 * inches:.2f}rem; max-width: {6.5 * inches:.2f}rem"
        title = escape(self.title)
        found = found.replace("<svg", f'<svg role="img" aria-label="{title}" style="{sizes}"', 1)
        return found.replace(INK, "currentColor").replace(f"fill: {PAPER}", "fill: none")


class Look:
    """Colour, marker and dashes of each variant, the same in all pictures."""

    def __init__(self, sweep: Sweep) -> None:
        self.sweep = sweep
        self.place = {variant: place for place, variant in enumerate(sweep.variants)}

    def label(self, variant: Values) -> str:
        # matplotlib leaves labels with a leading underscore out of legends, and reads $ as math.
        return self.sweep.variant_label(variant).replace("$", r"\$").lstrip("_")

    def __call__(self, variant: Values) -> dict[str, Any]:
        place = self.place[variant]
        return {
            "color": COLOURS[place % len(COLOURS)],
            "marker": MARKERS[place % len(MARKERS)],
            "linestyle": DASHES[place % len(DASHES)],
        }


def new_figure(
    rows: int, columns: int, width: float, height: float, share: Literal["all", "col"] = "all"
) -> tuple[Figure, list[Axes]]:
    """A figure of panels, row by row; all have one scale, or those of a column."""
    figure = Figure(figsize=(width, height))
    FigureCanvasAgg(figure)
    axes = figure.subplots(rows, columns, squeeze=False, sharey=share)
    return figure, list(axes.flat)


def curve(
    axes: Axes, at: Mapping[float, Sequence[float]], label: str, style: dict[str, Any]
) -> None:
    """Means over seeds by where they are on the axis, in a band from the lowest to the highest."""
    x = sorted(at)
    if not x:
        return
    mean = [statistics.fmean(at[one]) for one in x]
    every = max(1, len(x) // 8)
    axes.plot(x, mean, markersize=4, markevery=every, label=label, **style)
    low, high = [min(at[one]) for one in x], [max(at[one]) for one in x]
    axes.fill_between(x, low, high, color=style["color"], alpha=0.15, linewidth=0)


def axis_of(sweep: Sweep) -> str | None:
    """The swept condition that goes along an axis: the batch size, or else a number."""
    if "batch_size" in sweep.conditions:
        return "batch_size"
    for place, key in enumerate(sweep.conditions):
        if all(is_number(cell.condition[place]) for cell in sweep.cells):
            return key
    return sweep.conditions[0] if sweep.conditions else None


def is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def panels(sweep: Sweep, axis: str | None) -> list[tuple[str, list[Cell]]]:
    """The cells by all conditions but the axis, each with its title."""
    if axis is None:
        return [("", sweep.cells)]
    place = sweep.conditions.index(axis)
    rest = [key for key in sweep.conditions if key != axis]
    found: dict[str, list[Cell]] = {}
    for cell in sweep.cells:
        values = [value for at, value in enumerate(cell.condition) if at != place]
        title = " ".join(
            f"{sweep.short(key)}={text(value)}" for key, value in zip(rest, values, strict=True)
        )
        found.setdefault(title, []).append(cell)
    return list(found.items())


def left_out(count: int) -> str:
    return (
        f" {count - MOST_PANELS} more combinations are in the table." if count > MOST_PANELS else ""
    )


class Ticks:
    """Where the values of a swept key stand on an axis: on a log scale if they are such numbers."""

    def __init__(self, values: Sequence[Any]) -> None:
        self.values = list(dict.fromkeys(values))
        self.numeric = all(is_number(value) and value > 0 for value in self.values)
        if self.numeric:
            self.values.sort()

    def at(self, value: Any, shift: float = 0.0) -> float:
        """Where it is, moved by a share of the distance to its neighbour."""
        if not self.numeric:
            return self.values.index(value) + shift
        gaps = [b / a for a, b in zip(self.values, self.values[1:], strict=False)]
        return float(value * (min(gaps) if gaps else 2.0) ** shift)

    def draw(self, axes: Axes) -> None:
        if self.numeric:
            axes.set_xscale("log")
        axes.set_xticks([self.at(value) for value in self.values], list(map(text, self.values)))
        axes.xaxis.set_minor_locator(NullLocator())
        axes.xaxis.set_minor_formatter(NullFormatter())


def grid_of(count: int) -> tuple[int, int]:
    columns = 1 if count == 1 else 2
    return -(-count // columns), columns


def axis_label(sweep: Sweep, key: str) -> str:
    return "batch size" if key == "batch_size" else sweep.short(key)


def finish(figure: Figure, axes: list[Axes], used: int) -> None:
    """One legend above all panels, and nothing where there is no panel."""
    for empty in axes[used:]:
        empty.set_axis_off()
    handles: dict[str, Any] = {}
    for one in axes[:used]:
        for handle, label in zip(*one.get_legend_handles_labels(), strict=True):
            handles.setdefault(label, handle)
    if handles:
        longest = max(map(len, handles))
        room = figure.get_figwidth() / WIDTH
        columns = max(1, min(len(handles), int(room * 54 / (longest + 8))))
        # A long legend shall not take the panels' room.
        lines = -(-len(handles) // columns)
        figure.set_figheight(figure.get_figheight() + 0.2 * (lines - 1))
        figure.legend(
            list(handles.values()), list(handles), loc="outside upper center", ncols=columns,
            handlelength=2.6, columnspacing=1.5,
        )  # fmt: skip
