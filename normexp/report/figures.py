"""Which pictures the report shows, and what is in each."""

import statistics
from collections.abc import Callable, Sequence

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.ticker import (
    FuncFormatter,
    LogLocator,
    MaxNLocator,
    NullFormatter,
    StrMethodFormatter,
)

from normexp.report.cells import Cell, Sweep, text
from normexp.report.compare import Row
from normexp.report.cost import cost
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
    axis_label,
    axis_of,
    curve,
    finish,
    grid_of,
    left_out,
    new_figure,
    panels,
)
from normexp.report.statistics import mean_interval
from normexp.report.tables import accuracies

MOST_COMPARISONS = 60
INCHES_A_LETTER = 0.085
"""Of labels on an axis."""


def pictures(sweep: Sweep, rows: Sequence[Row]) -> list[Picture]:
    """Every picture that these runs have something to show in."""
    if not any(cell.completed for cell in sweep.cells):
        return []
    look = Look(sweep)
    makers: list[Callable[[], Picture | None]] = [
        lambda: _error_lines(sweep, look),
        lambda: _forest(sweep, rows, look),
        lambda: _seeds(sweep, look),
        lambda: _heat_map(sweep, look),
        lambda: _curves(sweep, look),
        lambda: _cost(sweep, look),
        lambda: diagnosed(sweep, look),
    ]
    with mpl.rc_context(STYLE):
        return [picture for maker in makers if (picture := maker()) is not None]


def _error_lines(sweep: Sweep, look: Look) -> Picture | None:
    axis = axis_of(sweep)
    if axis is None:
        return None
    place = sweep.conditions.index(axis)
    parts = panels(sweep, axis)
    shown = parts[:MOST_PANELS]
    rows, columns = grid_of(len(shown))
    figure, axes = new_figure(rows, columns, WIDTH if columns == 1 else WIDE, 3.8 * rows)
    for one, (title, cells) in zip(axes, shown, strict=False):
        ticks = Ticks([cell.condition[place] for cell in cells])
        variants = list(dict.fromkeys(cell.variant for cell in cells))
        for number, variant in enumerate(variants):
            points = []
            for cell in cells:
                values = [100 * (1 - value) for value in accuracies(cell)]
                if cell.variant == variant and values:
                    shift = 0.12 * (number - (len(variants) - 1) / 2) / max(1, len(variants) - 1)
                    low, high = mean_interval(values)
                    mean = statistics.fmean(values)
                    points.append((ticks.at(cell.condition[place], shift), mean, low, high))
            if points:
                x, mean_, low_, high_ = zip(*sorted(points), strict=True)
                error = [
                    [m - lo for m, lo in zip(mean_, low_, strict=True)],
                    [hi - m for m, hi in zip(mean_, high_, strict=True)],
                ]
                one.errorbar(
                    x, mean_, error, capsize=3, elinewidth=1, label=look.label(variant),
                    **look(variant),
                )  # fmt: skip
        ticks.draw(one)
        one.set(xlabel=axis_label(sweep, axis), ylabel="test error, %", title=title)
    finish(figure, axes, len(shown))
    scale = ", log axis" if ticks.numeric else ""
    return Picture(
        "error",
        f"Test error against {axis_label(sweep, axis)}",
        f"Mean over seeds with its nominal 95 % BCa bootstrap interval{scale}; lower is better. "
        "Marks are moved aside a little so that they do not hide each other."
        + left_out(len(parts)),
        figure,
    )


