"""The picture of what ``diagnostics=true`` measured, of runs that have it."""

from collections.abc import Iterable

from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from normexp.report.cells import Cell, Sweep
from normexp.report.drawing import (
    MOST_PANELS,
    WIDE,
    Look,
    Picture,
    curve,
    finish,
    left_out,
    new_figure,
)

MOST_NAMES = 8
"""Layers whose names have room below a panel; more are numbered."""


def diagnosed(sweep: Sweep, look: Look) -> Picture | None:
    """What norms receive by depth, smoothness, and BN's averages: a row for each condition."""
    cells = [cell for cell in sweep.cells if any(run.diagnostics for run in cell.completed)]
    conditions = list(dict.fromkeys(cell.condition for cell in cells))
    if not conditions:
        return None
    shown = conditions[:MOST_PANELS]
    figure, axes = new_figure(len(shown), 3, WIDE, 2.7 * len(shown), share="col")
    for place, condition in enumerate(shown):
        depth, smooth, gap = axes[3 * place : 3 * place + 3]
        here = [cell for cell in cells if cell.condition == condition]
        _by_depth(depth, here, look)
        _by_epoch(smooth, here, look, "effective_beta")
        # Before training running averages are of nothing.
        _by_epoch(gap, here, look, "train_eval_gap", first=1)
        for one, label in ((depth, "activation std, last epoch"), (smooth, "effective β")):
            one.set(ylabel=label, yscale="log")
            one.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            one.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
            one.yaxis.set_minor_formatter(NullFormatter())
        smooth.set_xlabel("epoch")
        gap.set(xlabel="epoch", ylabel="train-eval gap of the loss")
        smooth.set_title(sweep.condition_label(condition).replace("$", r"\$"))
    finish(figure, axes, len(axes))
    return Picture(
        "diagnostics",
        "Inside the networks",
        "Measured on the same images in all runs: how much the outputs of layers before norms "
        "vary, in the order of the network; effective β, the largest change of the gradient by "
        "the step along it, where lower is smoother; and the loss with the statistics of these "
        "images less that with running averages, below zero where averages do worse. Mean over "
        f"seeds, the band from the lowest to the highest seed.{left_out(len(conditions))}",
        figure,
    )


def _values(cell: Cell, quantity: str) -> Iterable[tuple[int, str, float]]:
    """Epoch, layer and value, of all runs."""
    for run in cell.completed:
        for (epoch, layer, name), value in run.diagnostics.items():
            if name == quantity:
                yield epoch, layer, value


def _by_epoch(axes: Axes, cells: list[Cell], look: Look, quantity: str, first: int = 0) -> None:
    for cell in cells:
        at: dict[float, list[float]] = {}
        for epoch, _, value in _values(cell, quantity):
            if epoch >= first:
                at.setdefault(epoch, []).append(value)
        curve(axes, at, look.label(cell.variant), look(cell.variant))


def _by_depth(axes: Axes, cells: list[Cell], look: Look) -> None:
    layers: dict[str, int] = {}
    for cell in cells:
        values = [one for one in _values(cell, "activation_std") if not _is_norm(one[1])]
        last = max((epoch for epoch, _, _ in values), default=0)
        at: dict[float, list[float]] = {}
        for epoch, layer, value in values:
            if epoch == last:
                at.setdefault(layers.setdefault(layer, len(layers)), []).append(value)
        curve(axes, at, look.label(cell.variant), look(cell.variant))
    if len(layers) <= MOST_NAMES:
        axes.set_xticks(list(layers.values()), list(layers), rotation=30, ha="right")
    else:
        axes.set_xlabel("layer")


def _is_norm(layer: str) -> bool:
    """By the names that models give: a network without norms has none of these layers."""
    return layer.rpartition(".")[2].startswith("norm")
