"""How much of a norm's test accuracy depends on the statistics it is evaluated with."""

import statistics
from collections.abc import Sequence

from normexp.bn_stats import KINDS
from normexp.report.cells import Cell, Sweep
from normexp.report.read import Run
from normexp.report.statistics import mean_interval
from normexp.report.tables import NOTHING, Table, points, spread, swept, values_of

HEADING = "Accuracy by the statistics of evaluation"

NOTE = (
    "The same networks, tested with other statistics in place of the running averages: “precise” "
    "are those of training images, computed anew after training, “batch” those of each batch of "
    "test images. A difference is the mean over runs with its nominal 95 % BCa interval: what is "
    "gained so was lost in evaluation, not in training."
)


def table(sweep: Sweep) -> Table | None:
    """A row a cell whose runs were tested with more than one kind; None if there is none."""
    cells = [(cell, runs) for cell in sweep.cells if (runs := several(cell))]
    if not cells:
        return None
    kinds = [
        kind for kind in KINDS if any(kind in by_kind(run) for _, runs in cells for run in runs)
    ]
    others = [kind for kind in kinds if kind != "running"] if "running" in kinds else []
    lines = []
    for cell, runs in cells:
        line = [*values_of(cell), str(len(runs))]
        line += [spread([by_kind(run)[kind] for run in runs if kind in by_kind(run)])
                 for kind in kinds]  # fmt: skip
        line += [_written(gains(runs, kind)) for kind in others]
        lines.append(line)
    headings = [*swept(sweep), "n", *(f"{kind} %" for kind in kinds)]
    return headings + [f"{kind} - running, points [95 %]" for kind in others], lines


def by_kind(run: Run) -> dict[str, float]:
    """Test accuracy, 0..1, by the kind of statistics; empty in results of earlier versions."""
    return run.result.get("test_acc_by_bn_stats") or {}


def gains(runs: Sequence[Run], kind: str) -> list[float]:
    """What each run has more with this kind than with running averages."""
    both = [by_kind(run) for run in runs if {"running", kind} <= by_kind(run).keys()]
    return [found[kind] - found["running"] for found in both]


def several(cell: Cell) -> list[Run]:
    """Runs of a cell that were tested with more than one kind."""
    return [run for run in cell.completed if len(by_kind(run)) > 1]


def _written(differences: list[float]) -> str:
    if not differences:
        return NOTHING
    mean = points(statistics.fmean(differences))
    low, high = mean_interval(differences)
    return f"{mean} [{points(low)}, {points(high)}]" if len(differences) > 1 else mean