def _forest(sweep: Sweep, rows: Sequence[Row], look: Look) -> Picture | None:
    compared = [row for row in rows if row.difference is not None]
    if not compared or sweep.reference is None:
        return None
    shown = compared[:MOST_COMPARISONS]
    labels = []
    for row in reversed(shown):
        condition = sweep.condition_label(row.cell.condition).replace("$", r"\$")
        labels.append(f"{condition} {look.label(row.cell.variant)}".lstrip())
    # Of the letters, and of what stands beside them.
    width = INCHES_A_LETTER * max(map(len, labels)) + 3
    figure, (axes,) = new_figure(1, 1, width, 1.1 + 0.24 * len(shown))
    for place, row in enumerate(reversed(shown)):
        found = row.difference
        assert found is not None
        style = look(row.cell.variant) | {"linestyle": "none"}
        mean = 100 * found.mean
        low = 100 * (found.mean if found.low is None else found.low)
        high = 100 * (found.mean if found.high is None else found.high)
        axes.errorbar(
            [mean], [place], xerr=[[mean - low], [high - mean]], capsize=3, elinewidth=1.4,
            markerfacecolor=style["color"] if row.bold else PAPER, **style,
        )  # fmt: skip
        if list(dict.fromkeys(one.cell.condition for one in shown)).index(row.cell.condition) % 2:
            axes.axhspan(place - 0.5, place + 0.5, color="#999999", alpha=0.12, linewidth=0)
    axes.axvline(0, color=INK, linewidth=1)
    axes.margins(x=0.08)
    axes.set_yticks(range(len(shown)), labels)
    axes.set_ylim(-0.5, len(shown) - 0.5)
    axes.grid(visible=False, axis="y")
    reference = look.label(sweep.reference)
    # To the right: what is too long for the axis reaches below the labels.
    axes.set_xlabel(f"difference from {reference}, points", loc="right")
    rest = len(compared) - len(shown)
    return Picture(
        "differences",
        f"Differences from {sweep.variant_label(sweep.reference)}",
        "Mean paired difference of test accuracy with its nominal 95 % BCa interval; right of the "
        "line is better. Filled marks: six seeds or more, no zero in the interval, p below 0.05."
        + (f" {rest} more comparisons are in the table." if rest else ""),
        figure,
    )


def _seeds(sweep: Sweep, look: Look) -> Picture | None:
    axis = axis_of(sweep)
    parts = panels(sweep, axis)
    shown = parts[:MOST_PANELS]
    rows, columns = grid_of(len(shown))
    figure, axes = new_figure(rows, columns, WIDTH if columns == 1 else WIDE, 3.6 * rows)
    place = sweep.conditions.index(axis) if axis else 0
    for one, (title, cells) in zip(axes, shown, strict=False):
        positions = list(dict.fromkeys(cell.condition[place] if axis else "" for cell in cells))
        variants = list(dict.fromkeys(cell.variant for cell in cells))
        for cell in cells:
            number = variants.index(cell.variant)
            left = positions.index(cell.condition[place] if axis else "") - 0.4
            centre = left + 0.8 * (number + 0.5) / len(variants)
            values = [100 * value for value in accuracies(cell)]
            style = look(cell.variant) | {"linestyle": "none"}
            # A seed keeps its place within its column, so that pairs can be followed.
            count = max(1, len(values) - 1)
            spread = 0.3 / len(variants)
            x = [centre + spread * (at / count - 0.5) for at in range(len(values))]
            one.plot(x, values, markersize=4, alpha=0.8, label=look.label(cell.variant), **style)
            if values:
                half = 0.35 / len(variants)
                mean = statistics.fmean(values)
                one.plot([centre - half, centre + half], [mean, mean], color=INK, linewidth=1.2)
            if cell.diverged:
                one.annotate(
                    f"{len(cell.diverged)} diverged", (centre, 0),
                    xycoords=("data", "axes fraction"), rotation=90, fontsize=8,
                    ha="center", va="bottom", color=style["color"],
                )  # fmt: skip
        one.set_xticks(range(len(positions)), [text(value) if axis else "" for value in positions])
        one.grid(visible=False, axis="x")
        one.set(xlabel=axis_label(sweep, axis) if axis else "", ylabel="test accuracy, %")
        one.set_title(title)
    finish(figure, axes, len(shown))
    return Picture(
        "seeds",
        "Every seed",
        f"One mark a run, in the order of its seeds; the bar is their mean.{left_out(len(parts))}",
        figure,
    )


def _heat_map(sweep: Sweep, look: Look) -> Picture | None:
    axis = axis_of(sweep)
    if axis is None or len(sweep.variants) < 2:
        return None
    place = sweep.conditions.index(axis)
    parts = panels(sweep, axis)
    shown = parts[:MOST_PANELS]
    known = [100 * statistics.fmean(accuracies(cell)) for cell in sweep.cells if cell.completed]
    rows, columns = grid_of(len(shown))
    height = 1.0 + 0.42 * len(sweep.variants)
    longest = max(len(look.label(variant)) for variant in sweep.variants)
    # Long labels shall not take the panels' room, of which nothing might be left.
    width = (WIDTH if columns == 1 else WIDE) + max(0.0, INCHES_A_LETTER * longest - 1)
    figure, axes = new_figure(rows, columns, width, height * rows)
    low, high = min(known), max(known)
    image = None
    for one, (title, cells) in zip(axes, shown, strict=False):
        levels = list(dict.fromkeys(cell.condition[place] for cell in cells))
        grid = [[float("nan")] * len(levels) for _ in sweep.variants]
        for cell in cells:
            if cell.completed:
                row, column = (
                    sweep.variants.index(cell.variant),
                    levels.index(cell.condition[place]),
                )
                value = 100 * statistics.fmean(accuracies(cell))
                grid[row][column] = value
                dark = high > low and (value - low) / (high - low) < 0.55
                one.text(
                    column, row, f"{value:.1f}", ha="center", va="center", fontsize=9,
                    color="#ffffff" if dark else "#000000",
                )  # fmt: skip
        image = one.imshow(grid, cmap="cividis", vmin=low, vmax=high, aspect="auto")
        one.set_xticks(range(len(levels)), list(map(text, levels)))
        one.set_yticks(range(len(sweep.variants)), list(map(look.label, sweep.variants)))
        one.grid(visible=False)
        one.set(xlabel=axis_label(sweep, axis), title=title)
    for empty in axes[len(shown) :]:
        empty.set_axis_off()
    assert image is not None
    figure.colorbar(image, ax=axes, label="test accuracy, %")
    return Picture(
        "heat_map",
        f"Test accuracy by {axis_label(sweep, axis)}",
        f"Mean over seeds in percent; lighter is better.{left_out(len(parts))}",
        figure,
    )


