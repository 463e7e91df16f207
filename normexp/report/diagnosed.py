"""The picture of what ``diagnostics=true`` measured, of runs that have it."""

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from normexp.report.drawing import (
    MOST_PANELS,
    WIDE,
    Look,
    Picture,
    curve,
    finish,
    left_out,
    new_figure,
    plain_text,
)
from normexp.report.verdicts import Judge

MOST_NAMES = 8
"""Layers whose names have room below a panel; more are numbered."""


def diagnosed(judge: Judge, rows: pd.DataFrame, look: Look) -> Picture | None:
    """What norms receive by depth, smoothness, and BN's averages: a row for each condition."""
    done = judge.sweep.runs[judge.sweep.runs["status"] == "completed"]
    if judge.runs.diagnostics.empty:
        return None
    known = judge.runs.diagnostics.merge(done[["folder", "cell"]], on="folder")
    cells = rows[rows.index.isin(known["cell"])]
    if cells.empty:
        return None
    conditions = list(dict.fromkeys(cells["condition"]))
    shown = conditions[:MOST_PANELS]
    figure, axes = new_figure(len(shown), 3, WIDE, 2.7 * len(shown), share="col")
    for place, condition in enumerate(shown):
        depth, smooth, gap = axes[3 * place : 3 * place + 3]
        here = cells[cells["condition"] == condition]["variant"]
        _by_depth(depth, known, here, look)
        _by_epoch(smooth, known[known["quantity"] == "effective_beta"], here, look)
        # Before training running averages are of nothing.
        gaps = known[(known["quantity"] == "train_eval_gap") & (known["epoch"] > 0)]
        _by_epoch(gap, gaps, here, look)
        for one, label in ((depth, "activation std, last epoch"), (smooth, "effective β")):
            one.set(ylabel=label, yscale="log")
            one.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            one.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
            one.yaxis.set_minor_formatter(NullFormatter())
        smooth.set(xlabel="epoch", title=plain_text(condition))
        gap.set(xlabel="epoch", ylabel="train-eval gap of the loss")
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


def _by_epoch(axes: Axes, known: pd.DataFrame, cells: "pd.Series[str]", look: Look) -> None:
    for cell, variant in cells.items():
        curve(axes, known[known["cell"] == cell], "epoch", look.label(variant), look(variant))


def _by_depth(axes: Axes, known: pd.DataFrame, cells: "pd.Series[str]", look: Look) -> None:
    """Layers whose weights are more than numbers of a channel: a network without norms has those
    that others have. Runs of earlier versions tell norms by the names of the small networks."""
    norms = {*known[known["quantity"] == "per_channel"]["layer"]}
    by_name = known["layer"].str.rpartition(".")[2].str.startswith("norm")
    values = known[
        (known["quantity"] == "activation_std")
        & ~(by_name | known["layer"].isin(norms))
        & known["cell"].isin(cells.index)
    ]
    values = values[values["epoch"] == values.groupby("cell")["epoch"].transform("max")]
    layers = {layer: place for place, layer in enumerate(dict.fromkeys(values["layer"]))}
    placed = values.assign(place=values["layer"].map(layers))
    for cell, variant in cells.items():
        curve(axes, placed[placed["cell"] == cell], "place", look.label(variant), look(variant))
    if len(layers) <= MOST_NAMES:
        axes.set_xticks(list(layers.values()), list(layers), rotation=30, ha="right")
    else:
        axes.set_xlabel("layer")
