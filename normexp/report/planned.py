"""Verdicts of `normexp.compare`: reached at looks that were planned. A report looks no more."""

import pandas as pd

from normexp.report.cells import Sweep
from normexp.runs.plan import Comparison

RESULTS = ("verdict", "p", "p_same")


def verdicts(rows: pd.DataFrame, sweep: Sweep, comparison: Comparison) -> pd.DataFrame:
    """The rows with what was decided in the place of what these runs would say by themselves."""
    names = sweep.runs["folder"].str.rpartition("/")[2]
    cell_of = dict(zip(names, sweep.runs["cell"], strict=True))
    rows = rows.copy()
    for known in comparison.history[-1] if comparison.history else []:
        cell, other = cell_of.get(known["run"]), cell_of.get(known["reference_run"])
        if cell is not None and other is not None and rows.at[cell, "other"] == other:
            for name in RESULTS:
                rows.at[cell, name] = known[name]
    return rows


def method(comparison: Comparison) -> str:
    """How it was decided, in a sentence or two."""
    looks = ", ".join(
        f"{seeds} seeds at {100 * level:.2g} %"
        for seeds, level in zip(comparison.looks, comparison.levels, strict=True)
    )
    taken = len(comparison.history)
    tuned = "Learning rates were not tuned."
    if comparison.rates:
        count = len(comparison.tried)
        tuned = f"Each cell's learning rate is the best of {count} on validation, by other seeds."
    return (
        f"Looks that were planned: {looks}; {taken} of {len(comparison.looks)} taken. What one "
        f"decides gets no more seeds; together they claim a false difference in at most "
        f"{100 * sum(comparison.levels):.2g} % of such tables. {tuned}"
    )