def _curves(sweep: Sweep, look: Look) -> Picture | None:
    """Learning curves by epoch and by images seen, a pair of panels for each condition."""
    measure = "val_acc" if _has(sweep, "val_acc") else "train_loss"
    if not _has(sweep, measure):
        return None
    conditions = sweep.all_conditions
    shown = conditions[:MOST_PANELS]
    figure, axes = new_figure(len(shown), 2, WIDE, 2.7 * len(shown))
    for row, condition in enumerate(shown):
        for column, by in enumerate(("epoch", "samples_seen")):
            one = axes[2 * row + column]
            for cell in sweep.cells:
                if cell.condition == condition:
                    _curve(one, cell, by, measure, look)
            one.set_title(sweep.condition_label(condition))
            one.set_xlabel("epoch" if by == "epoch" else "training images seen")
            one.xaxis.set_major_locator(MaxNLocator(5, integer=True, min_n_ticks=1))
            one.xaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
            if not column:
                validation = "validation accuracy, %"
                one.set_ylabel(validation if measure == "val_acc" else "training loss")
    finish(figure, axes, len(axes))
    what = "Validation accuracy" if measure == "val_acc" else "Training loss"
    return Picture(
        "curves",
        "Learning curves",
        f"{what} at the end of each epoch, by epoch and by images seen: mean over seeds, the band "
        f"from the lowest to the highest seed.{left_out(len(conditions))}",
        figure,
    )


def _has(sweep: Sweep, measure: str) -> bool:
    return any(
        row.get(measure) is not None
        for cell in sweep.cells for run in cell.completed for row in run.metrics
    )  # fmt: skip


def _curve(axes: Axes, cell: Cell, by: str, measure: str, look: Look) -> None:
    scale = 100 if measure == "val_acc" else 1
    at: dict[float, list[float]] = {}
    for run in cell.completed:
        for row in run.metrics:
            place, value = row.get(by), row.get(measure)
            if place is not None and value is not None:
                at.setdefault(place, []).append(scale * value)
    curve(axes, at, look.label(cell.variant), look(cell.variant))


def _cost(sweep: Sweep, look: Look) -> Picture | None:
    figure, (axes,) = new_figure(1, 1, WIDTH, 3.8)
    drawn = False
    for cell in sweep.cells:
        seconds, values = cost(cell).train_seconds, [100 * value for value in accuracies(cell)]
        if seconds and values:
            drawn = True
            style = look(cell.variant) | {"linestyle": "none"}
            mean = statistics.fmean(values)
            axes.plot([seconds], [mean], label=look.label(cell.variant), **style)
            if sweep.conditions:
                place = axis_of(sweep)
                assert place is not None
                value = text(cell.condition[sweep.conditions.index(place)])
                axes.annotate(
                    value.replace("$", r"\$"), (seconds, mean), xytext=(5, 3),
                    textcoords="offset points", fontsize=9,
                )  # fmt: skip
    if not drawn:
        return None
    axes.set_xscale("log")
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda seconds, _: f"{seconds:g}"))
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.set(xlabel="seconds of training, median run", ylabel="test accuracy, %")
    finish(figure, [axes], 1)
    axis = axis_of(sweep)
    numbers = f" The figure beside a mark is its {axis_label(sweep, axis)}." if axis else ""
    return Picture(
        "cost",
        "Accuracy against cost",
        f"Mean test accuracy of each cell against the time its runs trained.{numbers} Upper left "
        "is better.",
        figure,
    )
