"""How the report draws, by matplotlib: readable in grey, and the same runs give the same bytes."""

import io
import re
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from html import escape
from typing import Any, Literal

import matplotlib as mpl
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_hex, to_rgb
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.ticker import NullFormatter, NullLocator

from normexp.norms.catalogue import BUILT_IN
from normexp.report.cells import Sweep, records, text

INK = "#222222"
"""Text and axes; the page writes the colour of its text in its place."""
PAPER = "#fffffe"
"""The background; none on the page. All but white, so that nothing else has it."""

# Okabe & Ito's palette without yellow, which is too pale for lines; shape and dashes tell variants
# apart where colour does not.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#777777", "#E69F00", "#56B4E9")
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*", "<", ">", "h")
DASHES: tuple[Any, ...] = (
    "-", (0, (5, 1.5)), (0, (1, 1)), (0, (4, 1.5, 1, 1.5)), (0, (7, 2)), (0, (2, 2)),
    (0, (6, 1, 1, 1, 1, 1)),
)  # fmt: skip

NORMS = tuple(dict.fromkeys(["bn", "gn", "ln", "in", "none", *BUILT_IN]))
"""The order in which norms have their colours and marks: the same in every report."""

SHADES = (0.0, 0.35, -0.25, 0.55, 0.18, -0.12, 0.68)
"""How far the colours of a norm with other settings are from its own to white, or to black."""

STYLE: Any = {
    "font.family": "sans-serif", "font.sans-serif": ["DejaVu Sans"], "font.size": 10.5,
    "svg.fonttype": "path", "svg.hashsalt": "normexp", "axes.spines.top": False,
    "axes.spines.right": False, "axes.grid": True, "grid.color": "#999999", "grid.alpha": 0.25,
    "text.color": INK, "axes.edgecolor": INK, "axes.labelcolor": INK, "axes.titlecolor": INK,
    "xtick.color": INK, "ytick.color": INK, "figure.facecolor": PAPER, "savefig.facecolor": PAPER,
    "axes.facecolor": "none", "legend.frameon": False, "axes.titlesize": 10.5,
    "lines.linewidth": 1.6, "lines.markersize": 6, "figure.constrained_layout.use": True,
}  # fmt: skip

BOLD = FontProperties(family=["DejaVu Sans"], size=12, weight="bold")

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
    tips: list[str] = field(default_factory=list)
    """What the page says of the marks that :func:`tipped` made, in their order."""

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
                title = plain_text(self.title)
                if self.figure.legends:  # matplotlib would put a title of its own across it
                    self.figure.legends[0].set_title(title, BOLD)
                else:
                    self.figure.suptitle(title, fontproperties=BOLD)
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
        found = re.sub(
            r'<g id="tip(\d+)">',
            lambda one: f'<g data-tip="{escape(self.tips[int(one[1])])}">',
            found,
        )
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


def plain_text(words: str) -> str:
    """Words that matplotlib draws as they are: it reads $ as mathematics."""
    return words.replace("$", r"\$")


def tipped(axes: Axes, tips: list[str], x: float, y: float, words: str) -> None:
    """Let the page say something of a mark: an invisible one lies over it, larger to be hit."""
    axes.plot([x], [y], "o", markersize=13, alpha=0, gid=f"tip{len(tips)}")
    tips.append(words)


class Look:
    """Colour, mark and dashes of each variant: those of its norm, in every report; settings of one
    norm are shades of its colour."""

    def __init__(self, sweep: Sweep) -> None:
        self.styles: dict[str, dict[str, Any]] = {}
        runs = sweep.runs.drop_duplicates("cell").set_index("cell")
        norms = sweep.cells.assign(norm=runs["norm.name"]).groupby("variant", sort=False)["norm"]
        several = {variant: set(names) for variant, names in norms}
        one_norm_each = "norm.name" in sweep.compared or len(set.union(*several.values())) == 1
        known: dict[str, int] = {}
        taken: set[int] = set()
        for place, variant in enumerate(sweep.variants):
            name = next(iter(several[variant])) if one_norm_each else ""
            shade = known.get(name, 0) if one_norm_each else 0
            known[name] = known.get(name, 0) + 1
            if not one_norm_each:
                base = place
            elif name in NORMS:
                base = NORMS.index(name)
            else:  # one's own norms have theirs by their names
                base = len(NORMS) + zlib.crc32(name.encode()) % len(NORMS)
                while not shade and base in taken:
                    base += 1
            taken.add(base)
            self.styles[variant] = {
                "color": _shade(COLOURS[base % len(COLOURS)], SHADES[shade % len(SHADES)]),
                "marker": MARKERS[(base + shade) % len(MARKERS)],
                "linestyle": DASHES[(base + shade) % len(DASHES)],
            }

    def label(self, variant: str) -> str:
        # matplotlib leaves labels with a leading underscore out of legends.
        return plain_text(variant).lstrip("_")

    def __call__(self, variant: str) -> dict[str, Any]:
        return self.styles[variant]


def _shade(colour: str, share: float) -> str:
    """A colour nearer to white, or below zero to black, by this share of the way."""
    end = 1.0 if share > 0 else 0.0
    red, green, blue = (part + abs(share) * (end - part) for part in to_rgb(colour))
    return to_hex((red, green, blue))


def new_figure(
    rows: int, columns: int, width: float, height: float, share: Literal["all", "col"] = "all"
) -> tuple[Figure, list[Axes]]:
    """A figure of panels, row by row; all have one scale, or those of a column."""
    figure = Figure(figsize=(width, height))
    FigureCanvasAgg(figure)
    axes = figure.subplots(rows, columns, squeeze=False, sharey=share)
    return figure, list(axes.flat)


def curve(axes: Axes, values: pd.DataFrame, x: str, label: str, style: dict[str, Any]) -> None:
    """Means over seeds along an axis, in a band from the lowest to the highest.

    Args:
        values: a row for each place on the axis and seed, with its ``value``.
    """
    at = values.dropna(subset=["value"]).groupby(x)["value"].agg(["mean", "min", "max"])
    if at.empty:
        return
    every = max(1, len(at) // 8)
    axes.plot(at.index, at["mean"], markersize=4, markevery=every, label=label, **style)
    axes.fill_between(at.index, at["min"], at["max"], color=style["color"], alpha=0.15, linewidth=0)


def axis_of(sweep: Sweep) -> str | None:
    """The swept condition that goes along an axis: the batch size, or else a number."""
    if "batch_size" in sweep.conditions:
        return "batch_size"
    numbers = (key for key in sweep.conditions if sweep.cells[key].map(is_number).all())
    return next(numbers, next(iter(sweep.conditions), None))


def is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def panels(sweep: Sweep, rows: pd.DataFrame, axis: str | None) -> list[tuple[str, pd.DataFrame]]:
    """The rows by all conditions but the axis, each with its title."""
    titles = [sweep.condition(row, leaving_out=axis or "") for row in records(rows)]
    return [(str(title), part) for title, part in rows.groupby(titles, sort=False)]


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
        words = [plain_text(text(value)) for value in self.values]
        axes.set_xticks([self.at(value) for value in self.values], words)
        axes.xaxis.set_minor_locator(NullLocator())
        axes.xaxis.set_minor_formatter(NullFormatter())


def grid_of(count: int) -> tuple[int, int]:
    columns = 1 if count == 1 else 2
    return -(-count // columns), columns


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
        columns = int(68 * figure.get_figwidth() / (41 + 6.5 * longest))
        columns = max(1, min(len(handles), columns))
        # A long legend shall not take the panels' room.
        lines = -(-len(handles) // columns)
        figure.set_figheight(figure.get_figheight() + 0.2 * (lines - 1))
        figure.legend(
            list(handles.values()), list(handles), loc="outside upper center", ncols=columns,
            handlelength=2.2, columnspacing=1.0,
        )  # fmt: skip
